"""Functions of one number as tables of straight pieces; docs/numerics.md, Table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from compiler.graph.functions import FUNCTIONS
from compiler.graph.integer import HIGH, LOW, TABLE_SIZE

__all__ = ["best_table", "look_up"]

Int = NDArray[np.int64]
Float = NDArray[np.float64]

_CLOSEST = 10
"""Domains are tried down to 2**-10 of int16."""


def look_up(table: Int, left: int, x: Int) -> Int:
    """What a table makes of raw numbers."""
    place = np.clip(x << left, LOW, HIGH)
    piece, part = (place >> 7) + TABLE_SIZE // 2, place & 127
    found: Int = table[piece] + (((table[piece + 1] - table[piece]) * part + 64) >> 7)
    return found


def best_table(function: str, read: int, made: int, low: int, high: int) -> tuple[Int, int]:
    """The table with the least greatest error over raw inputs from `low` to `high`, and its left shift.

    A left shift makes pieces narrower and the domain with them; beyond it the result is that of its end.

    Parameters
    ----------
    function : key of `FUNCTIONS`.
    read, made : exponents of input and result.
    """
    exact = FUNCTIONS[function]
    x = np.arange(low, high + 1)
    wanted = np.clip(np.ldexp(exact(np.ldexp(x.astype(np.float64), read)), -made), LOW, HIGH)
    best: tuple[float, Int, int] | None = None
    for left in range(_CLOSEST + 1):
        table = _table(exact, read - left, made)
        error = float(np.abs(look_up(table, left, x) - wanted).max())
        if best is None or error < best[0]:
            best = (error, table, left)
        elif error > 4 * best[0] + 4:
            break
    assert best is not None
    return best[1], best[2]


def _table(function: Callable[[Float], Float], read: int, made: int) -> Int:
    """Values at the ends of the pieces."""
    ends = (np.arange(TABLE_SIZE) - TABLE_SIZE // 2) * 128.0
    with np.errstate(over="ignore"):
        values = np.rint(np.ldexp(function(np.ldexp(ends, read)), -made))
    return np.clip(values, LOW, HIGH).astype(np.int64)
