"""What one PE must do: random weights encoded for it, the accumulators it ends with, and when it does what."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hw.layouts import Memory, pointer_block, weight_word
from hw.params import ROUND_TRIP, Params


def encode(column, params):
    """(row, code) in rising rows to stored entries (code, index), with padding where a gap is too long."""
    limit = (1 << params.index_bits) - 1
    entries, row = [], -1
    for target, code in column:
        while target - row - 1 > limit:
            entries.append((0, limit))
            row += limit + 1
        entries.append((code, target - row - 1))
        row = target
    return entries


@dataclass
class Weights:
    """Random sparse columns, eight to a pointer block: dense for numpy, and as the PE's memories hold them."""

    params: Params
    books: np.ndarray  # (codebook, code) int16; code 0 is zero
    codes: np.ndarray  # (row, column)
    bases: list = field(default_factory=list)
    lengths: list = field(default_factory=list)
    entries: list = field(default_factory=list)

    @classmethod
    def random(cls, params, rng, blocks, *, densities=(0, 0, 0.03, 0.2, 0.6), padding=True):
        books = rng.integers(-32768, 32768, (params.codebooks, 1 << params.code_bits))
        books[:, 0] = 0
        codes = np.zeros((params.rows, 8 * blocks), np.int64)
        for column in range(8 * blocks):
            density = float(rng.choice(densities))
            rows = np.flatnonzero(rng.random(params.rows) < density)
            if not padding and len(rows):  # no gap of 2**index_bits rows
                rows = np.unique([*rows, *range(0, int(rows[-1]), 1 << params.index_bits)])
            codes[rows, column] = rng.integers(1, 1 << params.code_bits, len(rows))
        weights = cls(params, books, codes)
        for block in range(blocks):
            weights.entries += [(0, 0)] * int(rng.integers(0, 10))  # a block may start anywhere
            weights.bases.append(len(weights.entries))
            stored = []
            for column in codes[:, 8 * block : 8 * block + 8].T:
                stored.append(encode([(int(row), int(column[row])) for row in np.flatnonzero(column)], params))
                weights.entries += stored[-1]
            weights.lengths.append([len(entries) for entries in stored])
        weights.entries += [(0, 0)] * (-len(weights.entries) % 8)
        assert len(weights.entries) <= 8 * params.weight_words
        return weights

    def words(self):
        """(memory, address, word) of everything that the host writes."""
        layout = weight_word(self.params)
        for address in range(len(self.entries) // 8):
            word = [{"code": c, "index": z} for c, z in self.entries[8 * address : 8 * address + 8]]
            yield Memory.WEIGHTS, address, layout.const(word).as_value().value
        for address, (base, lengths) in enumerate(zip(self.bases, self.lengths, strict=True)):
            word = pointer_block(self.params).const({"base": base, "lengths": lengths}).as_value().value
            yield Memory.POINTERS, address, word
        for address, weight in enumerate(self.books.flat):
            yield Memory.CODEBOOK, address, int(weight) & 0xFFFF

    def columns(self, vector):
        """(start, count) of each column of a vector that has work."""
        base, lengths = self.bases[vector.block], self.lengths[vector.block]
        return [(base + sum(lengths[:n]), lengths[n]) for n in range(8) if vector.mask >> n & 1 and lengths[n]]

    def accumulate(self, tile):
        """Accumulators of a tile."""
        sums = np.zeros(self.params.rows, np.int64)
        for vector in tile.vectors:
            sent = [n for n in range(8) if vector.mask >> n & 1]
            codes = self.codes[:, [8 * vector.block + n for n in sent]]
            acts = np.array([vector.acts[n] for n in sent], np.int64)
            if tile.maximum:
                sums = np.maximum(sums, np.where(codes != 0, acts + 32768, 0).max(axis=1, initial=0))
            else:
                sums += self.books[tile.codebook][codes] @ acts
        wrap = 1 << self.params.acc_bits
        return [(int(total) + wrap // 2) % wrap - wrap // 2 for total in sums]


@dataclass
class Vector:
    """Activations for the eight columns of a block; those not in the mask are not sent."""

    block: int
    mask: int
    acts: list


@dataclass
class Tile:
    """Vectors that add to one bank, with what their tag says."""

    bank: int
    codebook: int
    buffer: int  # as in the tag: one-hot, 0 for none
    maximum: bool
    vectors: list

    @classmethod
    def random(cls, params, rng, blocks, number, *, maximum=0, vectors=25):
        bank = number & 1
        chosen = [
            Vector(int(rng.integers(0, blocks)), int(rng.integers(0, 256)),
                   [int(act) for act in rng.choice([-32768, 32767, 0, *rng.integers(-32768, 32768, 5)], 8)])
            for _ in range(vectors)
        ]  # fmt: skip
        buffer = 0 if not params.refill or number % 3 == 0 else 1 << (number >> 1 & 1)
        return cls(bank, int(rng.integers(0, params.codebooks)), buffer, bool(maximum >> bank & 1), chosen)


@dataclass
class Times:
    """When a PE does what, from the cycles in which vectors fire: the recurrences of the blocks' docstrings."""

    depth: int
    selected: list = field(default_factory=list)  # each entry
    busy: list = field(default_factory=list)  # of each vector, first and last cycle in which it counts
    written: list = field(default_factory=list)  # into the queue, each vector with work
    read: list = field(default_factory=list)  # out of the queue's memory

    @classmethod
    def of(cls, depth, fired, columns):
        """`fired`: cycle of each vector. `columns`: (start, count) of each of its columns with work."""
        times = cls(depth)
        taken = entered_last = 0
        entered, left = [], []
        selected = end = request = 0  # of the column before: first entry, behind its last, request of its last word
        for at, work in zip(fired, columns, strict=True):
            if not work:
                times.busy.append((at + 2, at + 4))
                continue
            times.written.append(at + 4)
            read = max(at + 5, times.read[-1] + 1 if times.read else 0, taken)
            times.read.append(read)
            taken = max(read + 1, entered_last)
            for n, (start, count) in enumerate(work):
                first = taken + 1 if n == 0 else 0
                cycle = max(first, entered[-1] + 1 if entered else 0, left[-2] + 1 if len(left) >= 2 else 0)
                entered.append(cycle)
                left.append(max(cycle + 1, request))
                selected = max(left[-1] + 2, end)
                times.selected += range(selected, selected + count)
                end = selected + count
                tail = count if start % 8 + count <= 8 else (start + count - 1) % 8 + 1
                request = end - 1 - tail
            entered_last = entered[-1]
            times.busy.append((at + 2, end - 1 + 3))
        return times

    def level(self, cycle):
        return sum(w < cycle for w in self.written) - sum(r < cycle for r in self.read)

    def credit(self, cycle):
        """What the credit flag shows in a cycle."""
        return self.level(cycle - 1) + ROUND_TRIP + 1 <= self.depth
