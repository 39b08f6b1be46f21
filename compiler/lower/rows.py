"""Rows to PEs: interleaved as in the published array, or balanced, with some rows split over neighbouring PEs."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from compiler.options import Options
from hw.params import LANES, Params

__all__ = ["RowAssignment", "assign_rows"]

Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RowAssignment:
    """Where the rows of one block stand.

    Attributes
    ----------
    slots : accumulators that every PE uses, of which the last `fragment_slots` hold fragments.
    split : PEs that share a split row, a power of two; 1 if there are no fragments.
    slot, pe : (rows,), the accumulator of each row; of a split row the first of its PEs.
    fragments : split row → (nonzeros,), for each of its nonzeros in the order of columns, how many PEs
        behind the first one it goes.
    """

    slots: int
    fragment_slots: int
    split: int
    slot: Int
    pe: Int
    fragments: dict[int, NDArray[np.uint8]]

    def positions(self, params: Params) -> NDArray[np.int32]:
        """Row at each position of the result in activation memory, -1 for an unused position."""
        whole = self.slots - self.fragment_slots
        group, member = self.pe // params.group, self.pe % params.group
        output = self.slot * params.group + member
        split = self.slot >= whole
        behind = (self.slot - whole) * (params.group // self.split) + member // self.split
        output[split] = whole * params.group + behind[split]
        order = np.full(params.positions(params.outputs(self.slots, self.fragment_slots, self.split)), -1, np.int32)
        order[output // LANES * params.line + group * LANES + output % LANES] = np.arange(len(self.slot))
        return order


def assign_rows(nonzeros: Int, params: Params, options: Options) -> RowAssignment:
    """Assign the rows of one block to PEs and accumulators.

    Interleaved, row n goes to PE n mod pes. Balanced, rows go by falling nonzeros to the PE with the least work
    that has a slot left (LPT; Graham, SIAM J. Appl. Math. 1969). Some of the heaviest rows may be split: each goes
    to the run of neighbouring PEs with the least work, and its nonzeros are shared out over the columns such that the
    PEs of the run end with equal work. How many rows are split over how many PEs is what makes the busiest PE's
    work and the slots to write back least.

    Parameters
    ----------
    nonzeros : (rows,), entries of each row.
    params : the array; there must be slots for all rows.
    options : whether rows are balanced.
    """
    rows = len(nonzeros)
    number = np.arange(rows)
    if not options.balanced:
        return RowAssignment(-(-rows // params.pes), 0, 1, number // params.pes, number % params.pes, {})
    falling = np.argsort(-nonzeros, kind="stable")
    best: tuple[int, RowAssignment] | None = None
    for split_rows, split in _options(rows, params):
        assignment, busiest = _balance(nonzeros, falling, split_rows, split, params)
        # Half of the columns are active in a typical layer; write-back takes a cycle an accumulator and group.
        cost = busiest // 2 + assignment.slots * params.group
        if best is None or cost < best[0]:
            best = cost, assignment
    assert best is not None
    return best[1]


def _options(rows: int, params: Params) -> list[tuple[int, int]]:
    """(rows to split, over how many PEs): none, those that do not fill a slot of all PEs, or a slot more."""
    options = [(0, 1)]
    left = rows % params.pes
    for split_rows in (left, left + params.pes):
        if not 0 < split_rows <= rows:
            continue
        split = 2
        while split <= params.max_split:
            slots = rows // params.pes - split_rows // params.pes + -(-split_rows * split // params.pes)
            if slots <= params.rows:
                options.append((split_rows, split))
            split *= 2
    return options


def _balance(nonzeros: Int, falling: Int, split_rows: int, split: int, params: Params) -> tuple[RowAssignment, int]:
    """An assignment, and the entries of its busiest PE."""
    pes = params.pes
    heavy, others = falling[:split_rows], falling[split_rows:]
    whole = -(-len(others) // pes)
    fragment_slots = -(-split_rows * split // pes)
    pe, slot = np.zeros(len(nonzeros), np.int64), np.zeros(len(nonzeros), np.int64)
    work = np.zeros(pes, np.int64)
    pe[others] = _least_first(nonzeros[others], work, whole)
    np.add.at(work, pe[others], nonzeros[others])
    _number(np.sort(others), pe, slot, 0)
    fragments = {}
    if split_rows:
        runs = work.reshape(-1, split)
        run_of = _least_first(nonzeros[heavy], runs.sum(axis=1), fragment_slots)
        pe[heavy] = run_of * split
        _number(np.sort(heavy), pe, slot, whole)
        for run, so_far in enumerate(runs):
            mine = np.sort(heavy[run_of == run])
            ends = np.cumsum(nonzeros[mine])
            offsets, loads = _interleave(so_far, int(ends[-1]) if len(ends) else 0)
            so_far += loads
            fragments.update({
                int(row): offsets[begin:end]
                for row, (begin, end) in zip(mine, pairwise([0, *ends.tolist()]), strict=True)
            })  # fmt: skip
    return RowAssignment(whole + fragment_slots, fragment_slots, split, slot, pe, fragments), int(work.max())


def _least_first(weights: Int, work: Int, capacity: int) -> Int:
    """Bin of each item: one after the other, into the bin with the least work that has room (ties: the lowest)."""
    heap = [(load, number) for number, load in enumerate(work.tolist())]
    heapq.heapify(heap)
    room = [capacity] * len(heap)
    bins = []
    for weight in weights.tolist():
        load, number = heapq.heappop(heap)
        bins.append(number)
        room[number] -= 1
        if room[number]:
            heapq.heappush(heap, (load + weight, number))
    return np.array(bins, np.int64)


def _number(rows: Int, pe: Int, slot: Int, first: int) -> None:
    """Slots of `rows` (ascending) from `first` on, PE by PE, so that neighbours share activation lines."""
    by_pe = rows[np.argsort(pe[rows], kind="stable")]
    begins = np.searchsorted(pe[by_pe], pe[by_pe])
    slot[by_pe] = first + np.arange(len(by_pe)) - begins


def _interleave(work: Int, count: int) -> tuple[NDArray[np.uint8], Int]:
    """Share out `count` entries over PEs with `work` each: (PE of every entry in turn, entries of each PE).

    The PEs end as equal as can be, and each gets its share evenly over the sequence.
    """
    ascending = np.argsort(work, kind="stable")
    sorted_work = work[ascending]
    # Fill up to a common level: the PEs below it, taken from the least busy on.
    missing = np.arange(len(work)) * sorted_work - np.concatenate([[0], np.cumsum(sorted_work)[:-1]])
    below = int((missing <= count).sum())
    level, left = divmod(count + int(sorted_work[:below].sum()), below)
    loads = np.zeros(len(work), np.int64)
    loads[ascending[:below]] = level + (np.arange(below) < left) - sorted_work[:below]
    # The j-th of n entries belongs (j + 1/2) / n into the sequence.
    keys = np.concatenate([((2 * np.arange(n) + 1) << 30) // max(1, n) for n in loads.tolist()])
    owners = np.repeat(np.arange(len(work), dtype=np.uint8), loads)
    return owners[np.argsort(keys, kind="stable")], loads
