"""Which value each nonzero has: its sign, and then its rank among the values of that sign, bit by bit from the top.

A value's contexts: the values at the lags in the lines before, the values before in its row, its row, its line and
how many nonzeros these have. All positions are known before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from compiler.coding.bits import BitCoder
from compiler.coding.mixing import Mix, fresh, learn, predict
from compiler.coding.ranks import Ranks
from compiler.errors import CodingError

__all__ = ["code_values"]

Int = NDArray[np.int64]

_SPEED = 48  # of the weights
# First weights of the predictors of signs, in percent: where they end on pruned LeNet-300-100s.
_TRUST = (0, 25, 15, 40, 35, 15, 8, -5, -5, 5)
_TRUST_ALONE = (14,) * 10


class Past(NamedTuple):
    """What is known of the values while they are coded.

    levels : int8 (lines, rows), of the values known so far, as `Ranks.levels`.
    balance, signs : (rows,), positive less negative values, and the signs of the last two (0 … 8).
    weight, counted : (rows,), sum of the magnitudes of levels, and how many.
    latest : (rows,), level of the latest value. crowd : (rows,), how many nonzeros a row has, 0 … 15.
    lags : distances to lines before.
    """

    levels: NDArray[np.int8]
    balance: Int
    signs: Int
    weight: Int
    counted: Int
    latest: Int
    crowd: Int
    lags: Int


def code_values(
    coder: BitCoder, seen: NDArray[np.uint8], lags: Int, ranks: Ranks, block: int, codes: NDArray[np.uint8] | None
) -> tuple[NDArray[np.uint8], float]:
    """Codes of all nonzeros, uint8 (lines, rows), and the bits that this took.

    seen : uint8 (lines, rows), 1 for a nonzero. codes : (lines, rows), or None to read them.
    """
    lines, rows = seen.shape
    filled = seen.sum(axis=0, dtype=np.int64)
    past = Past(
        np.zeros((lines, rows), np.int8),
        np.zeros(rows, np.int64),
        np.zeros(rows, np.int64),
        np.zeros(rows, np.int64),
        np.zeros(rows, np.int64),
        np.zeros(rows, np.int64),
        _logarithms(filled),
        lags,
    )
    depth = ranks.depth
    nodes = 2 << depth  # a sign and a node of the tree
    sign_sizes = (1, 17, 17, 81, 9, 17 * 9, 17 * 9, 15, rows, lines)
    rank_sizes = (nodes, *(nodes * n for n in (18, 34, rows, 17, 33, 16, 16, 18 * 17)))
    signs = fresh(sign_sizes, 1, block, 1 << 15, 1, _TRUST if len(lags) else _TRUST_ALONE)
    places = fresh(rank_sizes, max(depth, 1), block, 1 << 15)
    result = np.zeros((lines, rows), np.uint8)
    crowds = _logarithms(seen.sum(axis=1, dtype=np.int64))
    tables = [np.concatenate([ranks.negative, np.zeros((1 << depth) - len(ranks.negative), np.uint8)])]
    tables.append(np.concatenate([ranks.positive, np.zeros((1 << depth) - len(ranks.positive), np.uint8)]))
    to_code = np.stack(tables)
    for line in range(lines):
        here = np.flatnonzero(seen[line])
        for first in range(0, len(here), block):
            at = here[first : first + block]
            size = len(at)
            targets = None if codes is None else ranks.of_code[codes[line, at]]
            _ahead_sign(signs, past, line, at)
            predict(signs, size)
            positive = coder.code(signs.found[:size], None if targets is None else (targets > 0).astype(np.int64))
            learn(signs, positive, size, _SPEED)
            node = np.ones(size, np.int64)
            for level in range(depth):
                _ahead_rank(places, past, seen, line, at, positive, node, level, depth, int(crowds[line]))
                predict(places, size)
                wanted = None if targets is None else (np.abs(targets) - 1) >> (depth - 1 - level) & 1
                bits = coder.code(places.found[:size], wanted)
                learn(places, bits, size, _SPEED // 3)
                node = 2 * node + bits
            found = to_code[positive, node - (1 << depth)]
            if not found.all():
                raise CodingError("the coded stream holds a value that the codebook does not have")
            result[line, at] = found
            _remember(past, line, at, ranks.levels[found])
    return result, float(signs.spent.sum() + places.spent.sum())


def _logarithms(counts: Int) -> Int:
    """Counts on a scale of 0 … 15: twice the logarithm."""
    bits = np.array([int(count).bit_length() for count in counts], np.int64)
    second = np.where(bits > 1, counts >> np.maximum(bits - 2, 0) & 1, 0)
    return np.minimum(2 * bits - (bits > 0) + second, 15)


@njit(cache=True)
def _ahead_sign(mix: Mix, past: Past, line: int, at: Int) -> None:
    for n in range(len(at)):
        row = at[n]
        signs, pull, pattern, power = 0, 0, 0, 1
        for k in range(len(past.lags)):
            level = 0
            if line >= past.lags[k]:
                level = past.levels[line - past.lags[k], row]
            sign = (level > 0) - (level < 0)
            signs += sign
            pull += level * (2 if k < 2 else 1)
            if k < 4:
                pattern += (sign + 1) * power
                power *= 3
        pull = min(max(pull >> 3, -8), 8) + 8
        latest = past.signs[row]
        contexts = mix.contexts[n]
        contexts[0] = 0
        contexts[1] = signs + 8
        contexts[2] = pull
        contexts[3] = pattern
        contexts[4] = latest
        contexts[5] = (signs + 8) * 9 + latest
        contexts[6] = pull * 9 + latest
        contexts[7] = min(max(past.balance[row], -7), 7) + 7
        contexts[8] = row
        contexts[9] = line
        mix.chosen[n, 0] = 0


@njit(cache=True)
def _ahead_rank(
    mix: Mix,
    past: Past,
    seen: NDArray[np.uint8],
    line: int,
    at: Int,
    positive: Int,
    node: Int,
    level: int,
    depth: int,
    crowd: int,
) -> None:
    nodes = 2 << depth
    for n in range(len(at)):
        row = at[n]
        here = positive[n] * (1 << depth) + node[n]
        total, known, around = 0, 0, 0
        for k in range(len(past.lags)):
            lag = past.lags[k]
            if line >= lag and past.levels[line - lag, row]:
                total += abs(past.levels[line - lag, row])
                known += 1
            if line + lag < seen.shape[0] and seen[line + lag, row]:
                around += 1
        around += known
        average = total // known + 1 if known else 0
        mean = 2 * past.weight[row] // past.counted[row] + 1 if past.counted[row] else 0
        contexts = mix.contexts[n]
        contexts[0] = here
        contexts[1] = average * nodes + here
        contexts[2] = mean * nodes + here
        contexts[3] = row * nodes + here
        contexts[4] = around * nodes + here
        contexts[5] = (past.latest[row] + 16) * nodes + here
        contexts[6] = crowd * nodes + here
        contexts[7] = past.crowd[row] * nodes + here
        contexts[8] = (average * 17 + around) * nodes + here
        mix.chosen[n, 0] = level


@njit(cache=True)
def _remember(past: Past, line: int, at: Int, levels: Int) -> None:
    for n in range(len(at)):
        row, level = at[n], levels[n]
        sign = 1 if level > 0 else -1
        past.levels[line, row] = level
        past.balance[row] += sign
        past.signs[row] = past.signs[row] % 3 * 3 + sign + 1
        past.weight[row] += abs(level)
        past.counted[row] += 1
        past.latest[row] = level
