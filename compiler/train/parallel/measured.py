"""One worker of a measurement: gradients, time, bytes and weights of every way to share a step.

Started by `hosts.run_workers` as ``python -m compiler.train.parallel.measured PLAN OUT``. The plan is JSON: "data_dir",
"steps", and a list "measurements", each with

- way : "data", "sharded", "tensor", "data-tensor", "gpipe" or "1f1b".
- job : a recipe as `job.Job.asdict` has it; the first batch of its schedule is what every step sees.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from compiler.train.data import Dataset
from compiler.train.images import ImageBatch, Images
from compiler.train.loop import reproducible
from compiler.train.parallel.mesh import Mesh
from compiler.train.parallel.pipeline import SCHEDULES, Pipeline
from compiler.train.progress import fresh
from compiler.train.terngrad.job import Job, parse
from compiler.train.terngrad.probe import counters, since
from compiler.train.terngrad.worker import data_dir, take_part

__all__ = ["main", "measure"]

_TIMEOUT = 300.0  # seconds
_UNMEASURED = 2  # steps; torch forms buckets anew after the first


def measure(way: str, job: Job, dataset: Dataset, steps: int) -> dict[str, Any]:
    """What this process sees of gradients on one batch, shared by a way and alone.

    Returns
    -------
    dict
        "difference": of the whole gradients from those of one process, the largest of any tensor, relative to the
        greatest gradient of that tensor. "seconds", "cpu": of each step, and of all together on the processor;
        "alone", "cpu_alone": the same of one process, measured by the first. "sent": bytes at this worker's interface
        in all steps. "held", "whole": bytes of the parameters in this process, and of all.
    """
    lesson = Images(dataset.train, dataset.shape, job.model.flat)
    batch = next(lesson.batches(0, job.schedule.batch, torch.Generator().manual_seed(job.seed)))
    module = fresh(job.model, dataset, job.seed)
    single = copy.deepcopy(module)

    def alone() -> None:
        single.zero_grad()
        batch.loss(single).backward()  # type: ignore[no-untyped-call]

    alone()
    expected = _gradients(single)
    shared = _way(way, module, batch, job.seed)
    shared(shared.module, batch)
    found = shared.whole(_gradients(shared.module))
    difference = float(torch.tensor([_relative(found[name], value) for name, value in expected.items()]).max())

    def step() -> None:
        shared.module.zero_grad()
        shared(shared.module, batch)

    for _ in range(_UNMEASURED):
        step()
    before = counters()
    seconds, cpu = _timed(step, steps)
    sent = since(before)["tx"]
    first = dist.get_rank() == 0  # the others wait, so that one process has the machine to itself
    seconds_alone, cpu_alone = _timed(alone if first else _nothing, steps)
    return {
        "difference": difference, "seconds": seconds, "cpu": cpu, "alone": seconds_alone, "cpu_alone": cpu_alone,
        "sent": sent, "held": _held(shared.module), "whole": _held(single),
    }  # fmt: skip


def _way(way: str, module: nn.Module, batch: ImageBatch, seed: int) -> Mesh | Pipeline:
    if way not in SCHEDULES:
        return Mesh(module, way, seed)
    return Pipeline(module, batch.inputs, max(4, dist.get_world_size()), way, seed)


def _nothing() -> None:
    pass


def _gradients(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: parameter.grad.detach().clone()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny))


def _held(module: nn.Module) -> int:
    """Bytes of the parameters that lie in this process."""
    local = [each.to_local() if isinstance(each, DTensor) else each for each in module.parameters()]
    return sum(each.numel() * each.element_size() for each in local)


def _timed(what: Callable[[], None], times: int) -> tuple[list[float], float]:
    """Wall-clock seconds of each time, all workers starting together, and CPU seconds of all."""
    taken = []
    cpu = time.process_time()
    for _ in range(times):
        dist.barrier()
        began = time.perf_counter()
        what()
        taken.append(time.perf_counter() - began)
    return taken, time.process_time() - cpu


def main() -> int:
    """Take part in all measurements of the plan."""
    return take_part(_measurements, _TIMEOUT)


def _measurements(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    results = []
    with reproducible(threads=1):
        for one in plan["measurements"]:
            job = parse(one["job"], "plan")
            dataset = job.data(data_dir(plan), dist.get_world_size())
            results.append(measure(one["way"], job, dataset, plan["steps"]))
    return results


if __name__ == "__main__":
    sys.exit(main())
