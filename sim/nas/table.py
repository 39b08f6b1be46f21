"""Cycles of every operation of a space, from whole networks on the exact cycle model: nothing is shipped or guessed.

Each operation of each block is timed inside whole networks, on what it reads there. Layers of the array have names, so
cycles of a network are those of its blocks and of the rest, which all networks have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from compiler.errors import InputError
from compiler.experiments.policy.network import graph_of
from compiler.train.images import Images
from compiler.train.nas.latency import LatencyTable
from compiler.train.nas.mixed import Supernet
from compiler.train.nas.search import settled
from compiler.train.nas.space import Choices, Space
from hw.params import Params
from sim.cost import Cost, cost

__all__ = ["CALIBRATED", "Timer", "designs", "errors", "measure", "parts"]

CALIBRATED = 64
"""Samples that decide number formats, and means of normalizations."""


@dataclass(frozen=True, eq=False)
class Timer:
    """An array, and the samples that networks are timed on.

    Attributes
    ----------
    lesson : whose first samples are calibrated on. params : the array. samples : that run, as one batch.
    """

    lesson: Images
    params: Params
    samples: int = 1

    def cost(self, module: Any) -> Cost:
        """What the compiled network takes, exact; known networks are not timed again."""
        inputs = self.lesson.split.inputs[:CALIBRATED]
        return cost(graph_of(module, self.lesson), self.params, [inputs], [inputs[: self.samples]])

    def settled(self, supernet: Supernet, choices: Choices) -> Any:
        """One network of a supernet, its normalizations those of the samples."""
        return settled(supernet.extract(choices), self.lesson.split.inputs[:CALIBRATED])


def parts(found: Cost, blocks: int) -> tuple[float, list[float]]:
    """Cycles of what stands before the blocks, and of each block; the last one has what comes behind it.

    How long a layer waits hangs on the one before it, so what comes behind differs with the last block.

    Raises
    ------
    InputError
        The host computes a part of the network, which has no cycles.
    """
    if found.host:
        raise InputError(f"the array does not compute {', '.join(found.host)}; expected a space that it computes whole")
    own = {f"block{number}": number - 1 for number in range(1, blocks + 1)}
    base, taken = 0.0, [0.0] * blocks
    for layer in found.layers:
        number = own.get(layer.name.split(".")[0])
        if number is None and layer.name.split("#")[0] == "stem":
            base += layer.cycles
        else:
            taken[-1 if number is None else number] += layer.cycles
    return base, taken


def designs(space: Space, rounds: int, seed: int) -> list[Choices]:
    """Networks in which every operation of every block stands at least once a round, beside others each time."""
    rng, most, found = np.random.default_rng(seed), max(space.counts), []
    for _ in range(rounds):
        columns = [rng.permutation(most) % count for count in space.counts]
        found += [tuple(int(each) for each in row) for row in zip(*columns, strict=True)]
    return found


def measure(supernet: Supernet, timer: Timer, rounds: int = 1, seed: int = 0) -> LatencyTable:
    """Cycles of each operation of each block on an array, the mean of the networks that it stood in.

    Parameters
    ----------
    supernet : gives the weights. rounds : times that each operation is timed. seed : which networks are timed.

    Raises
    ------
    ModelError, ImageError
        A network cannot be compiled for the array, or does not fit it.
    """
    space = supernet.space
    bases: list[float] = []
    seen: list[list[list[float]]] = [[[] for _ in range(count)] for count in space.counts]
    for choices in designs(space, rounds, seed):
        base, taken = parts(timer.cost(timer.settled(supernet, choices)), len(choices))
        bases.append(base)
        for row, choice, cycles in zip(seen, choices, taken, strict=True):
            row[choice].append(cycles)
    return LatencyTable(fmean(bases), tuple(tuple(map(fmean, row)) for row in seen))


def errors(table: LatencyTable, networks: Mapping[Choices, float]) -> list[float]:
    """How far the table is from the cycles of whole networks, each as a share of these, with its sign."""
    return [table.of(choices) / taken - 1 for choices, taken in networks.items()]
