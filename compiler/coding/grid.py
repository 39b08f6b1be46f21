"""What both sides of the context coder know of a matrix while it is coded."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Grid", "Past"]

Int = NDArray[np.int64]


class Grid(NamedTuple):
    """Of positions.

    seen : uint8 (lines, rows), 1 where a nonzero is known.
    totals : (lines,), nonzeros of each line. filled, last : (rows,), nonzeros of each row, and the line of the latest.
    lags : distances to lines before. live : rows that are not flagged as empty.
    line_hints, row_hints : (lines,) and (rows,), 0 … 15, how full the neuron is elsewhere; 0 if not known.
    expected : share of nonzeros, of ONE.

    Of the line at work, from the lines before, (rows,): `pattern` which of the first six lags are nonzero, `neighbours`
    how many of all lags, `fullness` of the row so far, `pause` since its latest nonzero. beside : (1,), how full the
    lines at the lags are.
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
    pattern: Int
    neighbours: Int
    fullness: Int
    pause: Int
    beside: Int


class Past(NamedTuple):
    """Of values, when all positions are known.

    seen : uint8 (lines, rows), 1 for a nonzero.
    levels : int8 (lines, rows), of the values known so far, as `Ranks.levels`.
    balance, signs : (rows,), positive less negative values, and the signs of the last two (0 … 8).
    weight, counted : (rows,), sum of the magnitudes of levels, and how many.
    latest : (rows,), level of the latest value. crowd : (rows,), how many nonzeros a row has, 0 … 15.
    crowds : (lines,), how many a line has, 0 … 15. lags : distances to lines before.
    """

    seen: NDArray[np.uint8]
    levels: NDArray[np.int8]
    balance: Int
    signs: Int
    weight: Int
    counted: Int
    latest: Int
    crowd: Int
    crowds: Int
    lags: Int
