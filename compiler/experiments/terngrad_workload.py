"""A network as the time of its steps depends on it: how many values it exchanges, and how long it computes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from compiler.train.terngrad.bytes import cheapest
from compiler.train.terngrad.cost import Cost, Exchanged
from compiler.train.terngrad.probe import CLASSES, SIDE, mixed
from compiler.train.terngrad.settings import Settings, plan_for

__all__ = ["Workload", "compute_seconds"]

_REPEATS = 5  # of a forward and backward pass


@dataclass(frozen=True)
class Workload:
    """A network in a step of one worker.

    Attributes
    ----------
    share : of its weights that are fully connected, 0 … 1.
    ternary, floats : values of tensors that are turned ternary, and of the others.
    compute : seconds of forward and backward pass.
    """

    share: float
    ternary: int
    floats: int
    compute: float

    @classmethod
    def of(cls, options: Mapping[str, int], compute: float) -> Workload:
        """That of `probe.mixed` with `options`."""
        module = mixed(**options)
        weights = {True: 0, False: 0}
        for layer in module:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                weights[isinstance(layer, nn.Linear)] += layer.weight.numel()
        plan = plan_for(module, Settings())
        sizes = {key: parameter.numel() for key, parameter in module.named_parameters()}
        ternary = sum(sizes[key] for key, yes in plan.ternary.items() if yes)
        return cls(weights[True] / sum(weights.values()), ternary, sum(sizes.values()) - ternary, compute)

    def scaled(self, times: int) -> Workload:
        """So many times the values, and as many times the computing."""
        return Workload(self.share, self.ternary * times, self.floats * times, self.compute * times)

    def exchange(self, scheme: str, workers: int, mbit: float) -> Exchanged:
        """Its gradients, once; see `cost.Exchanged`."""
        return Exchanged(scheme, workers, mbit, self.ternary, self.floats)

    def speedup(self, cost: Cost, workers: int, mbit: float) -> float:
        """Of ternary over float steps, on machines of their own."""
        times = [cost.seconds(self.exchange(scheme, workers, mbit)) for scheme in ("float", cheapest(workers))]
        return (self.compute + times[0]) / (self.compute + times[1])


def compute_seconds(module: nn.Module, batch: int) -> float:
    """CPU seconds of forward and backward pass on one core; median."""
    inputs, labels = torch.randn(batch, SIDE * SIDE), torch.randint(0, CLASSES, (batch,))
    taken = []
    for _ in range(1 + _REPEATS):
        began = time.process_time()
        nn.functional.cross_entropy(module(inputs), labels).backward()  # type: ignore[no-untyped-call]
        taken.append(time.process_time() - began)
    return float(np.median(taken[1:]))
