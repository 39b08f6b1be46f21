"""What is left of a parallel training: the same files as of one in one process, so that everything reads them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compiler.train import checkpoint
from compiler.train.images import Images, accuracy
from compiler.train.loop import reproducible
from compiler.train.progress import fresh
from compiler.train.report import finish, layers_of
from compiler.train.taken import CHECKPOINT
from compiler.train.terngrad.job import Job

__all__ = ["finish_job"]


def finish_job(
    job: Job, out: Path, parallel: Mapping[str, Any], history: Sequence[Mapping[str, Any]], seconds: float,
    data_dir: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """From OUT/checkpoint.safetensors: the plain and the compressed model, calibration inputs, plots, the report.

    Parameters
    ----------
    parallel : how it was trained, for the report.
    history : loss and validation accuracy of each epoch, where they are known.
    """
    tensors, _ = checkpoint.load(out / CHECKPOINT)
    dataset = job.data(data_dir, 1)
    module = fresh(job.model, dataset, job.seed)
    state = {name.removeprefix("module."): value for name, value in tensors.items() if name.startswith("module.")}
    module.load_state_dict(state)
    module.eval()
    lesson = Images(dataset.train, dataset.shape, job.model.flat)
    with reproducible(threads=1):
        shares = {
            name: accuracy(module, lesson, split)
            for name, split in (("validation", dataset.validation), ("test", dataset.test))
        }
    record = {
        "stage": "dense",
        "kind": "dense",
        "epochs": job.schedule.epochs,
        "history": [{**row, "density": 1.0} for row in history],
        "seconds": seconds,
        "cpu_seconds": 0.0,
        "accuracy": shares,
        "layers": layers_of(module),
    }
    return finish(job.recipe(), module, copy.deepcopy(module), dataset, [record], out, {"parallel": dict(parallel)})
