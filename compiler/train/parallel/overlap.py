"""One worker of a measurement: how much of an exchange is hidden behind computing, by size of buckets.

Started by `hosts.run_workers` as ``python -m compiler.train.parallel.overlap PLAN OUT``. The plan is JSON: a list
"measurements", each with

- network : options of `probe.mixed`; batch : samples of a worker in a step.
- pace : seconds of a forward and backward pass that wait instead of computing (`paced`), or 0: they compute.
- mbit : what the worker's link is limited to.
- buckets : sizes in MiB; rounds : how often each thing is timed.

In each round computing, the exchange alone and whole steps take turns, in an order that moves on by one, so that what
disturbs the machine disturbs all of them.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from compiler.train.data import Split
from compiler.train.images import ImageBatch, Images
from compiler.train.parallel.buckets import fastest, probe, timed
from compiler.train.parallel.paced import paced
from compiler.train.terngrad.hosts import limit
from compiler.train.terngrad.methods import Method
from compiler.train.terngrad.probe import CLASSES, SIDE, mixed
from compiler.train.terngrad.worker import take_part

__all__ = ["main", "measure"]

_UNMEASURED = 2  # rounds; torch forms the buckets anew after the first step
_TIMEOUT = 600.0  # seconds
_MIB = 1 << 20


def measure(plan: Mapping[str, Any], limited: Callable[[float | None], None] = limit) -> dict[str, Any]:
    """Seconds of every round, as this process sees them: "compute" [round], "alone" and "step" [size][round].

    "chosen" is the size that `buckets.probe` takes, in steps of its own.

    Parameters
    ----------
    limited : sets the bandwidth of this worker's link in Mbit/s; None: no limit.
    """
    limited(None)  # making the networks equal is not measured
    torch.manual_seed(1)
    inputs = torch.randn(plan["batch"] * dist.get_world_size(), SIDE * SIDE)
    labels = torch.randint(0, CLASSES, (len(inputs),))
    module = mixed(**plan["network"])
    if plan["pace"]:
        module = paced(module, inputs[:1], plan["pace"])
    sizes: Sequence[float] = plan["buckets"]
    wrapped = {
        size: Method().wrap(module if number == 0 else copy.deepcopy(module), size)[0]
        for number, size in enumerate(sizes)
    }
    mine = slice(dist.get_rank(), None, dist.get_world_size())
    gradients = torch.zeros(sum(parameter.numel() for parameter in module.parameters()))

    def step(ddp: DistributedDataParallel) -> None:
        nn.functional.cross_entropy(ddp(inputs[mine]), labels[mine]).backward()  # type: ignore[no-untyped-call]
        ddp.zero_grad()

    def compute(ddp: DistributedDataParallel) -> None:
        with ddp.no_sync():
            step(ddp)

    def alone(size: float) -> None:
        parts = torch.split(gradients, max(1, int(size * _MIB) // gradients.element_size()))
        for work in [dist.all_reduce(part, async_op=True) for part in parts]:
            work.wait()

    things: list[tuple[str, Callable[[], None]]] = [("compute", partial(compute, wrapped[sizes[0]]))]
    things += [(f"alone {size}", partial(alone, size)) for size in sizes]
    things += [(f"step {size}", partial(step, wrapped[size])) for size in sizes]
    taken: dict[str, list[float]] = {name: [] for name, _ in things}
    for size in sizes:
        step(wrapped[size])  # all processes have the same buckets from the first step on
    limited(plan["mbit"])
    for number in range(_UNMEASURED + plan["rounds"]):
        turn = number % len(things)
        for name, what in things[turn:] + things[:turn]:
            taken[name].append(timed(what))
    lesson = Images(Split(inputs.numpy(), labels.numpy()), (1, SIDE, SIDE))
    batch = ImageBatch(lesson, inputs, labels)
    chosen = fastest(probe(module, batch, Method(), sizes))
    limited(None)
    measured = {name: each[_UNMEASURED:] for name, each in taken.items()}
    return {
        "values": len(gradients),
        "compute": measured["compute"],
        "alone": [measured[f"alone {size}"] for size in sizes],
        "step": [measured[f"step {size}"] for size in sizes],
        "chosen": chosen,
    }


def main() -> int:
    """Take part in all measurements of the plan."""
    torch.set_num_threads(1)
    return take_part(lambda plan: [measure(one) for one in plan["measurements"]], _TIMEOUT)


if __name__ == "__main__":
    sys.exit(main())
