"""Exact cycle model: the time of every event of a run, as a recurrence over columns and PEs.

Nothing here steps through cycles. For each broadcast column the model computes when it fires and, for each
PE, when its entries are selected, from the column before; docs/architecture.md derives the equations
from the pipeline. The results equal the RTL's layer records in every field.

Names: ``F`` fire of a column (it leaves the scan), ``P`` a job leaves the activation queue, ``L`` selection
of the last entry of a job, all in cycles since the run began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compiler.jit import njit
from hw.params import LANES, ROUND_TRIP, Params

__all__ = ["BlockTimes", "Work", "run"]

Int = NDArray[np.int64]

# Distances between stages, in cycles; each is stated (and tested) by the hardware block it belongs to.
FIRST_ACCEPT = 1  # start → accept of the first layer, on the record's clock
SCAN_REQUEST = 1  # accept → first activation vector requested
FIRE_TO_QUEUE = 4  # fire → written into the queues
QUEUE_TO_SELECT = 3  # written into an idle PE's queue → first entry selected
SELECT_TO_DONE = 4  # last entry selected → the PE shows that it is done
DROP_TO_DONE = 5  # fire of a column that is empty in all PEs → the PEs show that they are done
SCANNED_TO_FINISHED = 2  # last activation vector used up → the layer may be found finished
FINISHED_TO_FREE = 2  # a tile would be found finished → its buffer shows free
FINISHED_TO_DRAIN = 3  # finished → first accumulator read
READ_TO_WRITE = 5  # accumulator read → its activation vector written


@dataclass(frozen=True)
class Work:
    """What the model needs to know of one descriptor.

    counts : (columns, pes) entries of each column in each PE, padding entries included.
    starts : (columns, pes) place of the first of them in its weight word.
    entries, padding : (columns,) entries of each column in all PEs, and the padding entries among them.
    activation vectors, fold : activation vectors to scan, and whether two activations make a column.
    slots, fragment_slots, split : accumulators of each PE to write back; the last few of them hold rows that are split.
    chained : the input is the previous layer's output.
    first_line : line of that output at which the columns begin.
    keep : the next descriptor goes on with the sums.
    buffer, packets : of a tile, its buffer and the words of each packet that brings it.
    """

    counts: NDArray[np.uint16]
    starts: NDArray[np.uint8]
    entries: Int
    padding: Int
    act_vectors: int
    fold: bool
    slots: int
    fragment_slots: int
    split: int
    chained: bool
    first_line: int = 0
    keep: bool = False
    buffer: int = 0
    packets: Sequence[int] = ()

    @property
    def columns(self) -> int:
        """Columns in the activation vectors, those of the last activation vector's padding included."""
        return self.act_vectors * LANES >> self.fold


@dataclass(frozen=True)
class BlockTimes:
    """The record of a block of rows: three times in cycles since the run began, and the counters except `saturated`."""

    accepted: int
    finished: int
    written: int
    entries: int
    padding: int
    starved: int
    blocked: int
    skipped: int
    refill: int


@dataclass
class _Pes:
    """State of the PEs; `pops` and `jobs` (end << 16 | entries) are rings over the jobs of each PE."""

    last: Int  # selection of the last entry so far
    release: Int  # from when on the word after the last job's may be requested
    pushed: Int  # jobs so far
    credit: Int  # when there is credit if all columns on their way are already in the queue
    pops: Int
    jobs: Int
    recent: Int = field(default_factory=lambda: np.full(ROUND_TRIP + 1, -(1 << 40), np.int64))
    nonempty: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), np.bool_))

    @classmethod
    def idle(cls, params: Params) -> _Pes:
        ring = 1 << (params.queue_depth + 2 * ROUND_TRIP + 2).bit_length()  # more than can be on their way
        last, release, pushed, credit = (np.full(params.pes, start, np.int64) for start in (-1, -1, 0, 0))
        pops, jobs = (np.full((params.pes, ring), start, np.int64) for start in (-(1 << 40), 0))
        return cls(last, release, pushed, credit, pops, jobs, nonempty=np.zeros((ROUND_TRIP + 1, params.pes), np.bool_))


@njit(cache=True)
def _credit(
    time: int,
    threshold: int,
    fullest: Int,
    pushed: Int,
    credit: Int,
    pops: Int,
    recent: Int,
    nonempty: NDArray[np.bool_],
) -> int:
    """Earliest cycle from `time` on in which every queue shows credit; only those of the PEs `fullest` may not.

    At cycle t a queue shows credit if jobs written by t - 2 less jobs taken by t - 2 are at most `threshold`.
    Jobs still on their way make the condition move with t, so it is iterated to its fixed point.
    """
    ring = pops.shape[1]
    moved = True
    while moved:
        moved = False
        for pe in fullest:
            if credit[pe] > time:
                level = pushed[pe]
                for n in range(recent.shape[0]):
                    if recent[n] > time - ROUND_TRIP - 1 and nonempty[n, pe]:
                        level -= 1
                if level > threshold:
                    free = pops[pe, (level - threshold - 1) & (ring - 1)] + 2
                    if free > time:
                        time = free
                        moved = True
    return time


@njit(cache=True)
def _scan(
    accepted: int,
    loaded: int,
    act_vectors: int,
    an_act_vector: int,
    active: Int,
    counts: NDArray[np.uint16],
    starts: NDArray[np.uint8],
    gates: Int,
    act_vectors_a_line: int,
    threshold: int,
    last: Int,
    release: Int,
    pushed: Int,
    credit: Int,
    pops: Int,
    jobs: Int,
    recent: Int,
    nonempty: NDArray[np.bool_],
) -> tuple[int, int, int]:
    """Fire the active columns of one descriptor: (last activation vector used up, last fire or -1, cycles blocked).

    `loaded` : when its weights are there. `gates` : when each line of its input is there. The arrays from `last` on are
    the state of the PEs (`_Pes`) and are updated in place.
    """
    pes, ring = pops.shape
    mask = ring - 1
    blocked, fired, position = 0, -1, 0
    request, used = max(accepted + SCAN_REQUEST, loaded), accepted
    oldest = int(np.argmin(recent))
    # PEs that have no credit for the next column if all columns on their way are already in the queues.
    fullest = np.arange(pes)
    full = pes
    for act_vector in range(act_vectors):
        if gates.shape[0] > 0:
            request = max(request, gates[act_vector // act_vectors_a_line])
        there = max(request + 1, used)
        request, used = there, there + 1
        ready = there + 1
        end = (act_vector + 1) * an_act_vector
        while position < active.shape[0] and active[position] < end:
            column = active[position]
            fire = ready
            if full:
                fire = _credit(ready, threshold, fullest[:full], pushed, credit, pops, recent, nonempty)
            blocked += fire - ready
            recent[oldest] = fire
            written = fire + FIRE_TO_QUEUE
            full = 0
            # Without branches: what an empty column writes is overwritten by the next job of the PE.
            for pe in range(pes):
                count = np.int64(counts[column, pe])
                some = count > 0
                nonempty[oldest, pe] = some
                job, before, free = pushed[pe], last[pe], release[pe]
                pops[pe, job & mask] = max(written + 1, free)
                end_of_job = max(written + QUEUE_TO_SELECT, before + 1) + count - 1
                jobs[pe, job & mask] = end_of_job << 16 | count
                last[pe] = end_of_job if some else before
                # The word behind the last is requested while the first entry of the last is selected.
                in_last = min(count, ((starts[column, pe] + count - 1) & 7) + 1)
                release[pe] = end_of_job - in_last if some else free
                job += some
                pushed[pe] = job
                limit = pops[pe, (job - 1 - threshold) & mask] + 2
                credit[pe] = limit
                fullest[full] = pe
                full += limit > fire + 1
            oldest = oldest + 1 if oldest < recent.shape[0] - 1 else 0
            fired, used, ready = fire, fire, fire + 1
            position += 1
    return used, fired, blocked


@njit(cache=True)
def _selected_after(time: int, pushed: Int, jobs: Int) -> int:
    """Entries of all PEs that are selected later than `time`; jobs are contiguous runs of entries."""
    pes, ring = jobs.shape
    after = 0
    for pe in range(pes):
        job = pushed[pe] - 1
        while job >= 0 and job > pushed[pe] - ring:
            end = jobs[pe, job & (ring - 1)] >> 16
            if end <= time:
                break
            after += min(jobs[pe, job & (ring - 1)] & 0xFFFF, end - time)
            job -= 1
    return after


class _Refill:
    """The stream of tiles, if it always has a beat to give: when each tile is there.

    A packet of n words takes n + 2 cycles. The first of a tile waits until its buffer is free.
    """

    def __init__(self) -> None:
        self._header = 0  # next cycle in which a header can be taken
        self._free = [0, 0]

    def loaded(self, work: Work) -> int:
        """When the tile's buffer shows full."""
        first, *others = work.packets
        begins = max(self._header + 1, self._free[work.buffer]) + 1
        last = begins + first - 1 + sum(words + 2 for words in others)
        self._header = last + 1
        return last + 1

    def release(self, work: Work, free: int) -> None:
        """The tile's buffer is free from this cycle on."""
        self._free[work.buffer] = free


def _line_times(params: Params, work: Work, first_read: int) -> Int:
    """When each line of the result may be read, if the first accumulator is read in `first_read`."""
    outputs = params.outputs(work.slots, work.fragment_slots, work.split)
    last = np.minimum(np.arange(-(-outputs // LANES)) * LANES + LANES - 1, outputs - 1)
    whole = (work.slots - work.fragment_slots) * params.group
    reads = np.where(last < whole, last, whole + (last - whole + 1) * work.split - 1)
    times: Int = first_read + reads + READ_TO_WRITE + 1
    return times


def run(params: Params, works: Sequence[Work], active: Sequence[Sequence[Int]]) -> list[list[BlockTimes]]:
    """Times of every block of rows of every vector of a batch that runs back to back.

    Parameters
    ----------
    params : the array.
    works : the descriptors of the network.
    active : for each vector and descriptor, the columns with a nonzero activation, ascending.

    Returns
    -------
    For each vector, the record of each block of rows: one for each descriptor without `keep`.
    """
    pes = _Pes.idle(params)
    refill = _Refill()
    threshold = params.queue_depth - ROUND_TRIP - 1
    no_gates = np.zeros(0, np.int64)

    records: list[list[BlockTimes]] = []
    accepted, carried = FIRST_ACCEPT, 0
    written_before = written = -1  # last activation vector of the block before the present one, and of the present one
    lines_before: Int = no_gates
    result: list[Int] = []  # the lines of the present layer's blocks so far
    program = [(vector, n) for vector in range(len(active)) for n in range(len(works))]
    for step, (vector, n) in enumerate(program):
        if n == 0:
            records.append([])
        work, columns = works[n], active[vector][n]
        first_tile = step == 0 or not works[program[step - 1][1]].keep
        if first_tile:
            begun, entries, padding, blocked, skipped, waited, finished = accepted, 0, 0, 0, 0, 0, 0
        loaded = refill.loaded(work) if work.packets else 0
        waited += max(0, loaded - accepted - SCAN_REQUEST)
        pushed = pes.pushed.copy()
        used, fired, stalled = _scan(
            accepted, loaded, work.act_vectors, LANES >> work.fold, columns, work.counts, work.starts,
            lines_before[work.first_line :] if work.chained else no_gates, params.groups, threshold,
            pes.last, pes.release, pes.pushed, pes.credit, pes.pops, pes.jobs, pes.recent, pes.nonempty,
        )  # fmt: skip
        worked = pes.pushed != pushed
        entries += int(work.entries[columns].sum())
        padding += int(work.padding[columns].sum())
        blocked += stalled
        skipped += work.columns - len(columns)
        done = max(used + SCANNED_TO_FINISHED, fired + DROP_TO_DONE if fired >= 0 else 0)
        if worked.any():  # only the PEs that had work: the others may still be at the layer before
            done = max(done, int(pes.last[worked].max()) + SELECT_TO_DONE)
        finished = max(finished, done)
        if work.packets:
            refill.release(work, done + FINISHED_TO_FREE)
        if work.keep:
            accepted = used + 1
            continue

        # Write-back: slot by slot, one accumulator of each group a cycle.
        written_before, first_read = written, max(finished + FINISHED_TO_DRAIN, written + 2)
        # The scan sees only the block that is being written back: lines of earlier ones show when that begins.
        result = [np.maximum(lines, first_read) for lines in result]
        result.append(_line_times(params, work, first_read))
        if n + 1 == len(works) or works[n + 1].chained:
            lines_before, result = np.concatenate(result), []
        written = first_read + work.slots * params.group - 1 + READ_TO_WRITE

        # The next layer starts when this one is scanned and the other bank is free.
        end = finished if step == len(program) - 1 else max(used + 1, written_before + 1)
        after = int(_selected_after(end, pes.pushed, pes.jobs))
        starved = params.pes * (end - begun) - (entries + carried - after)
        records[-1].append(
            BlockTimes(begun, finished, written + 1, entries, padding, starved, blocked, skipped, waited)
        )
        accepted, carried = end, after
    return records
