"""One worker of a measurement: bytes at its network interface and seconds of each exchange, by method.

Started by `hosts.run_workers` as ``python -m compiler.train.terngrad.probe PLAN OUT``. The plan is JSON: a list
"measurements", each with

- network : options of `mixed`; batch : samples a worker takes in a step.
- method : one of `METHODS`.
- mbit : what the worker's link is limited to, or null.
- steps : that are measured; two before them are not.
"""

from __future__ import annotations

import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from compiler.train.terngrad.hosts import limit
from compiler.train.terngrad.methods import ONE_BUCKET, POWERSGD_FROM, Method
from compiler.train.terngrad.pack import pack
from compiler.train.terngrad.settings import Settings
from compiler.train.terngrad.wire import Wire
from compiler.train.terngrad.worker import take_part

__all__ = ["CLASSES", "METHODS", "PUSHES", "SIDE", "counters", "main", "mixed", "since"]

METHODS = ("float", "fp16", "powersgd", "gather", "sums")
"""torch's own all-reduce, its fp16 and PowerSGD hooks, and the two schemes of ternary gradients."""

PUSHES = ("push-float", "push-ternary")
"""Only what goes from the workers to those that add up."""

SIDE = 16
CLASSES = 10

_UNMEASURED = POWERSGD_FROM  # steps; until then PowerSGD is an all-reduce
_TIMEOUT = 300.0  # seconds


def mixed(channels: int, layers: int, hidden: int) -> nn.Sequential:
    """Convolutions 3x3 on 8x8 points and Linear layers, in any proportion of their weights; inputs 16x16 points.

    `layers` convolutions of `channels` follow the first one, of stride 2; then a mean to 2x2 points and three Linear,
    of `hidden`, an eighth of `hidden`, and ten outputs.
    """
    narrow = max(1, hidden // 8)
    stages: OrderedDict[str, nn.Module] = OrderedDict(
        image=nn.Unflatten(1, (1, SIDE, SIDE)), conv=nn.Conv2d(1, channels, 3, 2, 1), relu=nn.ReLU()
    )
    for number in range(1, layers + 1):
        stages[f"conv{number}"] = nn.Conv2d(channels, channels, 3, 1, 1)
        stages[f"act{number}"] = nn.ReLU()
    stages.update(
        pool=nn.AdaptiveAvgPool2d(2), flat=nn.Flatten(), fc1=nn.Linear(4 * channels, hidden), act=nn.ReLU(),
        fc2=nn.Linear(hidden, narrow), act2=nn.ReLU(), fc3=nn.Linear(narrow, CLASSES),
    )  # fmt: skip
    return nn.Sequential(stages)


def main() -> int:
    """Take part in all measurements of the plan."""
    torch.set_num_threads(1)
    return take_part(
        lambda plan: [_push(one) if one["method"] in PUSHES else _steps(one) for one in plan["measurements"]], _TIMEOUT
    )


def _steps(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Steps of data-parallel training with a method, on random samples."""
    if plan["mbit"] is not None:
        limit(None)  # making the networks equal is not measured
    torch.manual_seed(1)
    module = mixed(**plan["network"])
    ddp = DistributedDataParallel(module, bucket_cap_mb=ONE_BUCKET)
    exchanges: list[tuple[float, float]] = []
    ddp.register_comm_hook(None, _timed(_averager(plan["method"], module), exchanges))
    torch.manual_seed(2 + dist.get_rank())
    inputs, labels = torch.randn(plan["batch"], SIDE * SIDE), torch.randint(0, CLASSES, (plan["batch"],))
    whole: list[float] = []
    before: dict[str, int] = {}
    for step in range(_UNMEASURED + plan["steps"]):
        if step == _UNMEASURED - 1 and plan["mbit"] is not None:
            limit(plan["mbit"])
        if step == _UNMEASURED:
            before = counters()
        dist.barrier()
        began = _clocks()
        nn.functional.cross_entropy(ddp(inputs), labels).backward()  # type: ignore[no-untyped-call]
        whole.append(_taken(began)[0])
        for parameter in module.parameters():
            parameter.grad = None
    sent = since(before)
    if plan["mbit"] is not None:
        limit(None)
    values = sum(parameter.numel() for parameter in module.parameters())
    return {
        "values": values,
        "seconds": [both[0] for both in exchanges[_UNMEASURED:]],
        "cpu_seconds": [both[1] for both in exchanges[_UNMEASURED:]],
        "step_seconds": whole[_UNMEASURED:],
        **{key: amount / plan["steps"] for key, amount in sent.items()},
    }


def _push(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The way from the workers to those that add up, alone."""
    values = sum(parameter.numel() for parameter in mixed(**plan["network"]).parameters())
    wire = Wire()
    gradient = torch.randn(wire.workers, -(-values // (8 * wire.workers)) * 8)
    if plan["method"] == "push-ternary":
        gradient = pack(gradient.sign().to(torch.int8).view(-1)).view(wire.workers, -1)
    wire.push(gradient)
    before = counters()
    for _ in range(plan["steps"]):
        wire.push(gradient)
    sent = since(before)
    return {"values": values, **{key: amount / plan["steps"] for key, amount in sent.items()}}


Averager = Callable[[Any], torch.futures.Future[Tensor]]


def _averager(method: str, module: nn.Module) -> Averager:
    """What a method does with a bucket."""
    ternary = method in ("gather", "sums")
    chosen = (
        Method("terngrad", Settings(scheme=method)) if ternary else Method("float32" if method == "float" else method)
    )
    state, hook = chosen.hook(module)
    return lambda bucket: hook(state, bucket)


def _clocks() -> tuple[float, float]:
    """Seconds by the clock, and of this process on the cores."""
    return time.perf_counter(), time.process_time()


def _taken(began: tuple[float, float]) -> tuple[float, float]:
    now = _clocks()
    return now[0] - began[0], now[1] - began[1]


def _timed(averager: Averager, taken: list[tuple[float, float]]) -> Callable[[Any, Any], torch.futures.Future[Tensor]]:
    """The same, begun when all workers are there, and its seconds noted."""

    def hook(_, bucket):  # type: ignore[no-untyped-def]  # torch allows no other annotations than its own
        dist.barrier()
        began = _clocks()
        value: Any = averager(bucket).wait()
        taken.append(_taken(began))
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(value[0] if isinstance(value, list) else value)
        return done

    return hook


def counters() -> dict[str, int]:
    """Bytes that the interface has sent and received; all workers are at the same place.

    From /proc, which shows the namespace of whoever reads; /sys shows that of whoever mounted it.
    """
    dist.barrier()
    lines = Path("/proc/self/net/dev").read_text(encoding="utf-8").splitlines()
    counts = {name.strip(): numbers.split() for name, _, numbers in (line.partition(":") for line in lines[2:])}
    mine = counts[os.environ["GLOO_SOCKET_IFNAME"]]
    return {"rx": int(mine[0]), "tx": int(mine[8])}


def since(before: Mapping[str, int]) -> dict[str, int]:
    """What was added to `counters`; all workers are at the same place."""
    return {key: now - before[key] for key, now in counters().items()}


if __name__ == "__main__":
    sys.exit(main())
