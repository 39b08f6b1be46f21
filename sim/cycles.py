"""Exact cycle model: the time of every event of a run, as a recurrence over columns and PEs.

Nothing here steps through cycles. For each broadcast column the model computes when it fires and, for each
PE, when its entries are selected, from the column before; docs/architecture.md derives the equations
from the pipeline. The results equal the RTL's layer records in every field.

Names: ``F`` fire of a column (it leaves the scan), ``P`` a job leaves the activation queue, ``L`` selection
of the last entry of a job, all in cycles since the run began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hw.params import LANES, ROUND_TRIP, Params

__all__ = ["LayerColumns", "LayerTimes", "run"]

Int = NDArray[np.int64]

# Distances between stages, in cycles; each is stated (and tested) by the hardware block it belongs to.
FIRST_ACCEPT = 1  # start → accept of the first layer, on the record's clock
SCAN_REQUEST = 1  # accept → first octet requested
FIRE_TO_QUEUE = 4  # fire → written into the queues
QUEUE_TO_SELECT = 3  # written into an idle PE's queue → first entry selected
SELECT_TO_DONE = 4  # last entry selected → the PE shows that it is done
DROP_TO_DONE = 5  # fire of a column that is empty in all PEs → the PEs show that they are done
SCANNED_TO_FINISHED = 2  # last octet used up → the layer may be found finished
FINISHED_TO_DRAIN = 3  # finished → first accumulator read
READ_TO_WRITE = 5  # accumulator read → its octet written


@dataclass(frozen=True)
class LayerColumns:
    """What the model needs to know of a layer.

    counts : (columns, pes) entries of each column in each PE, padding entries included.
    starts : (columns, pes) entry address of the first of them (only its position in a word matters).
    padding : (columns, pes) padding entries among them.
    slots : accumulators of each PE to write back.
    chained : the input is the previous layer's output.
    """

    counts: NDArray[np.uint16]
    starts: Int
    padding: NDArray[np.uint16]
    slots: int
    chained: bool


@dataclass(frozen=True)
class LayerTimes:
    """One layer record: three times in cycles since the run began, and the counters except `saturated`."""

    accepted: int
    finished: int
    written: int
    entries: int
    padding: int
    starved: int
    blocked: int
    skipped: int


@njit(cache=True)
def _room(time: int, threshold: int, pushed: Int, pops: Int, recent: Int, recent_nonempty: NDArray[np.bool_]) -> int:
    """Earliest cycle from `time` on in which every queue shows room.

    At cycle t a queue shows room if jobs written by t - 2 less jobs taken by t - 2 are at most `threshold`.
    Jobs still on their way make the condition move with t, so it is iterated to its fixed point.
    """
    pes, ring = pops.shape
    moved = True
    while moved:
        moved = False
        for pe in range(pes):
            level = pushed[pe]
            for n in range(recent.shape[0]):
                if recent[n] > time - ROUND_TRIP - 1 and recent_nonempty[n, pe]:
                    level -= 1
            if level > threshold:
                free = pops[pe, (level - threshold - 1) % ring] + 2
                if free > time:
                    time = free
                    moved = True
    return time


@njit(cache=True)
def _scan_layer(
    accepted: int,
    octets: int,
    active: Int,
    counts: NDArray[np.uint16],
    starts: Int,
    gates: Int,
    octets_a_line: int,
    threshold: int,
    last: Int,
    last_word: Int,
    pushed: Int,
    pops: Int,
    ends: Int,
    sizes: Int,
    recent: Int,
    recent_nonempty: NDArray[np.bool_],
) -> tuple[int, int, int]:
    """Fire the active columns of one layer; returns (last octet used up, last fire or -1, cycles blocked).

    `last`, `last_word` (entries of the last word of the last job), `pushed`, `pops`, `ends`, `sizes`, `recent`
    and `recent_nonempty` are the state of the array and are updated in place.
    """
    pes, ring = pops.shape
    blocked, fired, position = 0, -1, 0
    request, used = accepted + SCAN_REQUEST, accepted
    for octet in range(octets):
        if gates.shape[0] > 0:
            gate = gates[octet // octets_a_line]
            if gate > request:
                request = gate
        loaded = max(request + 1, used)
        request, used = loaded, loaded + 1
        ready = loaded + 1
        while position < active.shape[0] and active[position] // LANES == octet:
            column = active[position]
            # Usually there is room even if all columns on their way were already in the queues.
            fire = ready
            for pe in range(pes):
                if pushed[pe] > threshold and pops[pe, (pushed[pe] - threshold - 1) % ring] + 2 > fire:
                    fire = _room(ready, threshold, pushed, pops, recent, recent_nonempty)
                    break
            blocked += fire - ready
            slot = recent.shape[0] - 1
            for n in range(slot):
                recent[n] = recent[n + 1]
                recent_nonempty[n] = recent_nonempty[n + 1]
            recent[slot] = fire
            for pe in range(pes):
                count = np.int64(counts[column, pe])
                recent_nonempty[slot, pe] = count > 0
                if count > 0:
                    written = fire + FIRE_TO_QUEUE
                    pops[pe, pushed[pe] % ring] = max(written + 1, last[pe] - last_word[pe])
                    last[pe] = max(written + QUEUE_TO_SELECT, last[pe] + 1) + count - 1
                    ends[pe, pushed[pe] % ring], sizes[pe, pushed[pe] % ring] = last[pe], count
                    pushed[pe] += 1
                    lane = starts[column, pe] % LANES
                    last_word[pe] = count if lane + count <= LANES else (lane + count - 1) % LANES + 1
            fired, used, ready = fire, fire, fire + 1
            position += 1
    return used, fired, blocked


@njit(cache=True)
def _selected_after(time: int, pops: Int, pushed: Int, ends: Int, sizes: Int) -> int:
    """Entries of all PEs that are selected later than `time`; jobs are contiguous runs ending at `ends`."""
    pes, ring = pops.shape
    after = 0
    for pe in range(pes):
        job = pushed[pe] - 1
        while job >= 0 and job > pushed[pe] - 1 - ring:
            end = ends[pe, job % ring]
            if end <= time:
                break
            after += min(sizes[pe, job % ring], end - time)
            job -= 1
    return after


def run(params: Params, layers: Sequence[LayerColumns], active: Sequence[Sequence[Int]]) -> list[list[LayerTimes]]:
    """Times of every layer of every vector of a batch that runs back to back.

    Parameters
    ----------
    params : the array.
    layers : the layers of the network.
    active : for each vector and layer, the columns with a nonzero activation, ascending.

    Returns
    -------
    For each vector, the record of each layer.
    """
    pes = params.pes
    ring = params.queue_depth + 2 * ROUND_TRIP + 2  # jobs that can be between fire and selection
    last = np.full(pes, -1, np.int64)
    last_word, pushed = np.zeros(pes, np.int64), np.zeros(pes, np.int64)
    pops, ends, sizes = (np.zeros((pes, ring), np.int64) for _ in range(3))
    recent = np.full(ROUND_TRIP + 1, -(1 << 40), np.int64)
    recent_nonempty = np.zeros((ROUND_TRIP + 1, pes), np.bool_)

    records: list[list[LayerTimes]] = []
    accepted, carried = FIRST_ACCEPT, 0
    written_before = written = -1  # last octet of the layer before the present one, and of the present one
    lines_before = np.zeros(0, np.int64)
    order = [(vector, n) for vector in range(len(active)) for n in range(len(layers))]
    for step, (vector, n) in enumerate(order):
        layer, columns = layers[n], active[vector][n]
        gates = lines_before if layer.chained else np.zeros(0, np.int64)
        used, fired, blocked = _scan_layer(
            accepted, len(layer.counts) // LANES, columns, layer.counts, layer.starts, gates, params.groups,
            params.queue_depth - ROUND_TRIP - 1, last, last_word, pushed, pops, ends, sizes, recent, recent_nonempty,
        )  # fmt: skip
        entries = int(layer.counts[columns].sum(dtype=np.int64))
        finished = max(used + SCANNED_TO_FINISHED, fired + DROP_TO_DONE if fired >= 0 else 0)
        if entries:  # only the PEs that had work: the others may still be at the layer before
            mine = layer.counts[columns].any(axis=0)
            finished = max(finished, int(last[mine].max()) + SELECT_TO_DONE)

        # Write-back: slot by slot, one accumulator of each group a cycle.
        written_before, first_read = written, max(finished + FINISHED_TO_DRAIN, written + 2)
        reads = layer.slots * params.group
        lines = -(-reads // LANES)
        lines_before = first_read + np.minimum(np.arange(lines) * LANES + LANES - 1, reads - 1) + READ_TO_WRITE + 1
        written = first_read + reads - 1 + READ_TO_WRITE

        # The next layer starts when this one is scanned and the other bank is free.
        end = finished if step == len(order) - 1 else max(used + 1, written_before + 1)
        after = int(_selected_after(end, pops, pushed, ends, sizes))
        starved = pes * (end - accepted) - (entries + carried - after)
        record = LayerTimes(
            accepted, finished, written + 1, entries, int(layer.padding[columns].sum(dtype=np.int64)), starved, blocked,
            len(layer.counts) - len(columns),
        )  # fmt: skip
        if n == 0:
            records.append([])
        records[-1].append(record)
        accepted, carried = end, after
    return records
