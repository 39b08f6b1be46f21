"""A recipe, trained over a parameter server on Ray; what is left of it in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from compiler import clusters
from compiler.claim import claimed
from compiler.errors import InputError
from compiler.train import checkpoint
from compiler.train.consistency.cluster import Settings, train
from compiler.train.consistency.core import bound_words
from compiler.train.consistency.learner import Learner
from compiler.train.consistency.shard import split
from compiler.train.images import Images
from compiler.train.parallel.finished import finish_job
from compiler.train.progress import fresh
from compiler.train.runfolder import CALIBRATION, COMPRESSED, MODEL, REPORT, read_report
from compiler.train.taken import CHECKPOINT, SHARDS, check_free
from compiler.train.terngrad.job import Job, parse
from compiler.train.trainable import check_outputs

__all__ = ["learner_of", "train_job"]

_RECIPE = "recipe.json"


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
    resume : go on from the servers' checkpoints of the same recipe; a finished run is left as it is.
    told : is told how many of all updates are made.

    Raises
    ------
    InputError
        `out` holds a run and `resume` is not set, or one of another recipe or kind, or another process works there.
    EieError
        As `cluster.train` and `Job.data`.
    """
    job.check_way("server")
    check_free(out, SHARDS, resume)
    with claimed(out):
        check_free(out, SHARDS, resume)  # again: a process may have been faster
        begun = out / SHARDS / _RECIPE
        if begun.exists():
            check_recipe(job, begun)
            if all((out / name).is_file() for name in (CHECKPOINT, MODEL, COMPRESSED, CALIBRATION, REPORT)):
                return read_report(out / REPORT)
        return _train(job, out, settings, address, data_dir, resume, told)


def check_recipe(job: Job, path: Path) -> None:
    """Raises `InputError` if a training was begun by another recipe."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}; choose another folder") from None
    if stored != (wanted := job.asdict()):
        changed = [key for key in wanted if not isinstance(stored, dict) or stored.get(key) != wanted[key]]
        raise InputError(
            f"{path.parent} was begun by another recipe (it differs in {', '.join(changed) or 'its tables'}); give "
            "that one, or choose another folder"
        )


def _train(
    job: Job, out: Path, settings: Settings, address: str, data_dir: Path | None, resume: bool,
    told: Callable[[int, int], None],
) -> dict[str, Any]:  # fmt: skip
    clusters.load()
    make = partial(learner_of, job.asdict(), data_dir, settings.workers)
    learner = make()
    split({name: value.size for name, value in learner.values().items()}, settings.servers)
    # Nothing can be wrong with it any more: from here on the folder holds a training.
    total = learner.total * settings.workers
    checkpoint.write_atomic(out / SHARDS / _RECIPE, (json.dumps(job.asdict(), indent=2) + "\n").encode())
    trained = train(
        make,
        settings,
        out / SHARDS,
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
        "overlap": settings.overlap,
        "updates": total,
        "reads": trained.reads,
        "lags": {str(lag): count for lag, count in sorted(trained.lags.items())},
        "waited": [round(seconds, 3) for seconds in trained.waited],
        "replaced": trained.faults,
    }
    return finish_job(job, out, how, [], round(trained.seconds, 3), data_dir)
