"""Which value each nonzero has: its sign, and then its rank among the values of that sign, bit by bit from the top.

A value's contexts: the values at the lags in the lines before, the values before in its row, its row, its line and
how many nonzeros these have. All positions are known before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiler.coding.bits import BitCoder
from compiler.coding.grid import Past
from compiler.coding.kernels import (
    RANK_SPEED,
    VALUE_SPEED,
    all_values,
    enter_values,
    learn,
    predict,
    rank_contexts,
    sign_contexts,
)
from compiler.coding.mixing import fresh
from compiler.coding.ranks import Ranks
from compiler.errors import CodingError

__all__ = ["code_values"]

Int = NDArray[np.int64]

# First weights of the predictors of signs, in percent: where they end on pruned LeNet-300-100s.
_TRUST = (0, 25, 15, 40, 35, 15, 8, -5, -5, 5)
_TRUST_ALONE = (14,) * 10


def code_values(
    coder: BitCoder, seen: NDArray[np.uint8], lags: Int, ranks: Ranks, block: int, codes: NDArray[np.uint8] | None
) -> tuple[NDArray[np.uint8], float]:
    """Codes of all nonzeros, uint8 (lines, rows), and the bits that this took.

    seen : uint8 (lines, rows), 1 for a nonzero. codes : (lines, rows), or None to read them.
    """
    lines, rows = seen.shape
    empty = [np.zeros(rows, np.int64) for _ in range(5)]
    crowd, crowds = (_logarithms(seen.sum(axis=axis, dtype=np.int64)) for axis in (0, 1))
    balance, signs_before, weight, counted, latest = empty
    levels = np.zeros((lines, rows), np.int8)
    past = Past(seen, levels, balance, signs_before, weight, counted, latest, crowd, crowds, lags)
    depth = ranks.depth
    nodes = 2 << depth  # a sign and a node of the tree
    sign_sizes = (1, 17, 17, 81, 9, 17 * 9, 17 * 9, 15, rows, lines)
    rank_sizes = (nodes, *(nodes * n for n in (18, 34, rows, 17, 33, 16, 16, 18 * 17)))
    signs = fresh(sign_sizes, 6, block, 1 << 15, 2, _TRUST if len(lags) else _TRUST_ALONE)
    places = fresh(rank_sizes, depth + 4, block, 1 << 15, 2)
    if codes is not None:
        coder.code(*all_values(signs, places, past, ranks.of_code, ranks.levels, depth, block, codes))
        return codes, float(signs.spent.sum() + places.spent.sum())
    result = np.zeros((lines, rows), np.uint8)
    to_code = np.zeros((2, 1 << depth), np.uint8)
    to_code[0, : len(ranks.negative)] = ranks.negative
    to_code[1, : len(ranks.positive)] = ranks.positive
    for line in range(lines):
        here = np.flatnonzero(seen[line])
        for first in range(0, len(here), block):
            at = here[first : first + block]
            size = len(at)
            sign_contexts(signs, past, line, at)
            predict(signs, size)
            positive = coder.code(signs.found[:size], None)
            learn(signs, positive, size, VALUE_SPEED)
            node = np.ones(size, np.int64)
            for level in range(depth):
                rank_contexts(places, past, line, at, positive, node, level, depth)
                predict(places, size)
                bits = coder.code(places.found[:size], None)
                learn(places, bits, size, RANK_SPEED)
                node = 2 * node + bits
            found = to_code[positive, node - (1 << depth)]
            if not found.all():
                raise CodingError("the coded stream holds a value that the codebook does not have")
            result[line, at] = found
            enter_values(past, line, at, ranks.levels[found])
    return result, float(signs.spent.sum() + places.spent.sum())


def _logarithms(counts: Int) -> Int:
    """Counts on a scale of 0 … 15: twice the logarithm."""
    bits = np.array([int(count).bit_length() for count in counts], np.int64)
    second = np.where(bits > 1, counts >> np.maximum(bits - 2, 0) & 1, 0)
    return np.minimum(2 * bits - (bits > 0) + second, 15)
