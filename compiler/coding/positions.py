"""Which elements of a matrix are nonzero, bit by bit, from what lies before.

An element's contexts: its row and its line, how full they were so far, how full the lines at the lags were, which of
its neighbours at the lags are nonzero, how long its row has been empty, and how full the neurons are that it
connects (known from tensors before).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from compiler.coding.bits import BitCoder
from compiler.coding.mixing import STRETCH, Mix, fresh, learn, predict

__all__ = ["Grid", "code_flags", "code_positions"]

Int = NDArray[np.int64]

_PLACES = 41  # results of `_place`
_SPEED = 6  # of the weights
_FLAG_SPEED = 16
# First weights, in percent, with lags and without: where they end on pruned LeNet-300-100s.
_TRUST = (14, 15, 20, 0, 4, 30, 25, 9, 6)
_TRUST_ALONE = (20, 0, 10, 2, 5, 11, 5, 5, 35)


class Grid(NamedTuple):
    """What is known of a matrix while it is coded.

    seen : uint8 (lines, rows), 1 where a nonzero is known.
    totals : (lines,), nonzeros of each line. filled, last : (rows,), nonzeros of each row, and the line of the latest.
    lags : distances to lines before. live : rows that are not flagged as empty.
    line_hints, row_hints : (lines,) and (rows,), 0 … 15, how full the neuron is elsewhere; 0 if not known.
    expected : share of nonzeros, of ONE.
    """

    seen: NDArray[np.uint8]
    totals: Int
    filled: Int
    last: Int
    lags: Int
    live: Int
    line_hints: Int
    row_hints: Int
    expected: int


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
    for line in lines:
        for first in range(0, len(grid.live), block):
            size = min(block, len(grid.live) - first)
            _ahead(mix, grid, STRETCH, line, first, size)
            predict(mix, size)
            bits = None if matrix is None else matrix[line, grid.live[first : first + size]].astype(np.int64)
            bits = coder.code(mix.found[:size], bits)
            learn(mix, bits, size, _SPEED)
            _after(grid, line, first, size, bits)
    return float(mix.spent.sum())


@njit(cache=True)
def _place(part: int, whole: int, expected: int, stretch: Int) -> int:
    """Log odds of ``(part + 0.4) / (whole + 0.4 / expected)`` in 41 steps; `expected` is of ONE."""
    share = (10 * part + 4) * 65536 // (10 * whole + 262144 // expected)
    place: int = 20 + ((stretch[min(share, 65535)] * 5 + 256) >> 9)
    return min(max(place, 0), 40)


@njit(cache=True)
def _ahead(mix: Mix, grid: Grid, stretch: Int, line: int, first: int, size: int) -> None:
    """Contexts of `size` live rows of a line, from `first` on."""
    rows = grid.seen.shape[1]
    lags = len(grid.lags)
    around, near = 0, 0
    for k in range(min(lags, 4)):
        if line >= grid.lags[k]:
            around += grid.totals[line - grid.lags[k]]
            near += 1
    beside = _place(around, near * rows, grid.expected, stretch)
    so_far = _place(grid.totals[line], grid.live[first], grid.expected, stretch)
    for n in range(size):
        row = grid.live[first + n]
        pattern, neighbours = 0, 0
        for k in range(lags):
            if line >= grid.lags[k] and grid.seen[line - grid.lags[k], row]:
                neighbours += 1
                if k < 6:
                    pattern |= 1 << k
        fullness = _place(grid.filled[row], line, grid.expected, stretch)
        pause = line - grid.last[row]
        high = 0  # place of its highest bit
        while pause >> high > 1:
            high += 1
        steps = 2 * high + (pause >> (high - 1) & 1 if high else 0)
        contexts = mix.contexts[n]
        contexts[0] = row
        contexts[1] = (beside >> 1) * 64 + pattern
        contexts[2] = min(steps, 15) * 64 + pattern
        contexts[3] = line
        contexts[4] = ((so_far >> 1) * 21 + (beside >> 1)) * 9 + neighbours
        contexts[5] = (fullness >> 1) * 64 + pattern
        contexts[6] = min(steps, 15) * 9 + neighbours
        contexts[7] = beside * 9 + neighbours
        contexts[8] = (grid.line_hints[line] * 16 + grid.row_hints[row]) * 21 + (so_far >> 1)
        mix.chosen[n, 0] = 0
        mix.chosen[n, 1] = 1 + neighbours
        mix.chosen[n, 2] = 10 + fullness


@njit(cache=True)
def _after(grid: Grid, line: int, first: int, size: int, bits: Int) -> None:
    """Enter bits into the grid."""
    for n in range(size):
        if bits[n]:
            row = grid.live[first + n]
            grid.seen[line, row] = 1
            grid.totals[line] += 1
            grid.filled[row] += 1
            grid.last[row] = line
