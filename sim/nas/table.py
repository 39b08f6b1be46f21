"""Cycles of every operation of a space, from whole networks on the exact cycle model: nothing is shipped or guessed.

Each operation of each block is timed inside whole networks, on what it reads there. Layers of the array have names, so
cycles of a network are those of its blocks and of the rest, which all networks have. A block's first layer also waits
for the last writes of the block before, the longer the wider that one is inside. Such waits are found by least squares
and counted to the operation that causes them: so the table still adds up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.experiments.policy.network import graph_of
from compiler.train.images import Images
from compiler.train.nas.latency import LatencyTable
from compiler.train.nas.mixed import Supernet
from compiler.train.nas.search import settled
from compiler.train.nas.space import Choices, Space
from hw.params import Params
from sim.cost import Cost, cost

__all__ = ["CALIBRATED", "Timer", "designs", "errors", "fitted", "measure", "parts"]

CALIBRATED = 64
"""Samples that decide number formats, and means of normalizations."""

_DRAWN = 0.1  # of a network: how strongly waits are drawn to zero where the networks do not tell them from operations


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
    """Cycles of each operation of each block on an array, see `fitted`.

    Parameters
    ----------
    supernet : gives the weights. rounds : times that each operation is timed; from 2 on beside different ones, by which
        waits are known. seed : which networks are timed.

    Raises
    ------
    ModelError, ImageError
        A network cannot be compiled for the array, or does not fit it.
    """
    space = supernet.space
    timed = designs(space, rounds, seed)
    found = [parts(timer.cost(timer.settled(supernet, choices)), len(space.places)) for choices in timed]
    return fitted(space, timed, [base for base, _ in found], [taken for _, taken in found])


def fitted(
    space: Space, timed: Sequence[Choices], bases: Sequence[float], taken: Sequence[Sequence[float]]
) -> LatencyTable:
    """The table that is nearest to whole networks: of each block its operation, and a wait by what stands before it.

    The wait depends on the expansion of the operation before (0 where that is nothing), and is counted to that one.

    Parameters
    ----------
    timed : networks in which every operation of every block stands once at least. bases, taken : of each, cycles before
        the blocks and of each block, see `parts`.
    """
    rows: list[NDArray[np.float64]] = []
    for number, count in enumerate(space.counts):
        own = np.array([choices[number] for choices in timed])
        before = [space.choices(number - 1)[choices[number - 1]].expansion if number else 0 for choices in timed]
        kinds = sorted(set(before))
        drawn = np.sqrt(_DRAWN) * np.eye(len(kinds))
        there = np.hstack([np.eye(count)[own], np.equal.outer(before, kinds)])
        goal = np.append([blocks[number] for blocks in taken], np.zeros(len(kinds)))
        found = np.linalg.lstsq(np.vstack([there, np.hstack([np.zeros((len(kinds), count)), drawn])]), goal, None)[0]
        if number:
            waits = dict(zip(kinds, found[count:], strict=True))
            rows[-1] += [waits[op.expansion] for op in space.choices(number - 1)]
        rows.append(found[:count])
    return LatencyTable(fmean(bases), tuple(tuple(map(float, row)) for row in rows))


def errors(table: LatencyTable, networks: Mapping[Choices, float]) -> list[float]:
    """How far the table is from the cycles of whole networks, each as a share of these, with its sign."""
    return [table.of(choices) / taken - 1 for choices, taken in networks.items()]
