"""Elementwise operations, function tables and loops of a random program, and what they make, by plain numpy.

Written from docs/numerics.md, section 7: Multiply, Add, Affine, Shift and Clamp are all one operation here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.layouts import ACT_BITS, table_word
from hw.params import PIECES, Params
from tests.hw.program_words import packed

__all__ = ["FUNCTIONS", "Loop", "Operation", "draw_function", "draw_tables", "look_up", "operate", "table_words"]

Int = NDArray[np.int64]
FUNCTIONS = ("table_1", "left_1", "right_1", "table_2", "left_2", "right_2")
"""Fields of a descriptor that say which functions there are."""

LOW, HIGH = -(1 << (ACT_BITS - 1)), (1 << (ACT_BITS - 1)) - 1


@dataclass
class Operation:
    """One elementwise operation: its descriptor fields."""

    step: dict[str, int]


@dataclass
class Loop:
    """The end of a loop: its descriptor fields, and the number of the first item of its body."""

    step: dict[str, int]
    body: int


def draw_tables(rng: np.random.Generator, number: int) -> Int:
    """(number, 513) int16 numbers: smooth ones, and ones at random."""
    ends = np.arange(-PIECES // 2, PIECES // 2 + 1)
    tables = [rng.integers(LOW, HIGH + 1, PIECES + 1) for _ in range(number)]
    for n in range(0, number, 2):
        tables[n] = np.rint(HIGH * np.tanh(ends / rng.integers(4, 200))).astype(np.int64)
    return np.array(tables, np.int64).reshape(number, PIECES + 1)


def table_words(params: Params, tables: Int) -> list[int]:
    """The words of the function tables."""
    layout = table_word(params)
    return [
        packed(layout, value=int(each[n]), step=int(each[n + 1] - each[n])) for each in tables for n in range(PIECES)
    ]


def draw_function(rng: np.random.Generator, params: Params, n: int) -> dict[str, int]:
    """Fields of function `n`: any table and shifts, mostly those that leave something of a number."""
    left, right = (int(rng.integers(0, 32 if rng.random() < 0.2 else 5)) for _ in range(2))
    return {f"table_{n}": int(rng.integers(0, params.tables)), f"left_{n}": left, f"right_{n}": right}


def _shifted(values: Any, shift: Any) -> Any:
    """floor((values + h) / 2**shift), h half of 2**shift, or 0 for shift 0."""
    return values + np.where(np.asarray(shift) > 0, 1 << np.maximum(np.asarray(shift) - 1, 0), 0) >> shift


def look_up(tables: Int, step: dict[str, int], n: int, y: Int) -> Int:
    """Function `n` of a descriptor."""
    table = tables[step[f"table_{n}"]]
    u = np.clip(_shifted(y << step[f"left_{n}"], step[f"right_{n}"]), LOW, HIGH)
    i, f = u // 128 + 256, u % 128
    return np.asarray(table[i] + ((table[i + 1] - table[i]) * f + 64) // 128, np.int64)


def operate(now: NDArray[np.int16], step: dict[str, int], offset: int, params: Params, tables: Int) -> int:
    """Write the result of an operation in a round of a loop with this offset. Returns how many were saturated.

    now : (batch, groups, lines, 8) activation memory, changed in place.
    """

    def place(name: str) -> slice:
        first = step[name] + offset * step[f"moves_{name}"]
        return slice(first, first + step["lines"])

    def read(name: str) -> Int:
        return now[:, :, place(name)].astype(np.int64)

    total = read("a") * (read("b") if step["has_b"] else step["scale_a"]) + step["offset"]
    if step["has_c"]:
        total += read("c") * (read("e") if step["has_e"] else step["scale_c"])
    half = 1 << params.acc_bits - 1
    total = (total + half) % (2 * half) - half
    q = _shifted(total, step["shift"])
    values = np.clip(np.clip(q, LOW, HIGH), step["low"], step["high"])
    if step["functions"]:
        values = look_up(tables, step, 1, values)
    now[:, :, place("result")] = values
    return int((q > HIGH).sum() + (q < LOW).sum() * (step["low"] < 0))
