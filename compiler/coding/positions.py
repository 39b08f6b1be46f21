"""Which elements of a matrix are nonzero, bit by bit, from what lies before.

An element's contexts: its row and its line, how full they were so far, how full the lines at the lags were, which of
its neighbours at the lags are nonzero, how long its row has been empty, and how full the neurons are that it
connects (known from tensors before).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiler.coding.bits import BitDecoder, BitRecorder
from compiler.coding.grid import Grid
from compiler.coding.kernels import all_flags, all_positions, flag_steps, position_steps
from compiler.coding.mixing import fresh

__all__ = ["code_flags", "code_positions"]

Int = NDArray[np.int64]

_PLACES = 41  # results of `_place`
# First weights, in percent, with lags and without: where they end on pruned LeNet-300-100s.
_TRUST = (14, 15, 20, 0, 4, 30, 25, 9, 6)
_TRUST_ALONE = (20, 0, 10, 2, 5, 11, 5, 5, 35)


def code_flags(
    coder: BitRecorder | BitDecoder, lines: int, lags: Int, hints: Int, flags: NDArray[np.bool_] | None
) -> tuple[Int, float]:
    """Numbers of the lines (or rows) that hold a nonzero, and the bits that this took.

    flags : which do; None to read it.
    """
    mix = fresh((4, 16 * 4, 32), 1, 1, 1 << 15)
    if isinstance(coder, BitRecorder):
        assert flags is not None
        known = flags.astype(np.int64)
        coder.code(*all_flags(mix, lags, hints, known))
    else:
        known, bits = np.zeros(lines, np.int64), np.zeros(1, np.int32)
        coder.read(flag_steps(mix, lags, hints, bits, known), mix.chances, bits)
    return np.flatnonzero(known), float(mix.spent[0])


def code_positions(
    coder: BitRecorder | BitDecoder, grid: Grid, lines: Int, block: int, matrix: NDArray[np.uint8] | None
) -> float:
    """Fill in `grid.seen` line by line; the bits that this took.

    Parameters
    ----------
    lines : numbers of the lines that are not flagged as empty.
    block : bits at a time.
    matrix : uint8 (lines, rows), 1 for a nonzero; None to read it.
    """
    count, rows = grid.seen.shape
    half = _PLACES // 2 + 1
    sizes = (rows, half * 64, 16 * 64, count, half * half * 9, half * 64, 16 * 9, _PLACES * 9, 256 * half)
    mix = fresh(sizes, 1 + 9 + _PLACES, block, grid.expected, _TRUST if len(grid.lags) else _TRUST_ALONE, 1)
    if isinstance(coder, BitRecorder):
        assert matrix is not None
        coder.code(*all_positions(mix, grid, lines, block, matrix))
    else:
        bits = np.zeros(block, np.int32)
        coder.read(position_steps(mix, grid, lines, block, bits), mix.chances, bits)
    return float(mix.spent[0])
