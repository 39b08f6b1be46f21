"""A recipe, trained over a parameter server on Ray; what is left of it in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from compiler import clusters
from compiler.train import checkpoint
from compiler.train.consistency.cluster import Settings, train
from compiler.train.consistency.core import bound_words
from compiler.train.consistency.learner import Learner
from compiler.train.images import Images
from compiler.train.parallel.finished import finish_job
from compiler.train.progress import fresh
from compiler.train.terngrad.job import Job, parse
from compiler.train.terngrad.train import CHECKPOINT
from compiler.train.trainable import check_outputs

__all__ = ["learner_of", "train_job"]

_SHARDS = "shards"


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
    """Train; leaves in OUT what every training leaves, and returns its report.

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
    tensors = {f"module.{name}": value for name, value in learner.module.state_dict().items()}
    content = {"recipe": job.asdict(), "done": job.schedule.epochs, "history": []}
    checkpoint.save(out / CHECKPOINT, tensors, content)
    how = {
        "way": "server",
        "workers": settings.workers,
        "servers": settings.servers,
        "staleness": bound_words(settings.staleness),
        "updates": total,
        "reads": trained.reads,
        "lags": {str(lag): count for lag, count in sorted(trained.lags.items())},
        "waited": [round(seconds, 3) for seconds in trained.waited],
        "replaced": trained.faults,
    }
    return finish_job(job, out, how, [], round(trained.seconds, 3), data_dir)
