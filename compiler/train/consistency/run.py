"""A recipe, trained over a parameter server on Ray; what is left of it in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from compiler import clusters
from compiler.train import checkpoint
from compiler.train.consistency.cluster import Settings, train
from compiler.train.consistency.core import bound_words
from compiler.train.consistency.learner import Learner
from compiler.train.images import Images, accuracy
from compiler.train.loop import reproducible
from compiler.train.progress import fresh
from compiler.train.report import command, versions
from compiler.train.terngrad.job import Job, parse
from compiler.train.trainable import check_outputs

__all__ = ["learner_of", "train_job"]

_CHECKPOINT, _REPORT, _SHARDS = "checkpoint.safetensors", "report.json", "shards"


def learner_of(recipe: Mapping[str, Any], data_dir: Path | None, workers: int) -> Learner:
    """The learner of a recipe, alike in every process. Raises as `Job.data`."""
    job = parse(recipe, str(recipe.get("name")))
    dataset = job.data(data_dir, workers)
    check_outputs(job.model, dataset)
    module = fresh(job.model, dataset, job.seed)
    return Learner(module, Images(dataset.train, dataset.shape, job.model.flat), job.schedule, job.seed, workers)


def train_job(
    job: Job,
    out: Path,
    settings: Settings,
    *,
    address: str = clusters.LOCAL,
    data_dir: Path | None = None,
    resume: bool = False,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Train; writes OUT/checkpoint.safetensors and OUT/report.json, and returns the latter.

    Parameters
    ----------
    told : is told how many of all updates are made.

    Raises
    ------
    EieError
        As `cluster.train` and `Job.data`.
    """
    make = partial(learner_of, job.asdict(), data_dir, settings.workers)
    learner = make()
    total = learner.total * settings.workers
    trained = train(
        make,
        settings,
        out / _SHARDS,
        address=address,
        resume=resume,
        told=lambda states: told(min(sum(state["applied"]) for state in states), total),
    )
    told(total, total)
    learner.load(trained.values)
    dataset = job.data(data_dir, settings.workers)
    with reproducible(threads=1), torch.no_grad():
        shares = {
            name: accuracy(learner.module, Images(dataset.train, dataset.shape, job.model.flat), split)
            for name, split in (("validation", dataset.validation), ("test", dataset.test))
        }
    tensors = {f"module.{name}": value for name, value in learner.module.state_dict().items()}
    content = {"recipe": job.asdict(), "done": job.schedule.epochs, "history": []}
    checkpoint.save(out / _CHECKPOINT, tensors, content)
    report = {
        "recipe": job.asdict(),
        "parallel": "server",
        "workers": settings.workers,
        "servers": settings.servers,
        "staleness": bound_words(settings.staleness),
        "accuracy": shares,
        "updates": total,
        "reads": trained.reads,
        "lags": {str(lag): count for lag, count in sorted(trained.lags.items())},
        "waited": [round(seconds, 3) for seconds in trained.waited],
        "replaced": trained.faults,
        "seconds": round(trained.seconds, 3),
        "command": command(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }
    checkpoint.write_atomic(out / _REPORT, (json.dumps(report, indent=2) + "\n").encode())
    return report
