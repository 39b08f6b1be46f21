"""One worker of a comparison of exchanges: trains by each of several recipes, and counts bytes at its interface.

Started by `hosts.run_workers` as ``python -m compiler.train.terngrad.trial PLAN OUT``. The plan is JSON: a list
"trainings", each with

- job : a recipe as `job.Job.asdict` has it.
- every : steps after which weights are averaged, with gradients of each worker's own between (local SGD); 0: gradients
  are exchanged in every step as the job says.

and "data_dir". Source of local SGD: Don't Use Large Mini-Batches, Use Local SGD (Lin et al., ICLR 2020); the averages
are torch's.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.algorithms.model_averaging.utils import average_parameters

from compiler.train.data import Dataset
from compiler.train.images import Images, accuracy
from compiler.train.loop import Batch, Epoch, Hook, fit, reproducible
from compiler.train.parallel.mesh import Mesh
from compiler.train.progress import fresh
from compiler.train.terngrad.averaging import Clock
from compiler.train.terngrad.job import Job, parse
from compiler.train.terngrad.probe import counters, since
from compiler.train.terngrad.virtual import share_loss, worker_random
from compiler.train.terngrad.worker import data_dir, take_part

__all__ = ["main"]

_TIMEOUT = 300.0  # seconds


class _Local(Hook):
    """Local SGD: every worker steps by itself, and all take the mean of their weights now and then."""

    def __init__(self, module: nn.Module, every: int, seed: int) -> None:
        self.module, self.seed, self.step = module, seed, 0
        self.averager = PeriodicModelAverager(period=every, warmup_steps=every - 1)  # first after `every` steps
        self.backward = self._backward

    def _backward(self, module: nn.Module, batch: Batch) -> float:
        workers, rank = dist.get_world_size(), dist.get_rank()
        with worker_random(self.seed, self.step, rank):
            loss = share_loss(module, batch, workers, rank)
            loss.backward()  # type: ignore[no-untyped-call]
        self.step += 1
        return loss.item()

    def after_step(self, step: int, total: int) -> None:
        """Also after the last one, so that all have the same."""
        if step + 1 == total:
            group = dist.group.WORLD
            assert group is not None
            average_parameters(self.module.parameters(), group)
        else:
            self.averager.average_parameters(self.module.parameters())


def train(job: Job, every: int, dataset: Dataset) -> dict[str, Any]:
    """Loss of each epoch, error in percent on validation and test samples, and bytes that this worker sent."""
    lesson = Images(dataset.train, dataset.shape, job.model.flat, precision=job.precision)
    module = fresh(job.model, dataset, job.seed)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    hooks: list[Hook] = []
    losses: list[float | None] = []
    steps = lesson.steps(job.schedule.batch)
    if every:
        hooks.append(_Local(module, every, job.seed))
        way = None
    else:
        assert not isinstance(job.bucket_mb, str)
        way = Mesh(module, "data", job.seed, 0, job.method, job.bucket_mb)
        if way.averaging is not None:
            hooks.append(Clock(way.averaging, steps))

    def after_epoch(epoch: Epoch) -> None:
        losses.append(epoch.loss if math.isfinite(epoch.loss) else None)

    before, began = counters(), time.process_time()
    extra = {} if way is None else {"backward": way}
    fit(module, lesson, job.schedule, (job.seed,), hooks=hooks, after_epoch=after_epoch, **extra)  # type: ignore[arg-type]
    seconds, sent = time.process_time() - began, since(before)
    parts = {"validation": dataset.validation, "test": dataset.test} if dist.get_rank() == 0 else {}
    return {
        "losses": losses,
        **{name: 100 * (1 - accuracy(module, lesson, part)) for name, part in parts.items()},
        "values": sum(parameter.numel() for parameter in module.parameters()),
        "steps": steps * job.schedule.epochs,
        "sent": sent["tx"],
        "cpu_seconds": seconds,
    }


def main() -> int:
    """Take part in all trainings of the plan."""
    return take_part(_trainings, _TIMEOUT)


def _trainings(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    results, held = [], dict[str, Dataset]()
    with reproducible(threads=1):
        for one in plan["trainings"]:
            job = parse(one["job"], "plan")
            key = json.dumps(one["job"]["data"])
            if key not in held:
                held[key] = job.data(data_dir(plan), dist.get_world_size())
            results.append(train(job, one["every"], held[key]))
            if dist.get_rank() == 0:
                print(f"{len(results)} of {len(plan['trainings'])}", flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
