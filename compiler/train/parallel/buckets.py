"""The size of DistributedDataParallel's buckets, found by a short probe.

A bucket is exchanged as soon as its gradients are there, while the backward pass goes on. Large ones are there late,
so that little is hidden behind computing; small ones cost more messages. Which is best depends on network and links.

Source: PyTorch Distributed (Li et al., VLDB 2020), section 3.2.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import nn

from compiler.train.loop import Batch
from compiler.train.terngrad.methods import Method
from compiler.train.terngrad.virtual import share_loss, worker_random
from compiler.train.terngrad.wire import losing_workers

__all__ = ["CANDIDATES", "fastest", "probe", "slowest", "timed"]

CANDIDATES = (25.0, 4.0, 1.0, 0.25)
"""MiB; the first is what torch takes."""

STEPS = 5
"""Of each candidate that are measured."""

_UNMEASURED = 2  # torch forms the buckets anew after the first step


def probe(
    module: nn.Module, batch: Batch, method: Method, candidates: Sequence[float] = CANDIDATES, steps: int = STEPS
) -> dict[float, float]:
    """Seconds of a step with each size of buckets, alike in all processes of the default group; each must call it.

    Every candidate has a copy of the module, which stays as it is. They take turns, so that what disturbs one disturbs
    all. Seconds are the median over the steps of what the slowest process took.

    Parameters
    ----------
    batch : of all processes together.

    Raises
    ------
    WorkerError
        Another process is gone.
    """
    workers, rank = dist.get_world_size(), dist.get_rank()
    with losing_workers("choosing the size of buckets"):
        wrapped = {size: method.wrap(copy.deepcopy(module), size)[0] for size in candidates}

        def one(size: float, step: int) -> None:
            with worker_random(0, step, rank):
                share_loss(wrapped[size], batch, workers, rank).backward()  # type: ignore[no-untyped-call]
            wrapped[size].zero_grad()

        taken = [[timed(partial(one, size, step)) for size in candidates] for step in range(_UNMEASURED + steps)]
    return dict(zip(candidates, slowest(taken[_UNMEASURED:]), strict=True))


def timed(what: Callable[[], object]) -> float:
    """Seconds of a call that all processes begin together."""
    dist.barrier()
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def slowest(taken: Sequence[Sequence[float]]) -> list[float]:
    """For each column, the median over the rows of the largest of all processes; alike in all of them."""
    seconds = torch.tensor(taken, dtype=torch.float64)
    dist.all_reduce(seconds, op=dist.ReduceOp.MAX)
    return [float(value) for value in seconds.quantile(0.5, 0)]


def fastest(seconds: Mapping[float, float]) -> float:
    """The size with the shortest step; of equal ones the largest."""
    return min(seconds, key=lambda size: (seconds[size], -size))
