"""The scan of one window in the cycle model: when each vector leaves it, and what the PEs make of it.

Names: ``A`` a vector is read, ``M`` it moves to the register before the broadcast, ``U`` it leaves that (it fires, or
is skipped), ``W`` it is written into the queue of a PE, ``R`` read out of it, ``X`` taken by the expander, ``S`` its
first entry is selected and ``L`` its last one, all in cycles since the run began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from compiler.cycles.distances import Distances
from compiler.cycles.operations import claimed
from compiler.cycles.streams import SENT, sends
from compiler.image.steps import Step
from compiler.jit import njit
from hw.params import LANES, Params

__all__ = ["Pes", "Window", "pack_columns", "scan"]

Int = NDArray[np.int64]

_COUNT_BITS = 11
_COUNT_MASK = (1 << _COUNT_BITS) - 1
_WRAP = (1 << 24) - 1
_NEVER = -(1 << 40)


class Window:
    """The window of a segment as a record of numbers; the last four say where its data lie among the layer's."""

    NAMES: ClassVar = (
        "source", "vectors", "wy", "wx", "dy", "dx", "height", "width", "y0", "x0", "step_y", "step_x", "dense",
        "chained", "buffer", "barrier", "position_pitch", "window_pitch", "ring", "reach",
        "uniform",
    )  # fmt: skip
    DTYPE: ClassVar = np.dtype([(name, np.int64) for name in (*NAMES, "block", "mask", "packets", "first_packet")])

    @classmethod
    def of(cls, step: Step) -> tuple[int, ...]:
        """The record of a step; where its data lie is for the caller to fill in."""
        return (*(getattr(step, name) for name in cls.NAMES), 0, 0, 0, 0)


# Columns of a PE's state.
_LAST, _READ, _TAKEN, _PASSED, _Q1, _Q2, _Q3 = range(7)


@dataclass
class Pes:
    """State of the PEs.

    state : (pes, 7) of the last vector L, R, X, when its last column enters the buffer of the expander, and when the
        last weight words of its last three columns are requested, the last one first.
    pushed : vectors so far. credit : when there is credit if all vectors on their way are already in the queue.
    pops, jobs : rings over the vectors of each PE, R and (L << 16 | entries); (ring, pes), since a cache does not hold
        one line of each PE if these lie a power of two apart.
    recent, nonempty : the vectors fired last, and in which PEs they have entries.
    """

    state: Int
    pushed: Int
    credit: Int
    pops: Int
    jobs: Int
    recent: Int
    nonempty: NDArray[np.bool_]

    @classmethod
    def idle(cls, params: Params, vectors: int = 0) -> Pes:
        """At the start of a run; the rings keep all of so many vectors."""
        # More than can be on their way: in the queue, before it, and behind it in expander, its buffer and weight read.
        ring = 1 << (vectors + params.queue_depth + 4 * LANES).bit_length()
        pes = params.pes
        return cls(
            np.full((pes, 7), -1, np.int64), np.zeros(pes, np.int64), np.zeros(pes, np.int64),
            np.full((ring, pes), _NEVER, np.int64), np.zeros((ring, pes), np.int64),
            np.full(params.round_trip + 1, _NEVER, np.int64), np.zeros((params.round_trip + 1, pes), np.bool_),
        )  # fmt: skip

    @property
    def arrays(self) -> tuple[Int, Int, Int, Int, Int, Int, NDArray[np.bool_]]:
        """As compiled functions take them."""
        return self.state, self.pushed, self.credit, self.pops, self.jobs, self.recent, self.nonempty


def pack_columns(counts: NDArray[np.uint16], starts: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """(blocks, pes, 8) entries of each column, and above them those in its last weight word, from (blocks, 8, pes)."""
    tails = np.minimum(counts, (starts + counts - 1 & LANES - 1) + 1).astype(np.uint16)
    return np.ascontiguousarray((counts | tails << _COUNT_BITS).transpose(0, 2, 1))


@njit(cache=True)
def _shows(
    time: int,
    pe: int,
    threshold: int,
    pushed: Int,
    pops: Int,
    recent: Int,
    nonempty: NDArray[np.bool_],
    distances: Distances,
) -> bool:
    """Whether credit of a PE is seen: vectors written by time - credit less those read by then are few enough."""
    level = pushed[pe] - threshold
    for n in range(len(recent)):
        level -= recent[n] > time - distances.credit - distances.fire_to_queue and nonempty[n, pe]
    return bool(level <= 0 or pops[(level - 1) & (pops.shape[0] - 1), pe] + distances.credit <= time)


@njit(cache=True)
def _credit(
    time: int,
    last_fire: int,
    worst: int,
    threshold: int,
    fullest: Int,
    pushed: Int,
    credit: Int,
    pops: Int,
    recent: Int,
    nonempty: NDArray[np.bool_],
    distances: Distances,
) -> int:
    """Earliest cycle from `time` on in which every queue shows credit; only those of the PEs `fullest` may not.

    worst : the PE of which credit is the latest. While vectors fired before are still on their way to the queues, each
    cycle is looked at, since credit can come and go; after that it only comes.
    """
    while time < last_fire + distances.fire_to_queue + distances.credit and time < credit[worst]:
        shows = _shows(time, worst, threshold, pushed, pops, recent, nonempty, distances)
        for pe in fullest if shows else fullest[:0]:
            if credit[pe] > time and not _shows(time, pe, threshold, pushed, pops, recent, nonempty, distances):
                shows = False
                break
        if shows:
            return time
        time += 1
    return max(time, int(credit[worst]))


@njit(cache=True)
def _send(
    fire: int,
    columns: NDArray[np.uint16],
    lanes: Int,
    number: int,
    slot: int,
    nonempty: NDArray[np.bool_],
    fullest: Int,
    threshold: int,
    state: Int,
    pushed: Int,
    credit: Int,
    pops: Int,
    jobs: Int,
    distances: Distances,
) -> tuple[int, int]:
    """Give the columns `lanes` of a vector to all PEs.

    Returns how many PEs have no credit for the next vector (`fullest`), and the one that has it last.
    Without branches, which sparse columns would make unpredictable: a change is kept by `& -some`, and what a vector
    without work in a PE writes to the rings is overwritten by the next one.
    """
    ring, pes = pops.shape
    mask = ring - 1
    queued = fire + distances.fire_to_queue + distances.queue_to_read
    full, worst, latest = 0, 0, _NEVER
    for pe in range(pes):
        last_before, passed_before = state[pe, _LAST], state[pe, _PASSED]
        read_before, taken_before = state[pe, _READ], state[pe, _TAKEN]
        read = max(queued, max(read_before + 1, taken_before))
        taken = max(read + distances.read_to_take, passed_before)
        last = before = max(taken + distances.take_to_select, last_before + 1) - 1
        q1, q2, q3, q4 = state[pe, _Q1], state[pe, _Q2], state[pe, _Q3], _NEVER
        work = np.int64(0)
        for n in range(number):
            packed = np.int64(columns[pe, lanes[n]])
            some = np.int64(packed > 0)
            last += packed & _COUNT_MASK
            work += some
            q4 += (q3 - q4) & -some
            q3 += (q2 - q3) & -some
            q2 += (q1 - q2) & -some
            q1 += (last - (packed >> _COUNT_BITS) - q1) & -some
        # The last column waits until the third before it has left the expander's buffer.
        passed = max(taken + work, q4 + distances.columns_ahead)
        some = np.int64(work > 0)
        nonempty[slot, pe] = work > 0
        job = pushed[pe]
        pops[job & mask, pe] = read
        jobs[job & mask, pe] = last << 16 | last - before
        state[pe, _LAST] += (last - last_before) & -some
        state[pe, _READ] += (read - read_before) & -some
        state[pe, _TAKEN] += (taken - taken_before) & -some
        state[pe, _PASSED] += (passed - passed_before) & -some
        state[pe, _Q1], state[pe, _Q2], state[pe, _Q3] = q1, q2, q3
        job += some
        pushed[pe] = job
        limit = pops[(job - 1 - threshold) & mask, pe] + distances.credit
        credit[pe] = limit
        fullest[full] = pe
        full += limit > fire + 1
        worst = pe if limit > latest else worst
        latest = max(limit, latest)
    return full, worst


@njit(cache=True)
def scan(
    window: np.void,
    sample: int,
    ty: int,
    tx: int,
    accept: int,
    loaded: int,
    packed: NDArray[np.uint16],
    entries: Int,
    padding: Int,
    masks: NDArray[np.uint8],
    gates: Int,
    opens: tuple[int, int, int],
    chained: bool,
    claims: Int,
    streams: tuple[Int, Int, Int, Int, Int],
    threshold: int,
    clock: Int,
    counted: Int,
    pes: tuple[Int, Int, Int, Int, Int, Int, NDArray[np.bool_]],
    distances: Distances,
) -> int:
    """Scan one window of one tile. Returns when its last vector fired, or -1.

    accept, loaded : when the segment is accepted, and when its weights are there. packed : (blocks, pes, 8).
    entries, padding : (blocks, 8) of all PEs. gates, opens : see `model`. claims : when operations in front of the
    tile read (`operations`). streams : see `streams`. clock : earliest accept and read of the next segment, U of the
    last vector; moved on here, as `counted` (entries, padding, blocked, skipped) and `pes`.
    """
    state, pushed, credit, pops, jobs, recent, nonempty = pes
    request, used = max(accept + distances.request, clock[1], loaded), clock[2]
    read = request
    height, width, vectors = window["height"], window["width"], window["vectors"]
    block = window["block"]
    fired, oldest = -1, int(np.argmin(recent))
    fullest = np.arange(len(pushed))
    full, worst = len(pushed), int(np.argmax(credit))
    lanes = np.zeros(LANES, np.int64)
    first_line, all_open, groups = opens
    shared = claims[0, 0] > 0  # there are operations
    sending, sent = streams[0], streams[4]
    shares = sending[SENT] > 0  # something is sent
    for i in range(window["wy"]):
        y = window["y0"] + ty * window["step_y"] + i * window["dy"]
        for j in range(window["wx"]):
            x = window["x0"] + tx * window["step_x"] + j * window["dx"]
            if window["uniform"]:
                block = window["block"]
            if not (0 <= y < height and 0 <= x < width):
                read = request
                moved = max(read + distances.read_to_register, used)
                used = moved + distances.register_to_fire
                request = max(read + 1, moved)
                counted[3] += 1
                block += vectors
                continue
            place = window["mask"] + ((sample * height + y) * width + x) * vectors
            address = window["source"] + i * window["window_pitch"] + j * window["position_pitch"]
            for v in range(vectors):
                read = request
                if chained:
                    line = ((address + v) & _WRAP) // groups - first_line
                    if line >= 0:
                        read = max(read, gates[line] if line < len(gates) else all_open)
                while (shared and claimed(read, claims)) or (shares and sends(read, sending, sent)):
                    read += 1
                moved = max(read + distances.read_to_register, used)
                # A word that another read has replaced is read again behind it.
                word = moved - distances.read_to_register
                while (shared and claimed(word, claims)) or (shares and sends(word, sending, sent)):
                    word += 1
                moved = word + distances.read_to_register
                request = max(read + 1, moved)
                ready = moved + distances.register_to_fire
                bits = 255 if window["dense"] else masks[place + v]
                if bits == 0:
                    used = ready
                    counted[3] += 1
                else:
                    number = 0
                    for lane in range(8):
                        if bits >> lane & 1:
                            lanes[number] = lane
                            number += 1
                            counted[0] += entries[block, lane]
                            counted[1] += padding[block, lane]
                    used = ready
                    if full:
                        used = _credit(
                            ready, recent.max(), worst, threshold, fullest[:full], pushed, credit, pops, recent,
                            nonempty, distances,
                        )  # fmt: skip
                    counted[2] += used - ready
                    recent[oldest] = fired = used
                    full, worst = _send(
                        used, packed[block], lanes, number, oldest, nonempty, fullest, threshold,
                        state, pushed, credit, pops, jobs, distances,
                    )  # fmt: skip
                    oldest = oldest + 1 if oldest < len(recent) - 1 else 0
                block += 1
    clock[0], clock[1], clock[2] = read + distances.next_accept, request, used
    return fired
