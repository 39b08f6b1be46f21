"""The compiled part of the context coder: predicting and learning bits, and the contexts of positions and values.

All of it stands in this one file: numba's cache would not notice a change in another. Integers only, but for the
information spent, which is for reports.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from compiler.coding.grid import Grid, Past
from compiler.coding.mixing import RATES, SPENT, SQUASH, STRETCH, Mix

__all__ = [
    "RANK_SPEED", "VALUE_SPEED", "all_positions", "all_values", "enter_values", "learn", "next_positions", "predict",
    "rank_contexts", "sign_contexts",
]  # fmt: skip

Int = NDArray[np.int64]

POSITION_SPEED = 6  # of the weights
VALUE_SPEED = 48
RANK_SPEED = 16


@njit(cache=True)
def _judge(mix: Mix, n: int) -> int:
    """Fill in `odds` and `opinions` for bit n of the block; the probability of a 1, of ONE."""
    predictors = len(mix.starts)
    mixers = mix.chosen.shape[1]
    for k in range(predictors):
        mix.odds[k] = STRETCH[mix.tables[mix.starts[k] + mix.contexts[n, k]] >> 6]
    together = 0
    for m in range(mixers):
        chosen = mix.chosen[n, m]
        total = mix.weights[chosen, predictors] * 256
        for k in range(predictors):
            total += mix.weights[chosen, k] * mix.odds[k]
        place = min(max((total + 32768) >> 16, -2900), 2900)
        together += place
        mix.opinions[m] = SQUASH[place + 2900]
    found: int = SQUASH[together // mixers + 2900]
    return found


@njit(cache=True)
def predict(mix: Mix, count: int) -> None:
    """Fill in `found` of the first `count` bits; their `contexts` and `chosen` are known."""
    for n in range(count):
        mix.found[n] = _judge(mix, n)


@njit(cache=True)
def learn(mix: Mix, bits: Int, count: int, speed: int) -> None:
    """Move probabilities and weights towards what the bits of the block were, one bit after the other."""
    predictors = len(mix.starts)
    for n in range(count):
        mix.spent[0] += SPENT[mix.found[n] if bits[n] else 65536 - mix.found[n]]
        _judge(mix, n)
        for m in range(mix.chosen.shape[1]):
            chosen = mix.chosen[n, m]
            error = (bits[n] * 65536 - mix.opinions[m]) * speed
            for k in range(predictors):
                mix.weights[chosen, k] += (mix.odds[k] * error + (1 << 19)) >> 20
            mix.weights[chosen, predictors] += (256 * error + (1 << 19)) >> 20
        for k in range(predictors):
            at = mix.starts[k] + mix.contexts[n, k]
            seen = mix.counts[at]
            mix.tables[at] += ((bits[n] * 4194303 - mix.tables[at]) * RATES[seen]) >> 16
            if seen < 1023:
                mix.counts[at] = seen + 1


@njit(cache=True)
def next_positions(mix: Mix, grid: Grid, line: int, first: int, size: int, at: int, begin: int, bits: Int) -> None:
    """Predict `size` live rows of `line`, from number `first` on, into `mix.found`.

    Before that, `bits`, which belong to the live rows of line `at` from `begin` on, are learned. One call does both
    because calls are what a decoder spends its time on.
    """
    if len(bits):
        learn(mix, bits, len(bits), POSITION_SPEED)
        _enter_positions(grid, at, begin, bits)
    if size:
        _position_contexts(mix, grid, line, first, size)
        predict(mix, size)


@njit(cache=True)
def all_positions(mix: Mix, grid: Grid, lines: Int, block: int, matrix: NDArray[np.uint8]) -> tuple[Int, Int]:
    """The same for a whole matrix that is known: probabilities and bits, in the order of coding."""
    found = np.empty(len(lines) * len(grid.live), np.int64)
    bits = np.empty(len(lines) * len(grid.live), np.int64)
    done = 0
    for line in lines:
        for first in range(0, len(grid.live), block):
            size = min(block, len(grid.live) - first)
            for n in range(size):
                bits[done + n] = matrix[line, grid.live[first + n]]
            _position_contexts(mix, grid, line, first, size)
            predict(mix, size)
            found[done : done + size] = mix.found[:size]
            here = bits[done : done + size]
            learn(mix, here, size, POSITION_SPEED)
            _enter_positions(grid, line, first, here)
            done += size
    return found, bits


@njit(cache=True)
def _place(part: int, whole: int, expected: int) -> int:
    """Log odds of ``(part + 0.4) / (whole + 0.4 / expected)`` in 41 steps; `expected` is of ONE."""
    share = (10 * part + 4) * 65536 // (10 * whole + 262144 // expected)
    place: int = 20 + ((STRETCH[min(share, 65535)] * 5 + 256) >> 9)
    return min(max(place, 0), 40)


@njit(cache=True)
def _position_contexts(mix: Mix, grid: Grid, line: int, first: int, size: int) -> None:
    """Contexts of `size` live rows of a line, from `first` on."""
    rows = grid.seen.shape[1]
    lags = len(grid.lags)
    around, near = 0, 0
    for k in range(min(lags, 4)):
        if line >= grid.lags[k]:
            around += grid.totals[line - grid.lags[k]]
            near += 1
    beside = _place(around, near * rows, grid.expected)
    so_far = _place(grid.totals[line], grid.live[first], grid.expected)
    for n in range(size):
        row = grid.live[first + n]
        pattern, neighbours = 0, 0
        for k in range(lags):
            if line >= grid.lags[k] and grid.seen[line - grid.lags[k], row]:
                neighbours += 1
                if k < 6:
                    pattern |= 1 << k
        fullness = _place(grid.filled[row], line, grid.expected)
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
def _enter_positions(grid: Grid, line: int, first: int, bits: Int) -> None:
    """Enter bits into the grid."""
    for n in range(len(bits)):
        if bits[n]:
            row = grid.live[first + n]
            grid.seen[line, row] = 1
            grid.totals[line] += 1
            grid.filled[row] += 1
            grid.last[row] = line


@njit(cache=True)
def sign_contexts(mix: Mix, past: Past, line: int, at: Int) -> None:
    """Contexts of the signs of the nonzeros in rows `at` of a line."""
    for n in range(len(at)):
        row = at[n]
        signs, pull, pattern, power = 0, 0, 0, 1
        for k in range(len(past.lags)):
            level = 0
            if line >= past.lags[k]:
                level = int(past.levels[line - past.lags[k], row])
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
        mix.chosen[n, 1] = 3 + min(max(signs, -2), 2)


@njit(cache=True)
def rank_contexts(
    mix: Mix,
    past: Past,
    line: int,
    at: Int,
    positive: Int,
    node: Int,
    level: int,
    depth: int,
) -> None:
    """Contexts of bit `level` (of `depth`) of the ranks in rows `at`, their signs and higher bits (`node`) known."""
    nodes = 2 << depth
    for n in range(len(at)):
        row = at[n]
        here = positive[n] * (1 << depth) + node[n]
        total, known, around = 0, 0, 0
        for k in range(len(past.lags)):
            lag = past.lags[k]
            if line >= lag and past.levels[line - lag, row]:
                total += abs(int(past.levels[line - lag, row]))
                known += 1
            if line + lag < past.seen.shape[0] and past.seen[line + lag, row]:
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
        contexts[6] = past.crowds[line] * nodes + here
        contexts[7] = past.crowd[row] * nodes + here
        contexts[8] = (average * 17 + around) * nodes + here
        mix.chosen[n, 0] = level
        mix.chosen[n, 1] = depth + min(known, 3)


@njit(cache=True)
def enter_values(past: Past, line: int, at: Int, levels: Int) -> None:
    """Enter the levels of the nonzeros in rows `at` of a line."""
    for n in range(len(at)):
        row, level = at[n], levels[n]
        sign = 1 if level > 0 else -1
        past.levels[line, row] = level
        past.balance[row] += sign
        past.signs[row] = past.signs[row] % 3 * 3 + sign + 1
        past.weight[row] += abs(level)
        past.counted[row] += 1
        past.latest[row] = level


@njit(cache=True)
def all_values(
    signs: Mix, places: Mix, past: Past, of_code: Int, levels: Int, depth: int, block: int, codes: NDArray[np.uint8]
) -> tuple[Int, Int]:
    """Probabilities and bits of a whole matrix whose codes (lines, rows) are known, in the order of coding."""
    lines, rows = codes.shape
    count = 0
    for line in range(lines):
        for row in range(rows):
            count += int(past.seen[line, row])
    found, bits = np.empty(count * (1 + depth), np.int64), np.empty(count * (1 + depth), np.int64)
    here, at = np.empty(rows, np.int64), np.empty(block, np.int64)
    positive, node, level_of = np.empty(block, np.int64), np.empty(block, np.int64), np.empty(block, np.int64)
    done = 0
    for line in range(lines):
        filled = 0
        for row in range(rows):
            if past.seen[line, row]:
                here[filled] = row
                filled += 1
        for first in range(0, filled, block):
            size = min(block, filled - first)
            for n in range(size):
                at[n] = here[first + n]
                rank = of_code[codes[line, at[n]]]
                positive[n] = rank > 0
                level_of[n] = levels[codes[line, at[n]]]
                node[n] = 1
            sign_contexts(signs, past, line, at[:size])
            predict(signs, size)
            found[done : done + size] = signs.found[:size]
            bits[done : done + size] = positive[:size]
            learn(signs, positive, size, VALUE_SPEED)
            done += size
            for level in range(depth):
                rank_contexts(places, past, line, at[:size], positive, node, level, depth)
                predict(places, size)
                found[done : done + size] = places.found[:size]
                for n in range(size):
                    rank = of_code[codes[line, at[n]]]
                    bit = ((rank if rank > 0 else -rank) - 1) >> (depth - 1 - level) & 1
                    bits[done + n] = bit
                    node[n] = 2 * node[n] + bit
                learn(places, bits[done : done + size], size, RANK_SPEED)
                done += size
            enter_values(past, line, at[:size], level_of[:size])
    return found, bits
