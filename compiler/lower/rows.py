"""Rows of a tile to the PEs of their write-back group: interleaved, or balanced with some rows split over PEs."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from compiler.lower.program import RATES
from compiler.options import Options
from hw.params import LANES, Params

__all__ = ["Assignment", "Parts", "assign_rows"]

Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Parts:
    """A row that is split: the PE (within the group), slot and entries of each part."""

    pe: tuple[int, ...]
    slot: tuple[int, ...]
    share: tuple[int, ...]

    def owners(self) -> NDArray[np.uint8]:
        """(entries,) part of each entry: each part has its entries evenly over the row, so that no PE waits."""
        keys = np.concatenate([((2 * np.arange(n) + 1) << 30) // max(1, n) for n in self.share])
        parts = np.repeat(np.arange(len(self.share), dtype=np.uint8), self.share)
        return parts[np.argsort(keys, kind="stable")]


@dataclass(frozen=True, eq=False)
class Assignment:
    """Where the rows of a tile stand.

    Attributes
    ----------
    pe, slot : (rows,), PE within its group and accumulator of each row; of a split row those of its first part.
    parts : split rows.
    busiest : entries of the busiest PE, or what is expected of it.
    """

    pe: Int
    slot: Int
    parts: dict[int, Parts]
    busiest: int


def assign_rows(
    entries: Int,
    group: Int,
    pixel: Int,
    output: Int,
    params: Params,
    options: Options,
    *,
    hidden: bool,
    most: int,
    channelwise: bool = False,
    expected: Int | None = None,
) -> Assignment:
    """Assign the rows of a tile to PEs and accumulators of their groups.

    Interleaved, the n-th row of a group goes to PE n mod 8. Balanced, rows go by falling entries to the PE with the
    least work (LPT; Graham, SIAM J. Appl. Math. 1969). The heaviest rows may be left out of that and poured over the
    PEs of the group one after the other, up to a common level (McNaughton, Management Science 1959), which splits fewer
    rows than there are PEs. How many rows are poured is what makes entries and write-back cost least.

    In a tile of several pixels the rows of each pixel are spread over all PEs of the group: the vectors of one pixel
    of the window have work for its neighbours only, and a PE without rows there would wait.

    Parameters
    ----------
    entries : (rows,) entries of each row.
    group : (rows,) its write-back group.
    pixel : (rows,) number of its pixel, before pooling, rising.
    output : (rows,) number of the result that it is a part of: of the rows of one result only one is split.
    hidden : write-back is hidden behind the tiles that follow.
    most : accumulators of a PE that may be used.
    channelwise : a column has rows of one lane only. The rows of a lane are then all given to one PE: a column has few
        entries, and would need padding entries for each of them in as many PEs.
    expected : (rows,) how many of the entries meet an activation that is not zero, times `RATES`; PEs then have equally
        many of these. None: the same share in each row.
    """
    work = entries if expected is None else expected
    pe, slot = np.zeros((2, len(work)), np.int64)
    parts: dict[int, Parts] = {}
    busiest = 0
    mean = -(-int(work.sum()) // params.pes)
    # Half of the activations are zero in a typical layer.
    cycles = 0.5 if expected is None else 1 / RATES
    by_group = np.argsort(group, kind="stable")
    ends = np.searchsorted(group[by_group], np.arange(params.groups + 1))
    for number in range(params.groups):
        rows = by_group[ends[number] : ends[number + 1]]
        if not len(rows):
            continue
        if not options.balanced:
            pe[rows], slot[rows] = np.arange(len(rows)) % params.group, np.arange(len(rows)) // params.group
            busiest = max(busiest, int(np.bincount(pe[rows], weights=work[rows]).max()))
            continue
        if pixel[rows[0]] != pixel[rows[-1]]:
            pe[rows] = (
                output[rows] % LANES % params.group if channelwise else _spread(work[rows], pixel[rows], params.group)
            )
            if np.bincount(pe[rows]).max() > most:
                pe[rows] = _spread(work[rows], pixel[rows], params.group, even=True)
            slot[rows], _ = _number(len(rows), pe[rows], {}, params.group)
            busiest = max(busiest, int(np.bincount(pe[rows], weights=work[rows]).max()))
            continue
        best = _balance(work, entries, rows, output, 0, params.group, options, most)
        assert best is not None
        # Only what makes a group slower than all PEs would be on average is worth another word of write-back.
        if best.busiest > mean and options.fragments > 1:
            left = len(rows) % params.group
            for poured in (left, left + params.group, 2 * params.group):
                tried = _balance(work, entries, rows, output, poured, params.group, options, most) if poured else None
                if tried is not None and tried.cost(hidden, cycles) < best.cost(hidden, cycles):
                    best = tried
        pe[rows], slot[rows] = best.pe, best.slot
        parts.update({int(rows[n]): found for n, found in best.parts.items()})
        busiest = max(busiest, best.busiest)
    return Assignment(pe, slot, parts, busiest)


def _spread(work: Int, pixel: Int, pes: int, even: bool = False) -> Int:
    """PE of each row of a group, pixel by pixel.

    The rows of a pixel go out in rounds, by falling work: in each round every PE gets one, the least busy PE the
    heaviest. Where PEs are equally busy, another one is first at each pixel. `even`: a round that is not full goes to
    the PEs with the fewest rows, so that no PE has two more than another.
    """
    of, loads, turn = np.zeros(len(work), np.int64), np.zeros(pes, np.int64), np.arange(pes)
    counts = np.zeros(pes, np.int64)
    begins = np.flatnonzero(np.diff(pixel, prepend=-1))
    for number, (begin, end) in enumerate(pairwise([*begins.tolist(), len(work)])):
        falling = begin + np.argsort(-work[begin:end], kind="stable")
        for first in range(0, len(falling), pes):
            rows = falling[first : first + pes]
            keys = ((turn + number) % pes, loads, counts) if even else ((turn + number) % pes, loads)
            least = np.lexsort(keys)[: len(rows)]
            of[rows] = least
            loads[least] += work[rows]
            counts[least] += 1
    return of


@dataclass(frozen=True, eq=False)
class _Balanced(Assignment):
    words: int

    def cost(self, hidden: bool, cycles: float) -> int:
        # Write-back takes a cycle a word.
        scan = int(self.busiest * cycles)
        return max(scan, self.words) * 8 + min(scan, self.words) if hidden else (scan + self.words) * 8


def _balance(
    work: Int, entries: Int, rows: Int, output: Int, poured: int, pes: int, options: Options, most: int
) -> _Balanced | None:  # fmt: skip
    """The rows of one group, `poured` of them poured; None if that is not possible."""
    mine = work[rows]
    falling = np.argsort(-mine, kind="stable")
    heavy: list[int] = []
    if poured:
        taken: set[int] = set()
        for n in falling.tolist():
            if int(output[rows[n]]) not in taken and entries[rows[n]] > 1:
                taken.add(int(output[rows[n]]))
                heavy.append(n)
            if len(heavy) == poured:
                break
        if not heavy:
            return None
    of = np.full(len(rows), -1)
    loads, counts = _least_first(mine, [n for n in falling.tolist() if n not in set(heavy)], of, pes, most)
    pieces: dict[int, list[tuple[int, int]]] = {}  # row → (PE, entries) of its parts
    if heavy:
        _pour([(n, int(mine[n])) for n in heavy], loads, pieces, options.fragments)
        for n in heavy:
            pieces[n] = _in_entries(pieces[n], int(entries[rows[n]]))
            of[n] = pieces[n][0][0]
            for pe, _ in pieces[n]:
                counts[pe] += 1
        if max(counts) > most:
            return None
    slot, parts = _number(len(rows), of, pieces, pes)
    return _Balanced(of, slot, parts, max(loads), len(rows) + sum(len(n.pe) - 1 for n in parts.values()))


def _least_first(work: Int, items: list[int], of: Int, pes: int, most: int) -> tuple[list[int], list[int]]:
    """Items in turn to the PE with the least work that has room, into `of`; loads and rows of each PE."""
    heap = [(0, 0, pe) for pe in range(pes)]
    loads, counts = [0] * pes, [0] * pes
    amounts = work.tolist()
    for item in items:
        load, count, pe = heapq.heappop(heap)
        of[item] = pe
        loads[pe], counts[pe] = load + amounts[item], count + 1
        if count + 1 < most:
            heapq.heappush(heap, (loads[pe], count + 1, pe))
    return loads, counts


def _pour(
    rows: list[tuple[int, int]], loads: list[int], pieces: dict[int, list[tuple[int, int]]], fragments: int
) -> None:
    """Fill PEs up to a common level with the entries of `rows`, the least busy PE first; `loads` grow."""
    total = sum(amount for _, amount in rows)
    level, below = _level(sorted(loads), total)
    # The first `below` PEs take one entry more than the level's floor.
    order = sorted(range(len(loads)), key=lambda pe: (loads[pe], pe))
    room = {pe: max(0, level - loads[pe]) for pe in order}
    for pe in [pe for pe in order if loads[pe] <= level][:below]:
        room[pe] += 1
    queue = [pe for pe in order if room[pe]]
    at = 0
    for row, amount in rows:
        found = pieces.setdefault(row, [])
        while amount:
            take = min(amount, room[queue[at]]) if len(found) < fragments - 1 and at < len(queue) - 1 else amount
            found.append((queue[at], take))
            loads[queue[at]] += take
            room[queue[at]] = max(0, room[queue[at]] - take)
            amount -= take
            if not room[queue[at]] and at < len(queue) - 1:
                at += 1


def _in_entries(pieces: list[tuple[int, int]], entries: int) -> list[tuple[int, int]]:
    """Parts of a row's work as parts of its entries; those that come to none are left out."""
    total, done, given = sum(amount for _, amount in pieces), 0, 0
    found = []
    for pe, amount in pieces:
        done += amount
        upto = (2 * done * entries + total) // (2 * total)
        if upto > given:
            found.append((pe, upto - given))
        given = upto
    return found


def _level(ascending: list[int], total: int) -> tuple[int, int]:
    """The level to which `total` entries fill up bins, and how many of these get one more."""
    filled = 0
    for count, load in enumerate(ascending, 1):
        filled += load
        following = ascending[count] if count < len(ascending) else None
        if following is None or following * count - filled >= total:
            return divmod(total + filled, count)
    raise AssertionError


def _number(rows: int, of: Int, pieces: dict[int, list[tuple[int, int]]], pes: int) -> tuple[Int, dict[int, Parts]]:
    """Slots: in each PE rows ascend, so that rows of one pixel stand together and gaps are short."""
    items = [(int(of[n]), n, 0) for n in range(rows) if n not in pieces]
    items += [(pe, n, k) for n, found in pieces.items() for k, (pe, _) in enumerate(found)]
    items.sort()
    pe = np.array([item[0] for item in items])
    within = np.arange(len(items)) - np.searchsorted(pe, pe)
    slot = np.zeros(rows, np.int64)
    slots: dict[tuple[int, int], int] = {}
    for (_, n, k), number in zip(items, within.tolist(), strict=True):
        if n in pieces:
            slots[n, k] = number
        if k == 0:
            slot[n] = number
    parts = {
        n: Parts(
            tuple(p for p, _ in found),
            tuple(slots[n, k] for k in range(len(found))),
            tuple(share for _, share in found),
        )
        for n, found in pieces.items()
        if len(found) > 1
    }
    return slot, parts
