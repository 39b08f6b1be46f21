"""The compiled part of the context coder: predicting and learning bits, and the contexts of flags, positions, values.

All of it stands in this one file: numba's cache would not notice a change in another. Integers only, but for the
information spent, which is for reports, and the chances that the range coder is given, which are exact.

The encoder, which knows all bits, runs in one compiled loop. The decoder runs as a generator: it puts the chances of
the next bits in `mix.chances`, yields how many they are, and finds them in an array when it goes on. That costs a
twentieth of a microsecond, where calling a compiled function with these arguments takes five.

Arrays are taken out of their tuples before the loops: counting references to them would take most of the time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from compiler.coding.grid import Grid, Past
from compiler.coding.mixing import INPUTS, MIXERS, RATES, SPENT, SQUASH, STRETCH, Mix
from compiler.jit import njit

__all__ = [
    "all_flags", "all_heads", "all_positions", "all_values",
    "flag_steps", "head_steps", "position_steps", "value_steps",
]  # fmt: skip

Int = NDArray[np.int64]
Bits = NDArray[np.int32]
Table = NDArray[np.uint32]

FLAG_SPEED = 16  # of the weights
POSITION_SPEED = 6
SIGN_SPEED = 48
RANK_SPEED = 16
HEAD_SPEED = 16


@njit(cache=True)
def _judge(tables: Table, starts: Int, weights: Int, contexts: Int, room: Int, n: int) -> int:
    """The probability, of ONE, that bit n of the block is 1; what led to it is left in `room`."""
    for k in range(INPUTS - 1):
        room[k] = STRETCH[tables[starts[k] + contexts[n, k]] >> 16]
    together = 0
    for m in range(MIXERS):
        chosen, total = contexts[n, INPUTS - 1 + m], 0
        for k in range(INPUTS):
            total += weights[chosen, k] * room[k]
        place = min(max((total + 32768) >> 16, -2900), 2900)
        together += place
        room[INPUTS + m] = SQUASH[place + 2900]
    found: int = SQUASH[together // MIXERS + 2900]
    return found


@njit(cache=True)
def _learn(tables: Table, starts: Int, weights: Int, contexts: Int, room: Int, n: int, bit: int, speed: int) -> None:
    """Move probabilities and weights towards what bit n was, which was judged last."""
    for m in range(MIXERS):
        chosen = contexts[n, INPUTS - 1 + m]
        error = (bit * 65536 - room[INPUTS + m]) * speed
        for k in range(INPUTS):
            weights[chosen, k] += (room[k] * error + (1 << 19)) >> 20
    for k in range(INPUTS - 1):
        at = starts[k] + contexts[n, k]
        state = int(np.int64(tables[at]))  # int() alone would stay unsigned in numba
        chance, seen = state >> 10, state & 1023
        chance += ((bit * 4194303 - chance) * int(RATES[seen])) >> 16
        tables[at] = chance << 10 | min(seen + 1, 1023)


@njit(cache=True)
def _predict(mix: Mix, count: int) -> None:
    """Fill in `found` and `chances` of the first `count` bits; their `contexts` are known."""
    tables, starts, weights, contexts, room = mix.tables, mix.starts, mix.weights, mix.contexts, mix.room
    found, chances = mix.found, mix.chances
    for n in range(count):
        found[n] = _judge(tables, starts, weights, contexts, room, n)
        chances[n] = found[n] / 65536


@njit(cache=True)
def _take(mix: Mix, bits: Bits, first: int, count: int, speed: int) -> None:
    """Learn `count` bits from number `first` on, one after the other, each judged anew; their contexts stay."""
    tables, starts, weights, contexts, room = mix.tables, mix.starts, mix.weights, mix.contexts, mix.room
    found, spent = mix.found, 0.0
    for n in range(count):
        bit = int(bits[first + n])
        spent += SPENT[found[n] if bit else 65536 - found[n]]
        _judge(tables, starts, weights, contexts, room, n)
        _learn(tables, starts, weights, contexts, room, n, bit, speed)
    mix.spent[0] += spent


@njit(cache=True)
def _flag_contexts(contexts: Int, lags: Int, hints: Int, known: Int, line: int) -> None:
    """Contexts of whether a line is empty."""
    before = 2 * known[line - 1] + known[line - 2] if line > 1 else 3
    around = 0
    for k in range(min(len(lags), 4)):
        around += known[line - lags[k]] if line >= lags[k] else 1
    contexts[0, 0], contexts[0, 1], contexts[0, 2] = before, 4 * hints[line] + before, 4 * around + before


@njit(cache=True)
def all_flags(mix: Mix, lags: Int, hints: Int, known: Int) -> tuple[Int, Bits]:
    """Probabilities and bits of the flags of all lines, (lines,), 1 for a line that holds a nonzero."""
    found, bits = np.empty(len(known), np.int64), known.astype(np.int32)
    for line in range(len(known)):
        _flag_contexts(mix.contexts, lags, hints, known, line)
        _predict(mix, 1)
        found[line] = mix.found[0]
        _take(mix, bits, line, 1, FLAG_SPEED)
    return found, bits


@njit(cache=True)
def flag_steps(mix: Mix, lags: Int, hints: Int, bits: Bits, known: Int) -> Iterator[int]:
    """The decoder's side of `all_flags`; fills in `known`."""
    for line in range(len(known)):
        _flag_contexts(mix.contexts, lags, hints, known, line)
        _predict(mix, 1)
        yield 1
        known[line] = bits[0]
        _take(mix, bits, 0, 1, FLAG_SPEED)


@njit(cache=True)
def all_positions(mix: Mix, grid: Grid, lines: Int, block: int, matrix: NDArray[np.uint8]) -> tuple[Int, Bits]:
    """Probabilities and bits of a whole matrix that is known, in the order of coding."""
    rows = grid.live
    live = len(rows)
    found, bits = np.empty(len(lines) * live, np.int64), np.empty(len(lines) * live, np.int32)
    done = 0
    for line in lines:
        _begin_line(grid, line)
        for n in range(live):
            bits[done + n] = matrix[line, rows[n]]
        for first in range(0, live, block):
            size = min(block, live - first)
            _position_contexts(mix, grid, line, first, size)
            _predict(mix, size)
            found[done : done + size] = mix.found[:size]
            _take(mix, bits, done, size, POSITION_SPEED)
            _enter_positions(grid, line, first, size, bits, done)
            done += size
    return found, bits


@njit(cache=True)
def position_steps(mix: Mix, grid: Grid, lines: Int, block: int, bits: Bits) -> Iterator[int]:
    """The decoder's side of `all_positions`: yields how many chances there are, and takes as many `bits`."""
    live = len(grid.live)
    for line in lines:
        _begin_line(grid, line)
        for first in range(0, live, block):
            size = min(block, live - first)
            _position_contexts(mix, grid, line, first, size)
            _predict(mix, size)
            yield size
            _take(mix, bits, 0, size, POSITION_SPEED)
            _enter_positions(grid, line, first, size, bits, 0)


@njit(cache=True)
def _place(part: int, whole: int, unit: int) -> int:
    """Log odds of ``(part + 0.4) / (whole + 0.4 / expected)`` in 41 steps; `unit` is 4 / expected."""
    share = (10 * part + 4) * 65536 // (10 * whole + unit)
    place: int = 20 + ((int(STRETCH[min(share, 65535)]) * 5 + 256) >> 9)
    return min(max(place, 0), 40)


@njit(cache=True)
def _begin_line(grid: Grid, line: int) -> None:
    """What the lines before say of each row of this one."""
    rows, unit = grid.seen.shape[1], 262144 // grid.expected
    pattern, neighbours, fullness, pause = grid.pattern, grid.neighbours, grid.fullness, grid.pause
    pattern[:] = 0
    neighbours[:] = 0
    around, near = 0, 0
    for k in range(len(grid.lags)):
        before = line - grid.lags[k]
        if before < 0:
            continue
        if k < 4:
            around += grid.totals[before]
            near += 1
        seen, weight = grid.seen[before], 1 << k if k < 6 else 0
        for row in range(rows):
            bit = int(seen[row])
            neighbours[row] += bit
            pattern[row] += bit * weight
    grid.beside[0] = _place(around, near * rows, unit)
    for row in grid.live:
        fullness[row] = _place(grid.filled[row], line, unit)
        since = line - grid.last[row]
        high = 0  # place of its highest bit
        while since >> high > 1:
            high += 1
        pause[row] = min(2 * high + (since >> (high - 1) & 1 if high else 0), 15)


@njit(cache=True)
def _position_contexts(mix: Mix, grid: Grid, line: int, first: int, size: int) -> None:
    """Contexts of `size` live rows of a line, from number `first` on."""
    contexts, live, pauses, hints = mix.contexts, grid.live, grid.pause, grid.row_hints
    patterns, neighbourhood, fullnesses = grid.pattern, grid.neighbours, grid.fullness
    beside, hint = grid.beside[0], grid.line_hints[line] * 16
    so_far = _place(grid.totals[line], live[first], 262144 // grid.expected) >> 1
    for n in range(size):
        row = live[first + n]
        pattern, neighbours, pause, fullness = patterns[row], neighbourhood[row], pauses[row], fullnesses[row]
        contexts[n, 0] = row
        contexts[n, 1] = (beside >> 1) * 64 + pattern
        contexts[n, 2] = pause * 64 + pattern
        contexts[n, 3] = line
        contexts[n, 4] = (so_far * 21 + (beside >> 1)) * 9 + neighbours
        contexts[n, 5] = (fullness >> 1) * 64 + pattern
        contexts[n, 6] = pause * 9 + neighbours
        contexts[n, 7] = beside * 9 + neighbours
        contexts[n, 8] = (hint + hints[row]) * 21 + so_far
        contexts[n, INPUTS - 1] = 0
        contexts[n, INPUTS] = 1 + neighbours
        contexts[n, INPUTS + 1] = 10 + fullness


@njit(cache=True)
def _enter_positions(grid: Grid, line: int, first: int, size: int, bits: Bits, at: int) -> None:
    """Enter `size` bits, from number `at` on, into the grid."""
    for n in range(size):
        if bits[at + n]:
            row = grid.live[first + n]
            grid.seen[line, row] = 1
            grid.totals[line] += 1
            grid.filled[row] += 1
            grid.last[row] = line


@njit(cache=True)
def _sign_contexts(mix: Mix, past: Past, line: int, here: Int, first: int, size: int) -> None:
    """Contexts of the signs of `size` nonzeros of a line, in rows `here`, from number `first` on."""
    contexts, lags, levels = mix.contexts, past.lags, past.levels
    for n in range(size):
        row = here[first + n]
        signs, pull, pattern, power = 0, 0, 0, 1
        for k in range(len(lags)):
            level = int(levels[line - lags[k], row]) if line >= lags[k] else 0
            sign = (level > 0) - (level < 0)
            signs += sign
            pull += level * (2 if k < 2 else 1)
            if k < 4:
                pattern += (sign + 1) * power
                power *= 3
        pull = min(max(pull >> 3, -8), 8) + 8
        latest = past.signs[row]
        contexts[n, 0] = 0
        contexts[n, 1] = signs + 8
        contexts[n, 2] = pull
        contexts[n, 3] = pattern
        contexts[n, 4] = latest
        contexts[n, 5] = (signs + 8) * 9 + latest
        contexts[n, 6] = pull * 9 + latest
        contexts[n, 7] = min(max(past.balance[row], -7), 7) + 7
        contexts[n, 8] = row
        contexts[n, 9] = line
        contexts[n, INPUTS - 1] = 0
        contexts[n, INPUTS] = 3 + min(max(signs, -2), 2)
        contexts[n, INPUTS + 1] = 0


@njit(cache=True)
def _rank_contexts(
    mix: Mix, past: Past, line: int, here: Int, first: int, size: int, node: Int, level: int, depth: int
) -> None:
    """Contexts of bit `level` (of `depth`) of the ranks; `node` (block,) is each one's sign and higher bits."""
    contexts, lags, levels, nodes = mix.contexts, past.lags, past.levels, 2 << depth
    for n in range(size):
        row, known_bits = here[first + n], node[n]
        total, known, around = 0, 0, 0
        for k in range(len(lags)):
            lag = lags[k]
            if line >= lag and levels[line - lag, row]:
                total += abs(int(levels[line - lag, row]))
                known += 1
            if line + lag < levels.shape[0] and past.seen[line + lag, row]:
                around += 1
        around += known
        average = total // known + 1 if known else 0
        mean = 2 * past.weight[row] // past.counted[row] + 1 if past.counted[row] else 0
        contexts[n, 0] = known_bits
        contexts[n, 1] = average * nodes + known_bits
        contexts[n, 2] = mean * nodes + known_bits
        contexts[n, 3] = row * nodes + known_bits
        contexts[n, 4] = around * nodes + known_bits
        contexts[n, 5] = (past.latest[row] + 16) * nodes + known_bits
        contexts[n, 6] = past.crowds[line] * nodes + known_bits
        contexts[n, 7] = past.crowd[row] * nodes + known_bits
        contexts[n, 8] = (average * 17 + around) * nodes + known_bits
        contexts[n, INPUTS - 1] = level
        contexts[n, INPUTS] = depth + min(known, 3)
        contexts[n, INPUTS + 1] = level


@njit(cache=True)
def _enter_value(past: Past, line: int, row: int, level: int) -> None:
    """Enter the level of the nonzero in a row of a line."""
    sign = 1 if level > 0 else -1
    past.levels[line, row] = level
    past.balance[row] += sign
    past.signs[row] = past.signs[row] % 3 * 3 + sign + 1
    past.weight[row] += abs(level)
    past.counted[row] += 1
    past.latest[row] = level


@njit(cache=True)
def _filled_rows(past: Past, line: int, here: Int) -> int:
    """Put the rows of a line that hold a nonzero in `here`; how many they are."""
    filled = 0
    for row in range(past.seen.shape[1]):
        if past.seen[line, row]:
            here[filled] = row
            filled += 1
    return filled


@njit(cache=True)
def all_values(
    signs: Mix, ranks: Mix, past: Past, of_code: Int, levels: Int, depth: int, block: int, codes: NDArray[np.uint8]
) -> tuple[Int, Bits]:
    """Probabilities and bits of a whole matrix whose codes (lines, rows) are known, in the order of coding."""
    lines, rows = codes.shape
    count = 0
    for line in range(lines):
        for row in range(rows):
            count += int(past.seen[line, row])
    found, bits = np.empty(count * (1 + depth), np.int64), np.empty(count * (1 + depth), np.int32)
    here, node = np.empty(rows, np.int64), np.empty(block, np.int64)
    done = 0
    for line in range(lines):
        filled = _filled_rows(past, line, here)
        for first in range(0, filled, block):
            size = min(block, filled - first)
            for n in range(size):
                bits[done + n] = of_code[codes[line, here[first + n]]] > 0
                node[n] = (int(bits[done + n]) << depth) + (depth > 0)
            _sign_contexts(signs, past, line, here, first, size)
            _predict(signs, size)
            found[done : done + size] = signs.found[:size]
            _take(signs, bits, done, size, SIGN_SPEED)
            done += size
            for level in range(depth):
                _rank_contexts(ranks, past, line, here, first, size, node, level, depth)
                _predict(ranks, size)
                found[done : done + size] = ranks.found[:size]
                for n in range(size):
                    rank = abs(of_code[codes[line, here[first + n]]]) - 1
                    bits[done + n] = rank >> (depth - 1 - level) & 1
                    node[n] = _deeper(node[n], int(bits[done + n]), depth)
                _take(ranks, bits, done, size, RANK_SPEED)
                done += size
            for n in range(size):
                _enter_value(past, line, here[first + n], levels[codes[line, here[first + n]]])
    return found, bits


@njit(cache=True)
def value_steps(
    signs: Mix, ranks: Mix, past: Past, to_code: NDArray[np.uint8], levels: Int, depth: int, block: int, bits: Bits,
    codes: NDArray[np.uint8],
) -> Iterator[int]:  # fmt: skip
    """The decoder's side of `all_values`, as `position_steps`; both mixes have the same `chances`.

    to_code : (2, 1 << depth), code of each rank, negative ones first; 0 if there is none, which ends the steps.
    codes : (lines, rows), is filled in.
    """
    lines, rows = codes.shape
    here, node = np.empty(rows, np.int64), np.empty(block, np.int64)
    for line in range(lines):
        filled = _filled_rows(past, line, here)
        for first in range(0, filled, block):
            size = min(block, filled - first)
            _sign_contexts(signs, past, line, here, first, size)
            _predict(signs, size)
            yield size
            _take(signs, bits, 0, size, SIGN_SPEED)
            for n in range(size):
                node[n] = (int(bits[n]) << depth) + (depth > 0)
            for level in range(depth):
                _rank_contexts(ranks, past, line, here, first, size, node, level, depth)
                _predict(ranks, size)
                yield size
                _take(ranks, bits, 0, size, RANK_SPEED)
                for n in range(size):
                    node[n] = _deeper(node[n], int(bits[n]), depth)
            for n in range(size):
                code = to_code[node[n] >> depth, node[n] & ((1 << depth) - 1)]
                if not code:
                    return
                codes[line, here[first + n]] = code
                _enter_value(past, line, here[first + n], levels[code])


@njit(cache=True)
def _deeper(node: int, bit: int, depth: int) -> int:
    """The node behind a bit: a sign, and `depth` bits of a 1 and the bits so far. The last bit pushes the 1 out."""
    side = node >> depth << depth
    return side + ((2 * (node - side) + bit) & ((1 << depth) - 1))


@njit(cache=True)
def _head_contexts(contexts: Int, node: int, before: int, side: int) -> None:
    """Contexts of one bit of a float's sign and exponent.

    node : 0 for the sign, else a 1 and the bits of the exponent so far. before : sign and exponent of the float
    before. side : sign of this one, once it is known.
    """
    contexts[0, 0] = node
    contexts[0, 1] = side * 256 + node
    contexts[0, 2] = (before & 255) * 256 + node
    contexts[0, 3] = (2 * side + (before >> 8)) * 256 + node


@njit(cache=True)
def all_heads(mix: Mix, heads: Int) -> tuple[Int, Bits]:
    """Probabilities and bits of floats' signs and exponents, 9 bits each."""
    found, bits = np.empty(9 * len(heads), np.int64), np.empty(9 * len(heads), np.int32)
    before = 0
    for number in range(len(heads)):
        head = heads[number]
        node, side = 0, 0
        for level in range(9):
            at = 9 * number + level
            bits[at] = head >> (8 - level) & 1
            _head_contexts(mix.contexts, node, before, side)
            _predict(mix, 1)
            found[at] = mix.found[0]
            _take(mix, bits, at, 1, HEAD_SPEED)
            if level == 0:
                node, side = 1, head >> 8
            else:
                node = 2 * node + int(bits[at])
        before = head
    return found, bits


@njit(cache=True)
def head_steps(mix: Mix, bits: Bits, heads: Int) -> Iterator[int]:
    """The decoder's side of `all_heads`; fills in `heads`."""
    before = 0
    for number in range(len(heads)):
        node, side, head = 0, 0, 0
        for level in range(9):
            _head_contexts(mix.contexts, node, before, side)
            _predict(mix, 1)
            yield 1
            bit = int(bits[0])
            _take(mix, bits, 0, 1, HEAD_SPEED)
            head = 2 * head + bit
            if level == 0:
                node, side = 1, bit
            else:
                node = 2 * node + bit
        heads[number] = head
        before = head
