"""How many bits one worker sends for one value of a gradient, by each way of adding up over N workers.

Averages over the workers; a worker also receives as many. Messages' own framing is not counted.

Float sums: ring all-reduce, of which reduce-scatter and all-gather are a half each. Ternary values: either everyone
gets everyone's codes ("gather"), or each worker adds up one share of the values and sends the sums to all ("sums").
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = [
    "FLOAT_BITS",
    "TERNARY_BITS",
    "cheapest",
    "float_bits",
    "gather_bits",
    "gather_ratio",
    "low_rank_bits",
    "one_bit_bits",
    "push_bits",
    "scheme_bits",
    "sum_bits",
    "sums_bits",
    "sums_ratio",
]

FLOAT_BITS = 32
TERNARY_BITS = 2


def sum_bits(workers: int) -> int:
    """Bits of a sum of `workers` codes: ⌈log2(2N + 1)⌉."""
    return (2 * workers).bit_length()


def float_bits(workers: int, bits: int = FLOAT_BITS) -> float:
    """Ring all-reduce of values of `bits` bits."""
    return 2 * (workers - 1) / workers * bits


def push_bits(workers: int, bits: int = TERNARY_BITS) -> float:
    """From a worker to those that add up: the reduce-scatter alone."""
    return (workers - 1) / workers * bits


def gather_bits(workers: int) -> float:
    """Scheme "gather": all-gather of packed codes."""
    return (workers - 1) * TERNARY_BITS


def sums_bits(workers: int) -> float:
    """Scheme "sums": codes to those that add up, sums back from them."""
    return (workers - 1) / workers * (TERNARY_BITS + sum_bits(workers))


def scheme_bits(scheme: str, workers: int) -> float:
    """Bits of a scheme by its name."""
    return {"gather": gather_bits, "sums": sums_bits}[scheme](workers)


def one_bit_bits(workers: int) -> int:
    """1-bit SGD: all-gather of signs; the two values that go with a row are not counted."""
    return workers - 1


def gather_ratio(workers: int) -> float:
    """Float bits through "gather" bits: 32 / N."""
    return FLOAT_BITS / workers


def sums_ratio(workers: int) -> float:
    """Float bits through "sums" bits: 64 / (2 + ⌈log2(2N + 1)⌉)."""
    return 2 * FLOAT_BITS / (TERNARY_BITS + sum_bits(workers))


def cheapest(workers: int) -> str:
    """The scheme that sends fewest bits among `workers`: "gather" for one or two, "sums" for more."""
    return "gather" if gather_bits(workers) <= sums_bits(workers) else "sums"


def low_rank_bits(shapes: Sequence[tuple[int, ...]], rank: int, workers: int) -> float:
    """PowerSGD: bits of all values together, each matrix as two factors of `rank` columns, vectors as they are."""
    values = 0
    for shape in shapes:
        rows = shape[0] if shape else 1
        total = math.prod(shape)
        columns = total // rows if rows else 0
        small = min(rank, rows, columns) * (rows + columns)
        values += total if len(shape) < 2 or small >= total else small
    return float_bits(workers) * values
