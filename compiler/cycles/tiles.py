"""The tiles of a layer in the cycle model: when each is accepted, finished and written back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.cycles.distances import Distances
from compiler.cycles.events import ACCEPTED, DRAIN, FINISHED, FIRST_WORD, LAST_WORD, PASSED, WRITTEN
from compiler.cycles.scan import scan
from compiler.cycles.streams import LIMITS, PLACES, SENT, WRITES, bring, last_beat, send
from compiler.jit import njit
from hw.params import WRITE_QUEUE

__all__ = ["Clock", "selected_after", "tiles"]

Int = NDArray[np.int64]


@dataclass
class Clock:
    """How far scan, banks, write-back and refill are.

    The arrays are one number each, or one for each bank or buffer; `tiles` moves them on.

    control : the next descriptor may be taken. scan : earliest accept, earliest read, when the vector before leaves.
    written : last line of the tile in each bank. drain : last line written. bank : that of the next tile.
    refill : the next header, when each buffer is free. places : ring of the write queue, when what had each place last
    was written. place : the next one. operated : the last operation is written.
    """

    control: Int

    scan: Int
    written: Int
    drain: Int
    bank: Int
    refill: Int
    places: Int
    place: Int
    operated: Int

    @classmethod
    def start(cls, distances: Distances) -> Clock:
        """At the start of a run."""
        first = distances.first_accept
        zero = np.zeros(2, np.int64)
        never = np.full(WRITE_QUEUE, -1 - distances.written_to_place, np.int64)
        return cls(
            zero[:1] + first, np.array([first, 0, 0]), zero - 1 - distances.written_to_drain,
            zero[:1] - 1 - distances.written_to_drain, zero[:1].copy(), np.zeros(3, np.int64), never, zero[:1].copy(),
            never[:1].copy(),
        )  # fmt: skip

    @property
    def arrays(self) -> tuple[Int, Int, Int, Int, Int, Int, Int, Int, Int]:
        """As compiled functions take them."""
        return (
            self.control, self.scan, self.written, self.drain, self.bank, self.refill, self.places, self.place,
            self.operated,
        )  # fmt: skip

    def accept(self, barrier: bool, distances: Distances) -> int:
        """When the first segment of a layer is accepted."""
        return int(max(
            self.control[0], self.scan[0], self.written[self.bank[0]] + distances.written_to_free,
            self.places[self.place[0]] + distances.written_to_place,
            self.operated[0] + distances.written_to_place if barrier else 0,
        ))  # fmt: skip


@njit(cache=True)
def _loaded(header: int, free: int, packets: Int, distances: Distances) -> tuple[int, int]:
    """Cycles in which a tile's first and last words are taken, if the stream always has a beat to give.

    A packet of n words takes n + 2 cycles. The first of a tile waits until its buffer is free.
    """
    begins = max(header + 1, free) + distances.free_to_words
    return begins, int(begins + packets[0] - 1 + packets[1:].sum() + 2 * (len(packets) - 1))


@njit(cache=True)
def tiles(
    accepted: int,
    windows: NDArray[np.void],
    packed: NDArray[np.uint16],
    entries: Int,
    padding: Int,
    masks: NDArray[np.uint8],
    packets: Int,
    flushes: Int,
    loop: tuple[int, int, int, int, int],
    ring: tuple[int, int, int],
    gates: Int,
    opens: tuple[int, int, int],
    claims: Int,
    streams: tuple[Int, Int, Int, Int, Int],
    threshold: int,
    clock: tuple[Int, Int, Int, Int, Int, Int, Int, Int, Int],
    pes: tuple[Int, Int, Int, Int, Int, Int, NDArray[np.bool_]],
    distances: Distances,
    events: Int,
) -> tuple[int, int, int, int, int, int, int, int]:
    """All tiles of a layer, the first segment of which is accepted in `accepted`.

    loop : samples, tile rows, tiles of a row, words of the output table, and cycles from a word to its line.
    flushes : words that flush. ring : rows of the ring of a layer that streams in, or 0; rows of a sample; whether the
    layer streams out. streams : see `streams`.
    gates : when each line from ``opens[0]`` on may be read by `chained` segments of the first tile; lines behind them
    at ``opens[1]``. ``opens[2]``: groups. claims : when operations read.
    events : is filled in unless it is empty, see `compiler.cycles.events.Round.tiles`.
    Returns finished, entries, padding, blocked, skipped, cycles waited for weights and for streams, first word of the
    last tile's write-back.
    """
    batch, tiles_y, tiles_x, words, word_to_line = loop
    control, clock_scan, written, drain, bank, refill, places, place, operated = clock
    state, pushed = pes[0], pes[1]
    state_streams, received, limits, writes, sent = streams
    ring_rows, height, stream_out = ring
    finished, first_read = 0, 0
    counted = np.zeros(4, np.int64)  # entries, padding, blocked, skipped
    waited = streamed_waited = 0
    before_tile, before = pushed.copy(), pushed.copy()
    row = -1
    for sample in range(batch):
        for ty in range(tiles_y):
            for tx in range(tiles_x):
                here = bank[0]
                free = max(written[here] + distances.written_to_free, places[place[0]] + distances.written_to_place)
                before_tile[:] = pushed
                tile_done = 0
                for n in range(len(windows)):
                    window = windows[n]
                    row += 1
                    accept = max(control[0], clock_scan[0], free)
                    if window["barrier"]:
                        accept = max(accept, operated[0] + distances.written_to_place)
                    first = sample == 0 and ty == 0 and tx == 0 and n == 0
                    if first:
                        accept = accepted
                    elif window["ring"]:
                        without = accept
                        top = window["y0"] + ty * window["step_y"]
                        settled = control[0] + distances.settle
                        accept = max(accept, settled)
                        if tx == 0 and n == 0:
                            passed = clock_scan[1] + distances.passed
                            accept = max(accept, passed)
                            number = state_streams[LIMITS]
                            limits[number, 0] = max(settled, passed) + distances.begin_to_write
                            limits[number, 1] = sample * height + min(height, max(0, top)) + ring_rows
                            state_streams[LIMITS] += 1
                        rows = sample * height + min(height, max(0, top + window["reach"]))
                        accept = max(
                            accept, bring(rows, state_streams, received, limits, writes) + distances.row_to_accept
                        )
                        streamed_waited += accept - without
                    control[0] = accept + distances.next_descriptor
                    loaded = 0
                    streamed = window["packets"] > 0
                    if streamed:
                        before[:] = pushed
                        words_of = packets[window["first_packet"] : window["first_packet"] + window["packets"]]
                        first_word, last_word = _loaded(refill[0], refill[1 + window["buffer"]], words_of, distances)
                        if len(events):
                            events[row, FIRST_WORD], events[row, LAST_WORD] = first_word, last_word
                        refill[0] = last_word + 1
                        loaded = last_word + distances.loaded
                        waited += max(0, loaded - accept - distances.request)
                    chained = window["chained"] and sample == 0 and ty == 0 and tx == 0
                    fired = scan(
                        window, sample, ty, tx, accept, loaded, packed, entries, padding, masks,
                        gates, opens, chained, claims, streams, threshold, clock_scan, counted, pes, distances,
                    )  # fmt: skip
                    if len(events):
                        events[row, ACCEPTED], events[row, PASSED] = accept, clock_scan[0]
                    done = clock_scan[2] + distances.scanned_to_finished
                    if fired >= 0:
                        done = max(done, fired + distances.drop_to_done)
                    if streamed:  # its buffer is free when no PE has work of it
                        own = done
                        for pe in range(len(pushed)):
                            if pushed[pe] != before[pe]:
                                own = max(own, state[pe, 0] + distances.select_to_done)
                        refill[1 + window["buffer"]] = own + distances.finished_to_buffer
                    tile_done = max(tile_done, done)
                for pe in range(len(pushed)):  # only those that had work: the others may still be at the tile before
                    if pushed[pe] != before_tile[pe]:
                        tile_done = max(tile_done, state[pe, 0] + distances.select_to_done)
                finished = max(finished, tile_done)
                first_read = max(tile_done + distances.finished_to_drain, drain[0] + distances.written_to_drain)
                if stream_out and tx == 0:
                    before_row = state_streams[SENT] - state_streams[PLACES]
                    room = last_beat(before_row, state_streams, sent, opens[2], distances) + distances.beat_to_drain
                    first_read = max(first_read, room)
                drain[0] = first_read + words - 1 + word_to_line
                if len(events):
                    events[row, FINISHED], events[row, DRAIN], events[row, WRITTEN] = tile_done, first_read, drain[0]
                if len(writes):
                    number = state_streams[WRITES]
                    writes[number : number + len(flushes)] = first_read + flushes + word_to_line
                    state_streams[WRITES] += len(flushes)
                if stream_out and tx == tiles_x - 1:
                    send(drain[0], state_streams, sent, opens[2], distances)
                written[here] = places[place[0]] = drain[0]
                place[0] = (place[0] + 1) % len(places)
                bank[0] = 1 - here
    return finished, counted[0], counted[1], counted[2], counted[3], waited, streamed_waited, first_read


@njit(cache=True)
def selected_after(time: int, pushed: Int, jobs: Int) -> int:
    """Entries of all PEs that are selected later than `time`; the entries of a vector are selected without a gap."""
    ring, pes = jobs.shape
    after = 0
    for pe in range(pes):
        job = pushed[pe] - 1
        while job >= 0 and job > pushed[pe] - ring:
            end = jobs[job & (ring - 1), pe] >> 16
            if end <= time:
                break
            after += min(jobs[job & (ring - 1), pe] & 0xFFFF, end - time)
            job -= 1
    return after
