"""Which elements of a matrix are nonzero, bit by bit, from what lies before.

An element's contexts: its row and its line, how full they were so far, how full the lines at the lags were, which of
its neighbours at the lags are nonzero, how long its row has been empty, and how full the neurons are that it
connects (known from tensors before).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiler.coding.bits import BitCoder
from compiler.coding.grid import Grid
from compiler.coding.kernels import all_positions, learn, next_positions, predict
from compiler.coding.mixing import fresh

__all__ = ["code_flags", "code_positions"]

Int = NDArray[np.int64]

_PLACES = 41  # results of `_place`
_FLAG_SPEED = 16
# First weights, in percent, with lags and without: where they end on pruned LeNet-300-100s.
_TRUST = (14, 15, 20, 0, 4, 30, 25, 9, 6)
_TRUST_ALONE = (20, 0, 10, 2, 5, 11, 5, 5, 35)


def code_flags(
    coder: BitCoder, lines: int, lags: tuple[int, ...], hints: Int, flags: NDArray[np.bool_] | None
) -> tuple[Int, float]:
    """Numbers of the lines (or rows) that hold a nonzero, and the bits that this took.

    flags : which do; None to read it.
    """
    mix = fresh((4, 16 * 4, 32), 1, 1, 1 << 15)
    known = np.zeros(lines, np.int64)
    for line in range(lines):
        before = 2 * int(known[line - 1]) + int(known[line - 2]) if line > 1 else 3
        around = sum(int(known[line - lag]) if line >= lag else 1 for lag in lags[:4])
        mix.contexts[0] = before, 4 * int(hints[line]) + before, 4 * around + before
        predict(mix, 1)
        bit = None if flags is None else np.array([flags[line]], np.int64)
        bit = coder.code(mix.found, bit)
        learn(mix, bit, 1, _FLAG_SPEED)
        known[line] = bit[0]
    return np.flatnonzero(known), float(mix.spent.sum())


def code_positions(coder: BitCoder, grid: Grid, lines: Int, block: int, matrix: NDArray[np.uint8] | None) -> float:
    """Fill in `grid.seen` line by line; the bits that this took.

    Parameters
    ----------
    lines : numbers of the lines that are not flagged as empty.
    block : bits at a time.
    matrix : uint8 (lines, rows), 1 for a nonzero; None to read it.
    """
    count, rows = grid.seen.shape
    half = _PLACES // 2 + 1
    sizes = (rows, half * 64, _PLACES**2, count, half * half * 9, half * 64, 16 * 9, _PLACES * 9, 256 * half)
    mix = fresh(sizes, 1 + 9 + _PLACES, block, grid.expected, 3, _TRUST if len(grid.lags) else _TRUST_ALONE)
    if matrix is not None:
        coder.code(*all_positions(mix, grid, lines, block, matrix))
        return float(mix.spent.sum())
    live, at, begin, bits = len(grid.live), 0, 0, np.zeros(0, np.int64)
    for line in lines.tolist():
        for first in range(0, live, block):
            size = min(block, live - first)
            next_positions(mix, grid, line, first, size, at, begin, bits)
            bits = coder.code(mix.found[:size], None)
            at, begin = line, first
    next_positions(mix, grid, 0, 0, 0, at, begin, bits)
    return float(mix.spent.sum())
