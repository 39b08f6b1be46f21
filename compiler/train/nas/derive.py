"""The likeliest network of a space whose cycles, by a table, are near a target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compiler.train.nas.latency import LatencyTable
from compiler.train.nas.space import Choices

__all__ = ["nearest"]

_BINS = 64
"""Of cycles within the tolerance: two ways that end in one bin cost the same here, and the likelier one is kept."""


def nearest(scores: Sequence[NDArray[np.float64]], table: LatencyTable, target: float, tolerance: float) -> Choices:
    """The network of the greatest sum of scores among those within a tolerance of the target.

    Block after block, of the ways that cost the same up to a 64th of the tolerance the best one goes on: sums of cycles
    are exact, and the score is the greatest up to what the bins hide.

    Parameters
    ----------
    scores : of each block, of each operation, float64 (ops,), such as logarithms of probabilities.
    target : cycles. tolerance : as a share of the target.

    Returns
    -------
    Choices
        Where no network is within the tolerance, the one whose cycles are nearest.
    """
    width = target * tolerance / _BINS
    sums, cycles = np.zeros(1), np.full(1, table.base)
    ways = np.zeros((1, 0), np.int64)
    for own, row in zip(scores, table.rows, strict=True):
        count = len(row)
        before = np.repeat(np.arange(len(sums)), count)
        choice = np.tile(np.arange(count), len(sums))
        sums = sums[before] + np.asarray(own, np.float64)[choice]
        cycles = cycles[before] + np.asarray(row)[choice]
        order = np.lexsort((-sums, np.floor(cycles / width)))
        bins = np.floor(cycles[order] / width)
        kept = order[np.concatenate([[True], np.diff(bins) > 0])]
        ways = np.concatenate([ways[before[kept]], choice[kept, np.newaxis]], axis=1)
        sums, cycles = sums[kept], cycles[kept]
    off = np.abs(cycles / target - 1)
    inside = off <= tolerance
    best = int(np.argmax(np.where(inside, sums, -np.inf))) if inside.any() else int(np.argmin(off))
    return tuple(int(each) for each in ways[best])
