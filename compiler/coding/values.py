"""Which value each nonzero has: its sign, and then its rank among the values of that sign, bit by bit from the top.

A value's contexts: the values at the lags in the lines before, the values before in its row, its row, its line and
how many nonzeros these have. All positions are known before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiler.coding.bits import BitDecoder, BitRecorder
from compiler.coding.grid import Past
from compiler.coding.kernels import all_values, value_steps
from compiler.coding.mixing import fresh
from compiler.coding.ranks import Ranks
from compiler.errors import CodingError

__all__ = ["code_values"]

Int = NDArray[np.int64]

# First weights of the predictors of signs, in percent: where they end on pruned LeNet-300-100s.
_TRUST = (0, 25, 15, 40, 35, 15, 8, -5, -5, 5)
_TRUST_ALONE = (14,) * 10


def code_values(
    coder: BitRecorder | BitDecoder,
    seen: NDArray[np.uint8],
    lags: Int,
    ranks: Ranks,
    block: int,
    codes: NDArray[np.uint8] | None,
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
    signs = fresh(sign_sizes, 6, block, 1 << 15, _TRUST if len(lags) else _TRUST_ALONE)
    places = fresh(rank_sizes, depth + 4, block, 1 << 15)._replace(chances=signs.chances)
    if isinstance(coder, BitRecorder):
        assert codes is not None
        coder.code(*all_values(signs, places, past, ranks.of_code, ranks.levels, depth, block, codes))
        return codes, float(signs.spent[0] + places.spent[0])
    result, bits = np.zeros((lines, rows), np.uint8), np.zeros(block, np.int32)
    to_code = np.zeros((2, 1 << depth), np.uint8)
    to_code[0, : len(ranks.negative)] = ranks.negative
    to_code[1, : len(ranks.positive)] = ranks.positive
    steps = value_steps(signs, places, past, to_code, ranks.levels, depth, block, bits, result)
    coder.read(steps, signs.chances, bits)
    if np.count_nonzero(result) != np.count_nonzero(seen):
        raise CodingError("the coded stream holds a value that the codebook does not have")
    return result, float(signs.spent[0] + places.spent[0])


def _logarithms(counts: Int) -> Int:
    """Counts on a scale of 0 … 15: twice the logarithm."""
    bits = np.array([int(count).bit_length() for count in counts], np.int64)
    second = np.where(bits > 1, counts >> np.maximum(bits - 2, 0) & 1, 0)
    return np.minimum(2 * bits - (bits > 0) + second, 15)
