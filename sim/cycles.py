"""Exact cycle model: the time of every event of a run, as a recurrence over vectors and PEs.

Nothing here steps through cycles. For each vector of each window the model computes when it leaves the scan
(`sim.cycle_scan`), from the vector before; from the tiles before, when a tile is accepted, finished and written.
docs/architecture.md derives the equations from the pipeline. The results equal the RTL's layer records in every field
but `saturated`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.image.steps import Step
from compiler.jit import njit
from hw.params import Params
from sim.cycle_scan import DISTANCES, Distances, Pes, Window, pack_columns, scan

__all__ = ["DISTANCES", "Distances", "LayerTimes", "Work", "run"]

Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Work:
    """What the model needs to know of one segment, whatever it reads.

    step : its descriptor.
    counts : uint16 (pointer blocks, 8, pes) entries of each column in each PE, padding entries included.
    starts : uint8, place of the first of them in its weight word. padding : uint16, padding entries among them.
    flushes : words of the layer's part of the output table that flush, counted from its first one.
    packets : words of each packet that brings the weights; empty if they stay on chip.
    """

    step: Step
    counts: NDArray[np.uint16]
    starts: NDArray[np.uint8]
    padding: NDArray[np.uint16]
    flushes: Int
    packets: Sequence[int] = ()

    @cached_property
    def columns(self) -> tuple[NDArray[np.uint16], Int, Int]:
        """The columns as `sim.cycle_scan` takes them, and for each the entries and padding entries in all PEs."""
        sums = (values.sum(axis=2, dtype=np.int64) for values in (self.counts, self.padding))
        return pack_columns(self.counts, self.starts), *sums


@dataclass(frozen=True)
class LayerTimes:
    """The record of a layer: three times in cycles since the run began, and the counters except `saturated`."""

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
class _Clock:
    """How far scan, banks, write-back and refill are.

    The arrays are one number each, or one for each bank or buffer; `_tiles` moves them on.

    scan : earliest accept, earliest read, when the vector before leaves. written : last line of the tile in each bank.
    drain : last line written. bank : that of the next tile. refill : the next header, when each buffer is free.
    """

    scan: Int
    written: Int
    drain: Int
    bank: Int
    refill: Int

    @classmethod
    def start(cls, distances: Distances) -> _Clock:
        first = distances.first_accept
        zero = np.zeros(2, np.int64)
        return cls(
            np.array([first, 0, 0]), zero - 1 - distances.written_to_drain, zero[:1] - 1 - distances.written_to_drain,
            zero[:1].copy(), np.zeros(3, np.int64),
        )  # fmt: skip


@njit(cache=True)
def _loaded(header: int, free: int, packets: Int, distances: Distances) -> int:
    """Cycle in which a tile's last word is taken, if the stream always has a beat to give.

    A packet of n words takes n + 2 cycles. The first of a tile waits until its buffer is free.
    """
    begins = max(header + 1, free) + distances.free_to_words
    return int(begins + packets[0] - 1 + packets[1:].sum() + 2 * (len(packets) - 1))


@njit(cache=True)
def _tiles(
    windows: NDArray[np.void],
    packed: NDArray[np.uint16],
    entries: Int,
    padding: Int,
    masks: NDArray[np.uint8],
    packets: Int,
    loop: tuple[int, int, int, int],
    gates: Int,
    opens: tuple[int, int, int],
    threshold: int,
    clock_scan: Int,
    written: Int,
    drain: Int,
    bank: Int,
    refill: Int,
    pes: tuple[Int, Int, Int, Int, Int, Int, NDArray[np.bool_]],
    distances: Distances,
) -> tuple[int, int, int, int, int, int, int, int]:
    """All tiles of a layer.

    loop : samples, tile rows, tiles of a row, words of the output table. gates : when each line from ``opens[0]`` on
    may be read by `chained` segments of the first tile; lines behind them at ``opens[1]``. ``opens[2]``: groups.
    Returns accepted, finished, entries, padding, blocked, skipped, cycles waited for weights, first word of the last
    tile's write-back.
    """
    batch, tiles_y, tiles_x, words = loop
    state, pushed = pes[0], pes[1]
    accepted, finished, first_read = -1, 0, 0
    counted = np.zeros(4, np.int64)  # entries, padding, blocked, skipped
    waited = 0
    before_tile, before = pushed.copy(), pushed.copy()
    for sample in range(batch):
        for ty in range(tiles_y):
            for tx in range(tiles_x):
                here = bank[0]
                clock_scan[0] = max(clock_scan[0], written[here] + distances.written_to_free)
                before_tile[:] = pushed
                tile_done = 0
                for n in range(len(windows)):
                    window = windows[n]
                    accept = clock_scan[0]
                    if accepted < 0:
                        accepted = accept
                    loaded = 0
                    streamed = window["packets"] > 0
                    if streamed:
                        before[:] = pushed
                        words_of = packets[window["first_packet"] : window["first_packet"] + window["packets"]]
                        last_word = _loaded(refill[0], refill[1 + window["buffer"]], words_of, distances)
                        refill[0] = last_word + 1
                        loaded = last_word + distances.loaded
                        waited += max(0, loaded - accept - distances.request)
                    chained = window["chained"] and sample == 0 and ty == 0 and tx == 0
                    fired = scan(
                        window, sample, ty, tx, accept, loaded, packed, entries, padding, masks,
                        gates, opens, chained, threshold, clock_scan, counted, pes, distances,
                    )  # fmt: skip
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
                drain[0] = first_read + words - 1 + distances.word_to_line
                written[here] = drain[0]
                bank[0] = 1 - here
    return accepted, finished, counted[0], counted[1], counted[2], counted[3], waited, first_read


@njit(cache=True)
def _selected_after(time: int, pushed: Int, jobs: Int) -> int:
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


def _line_gates(step: Step, flushes: Int, first_read: int, written: int, distances: Distances) -> Int:
    """When each line from the first of a layer's last tile on may be read, up to its last one."""
    number = np.arange(len(flushes) + 1)
    lines = number // step.row_lines * step.row_pitch + number % step.row_lines
    times = first_read + flushes + distances.word_to_line + distances.line_to_read
    # Flush n makes the lines before that of flush n + 1 readable.
    after = np.searchsorted(lines[1:], np.arange(lines[-1]), side="right")
    return np.minimum(times[after], written + distances.written_to_free).astype(np.int64)


def _last_line(step: Step, batch: int) -> int:
    """First line of a layer's last tile."""
    tile = (step.tiles_y - 1) * step.tile_lines + (step.tiles_x - 1) * step.column_lines
    return step.destination + (batch - 1) * step.frame + tile


def run(
    params: Params, works: Sequence[Work], masks: Sequence[NDArray[np.uint8]], *, distances: Distances = DISTANCES
) -> list[LayerTimes]:
    """Times of every layer of a run over a batch.

    Parameters
    ----------
    params : the array. works : the segments of all layers, in order.
    masks : for each segment uint8 (batch, height, width, vectors), bit n of a vector of its map: the activation of lane
        n is not zero. What no window reads does not matter.
    distances : of the hardware; others are for tests.
    """
    batch = len(masks[0])
    firsts = [n for n, work in enumerate(works) if work.step.first]
    layers = [works[first:end] for first, end in pairwise([*firsts, len(works)])]
    pes = Pes.idle(params)
    clock = _Clock.start(distances)
    threshold = params.queue_depth - distances.round_trip
    gates, opens = np.zeros(0, np.int64), (0, 0, params.groups)
    records = []
    carried = before_finished = 0
    for n, layer in enumerate(layers):
        step, seen = layer[0].step, masks[firsts[n] : firsts[n] + len(layer)]
        packed, sums, padded = (_joined(list(parts)) for parts in zip(*(work.columns for work in layer), strict=True))
        accepted, finished, entries, padding, blocked, skipped, waited, first_read = _tiles(
            _windows(layer, seen), packed, sums, padded,
            _joined([np.ascontiguousarray(each).reshape(-1) for each in seen]),
            np.array([words for work in layer for words in work.packets], np.int64),
            (batch, step.tiles_y, step.tiles_x, step.words), gates, opens, threshold,
            clock.scan, clock.written, clock.drain, clock.bank, clock.refill, pes.arrays, distances,
        )  # fmt: skip
        written = int(clock.drain[0])
        opens = _last_line(step, batch), written + distances.written_to_free, params.groups
        gates = _line_gates(step, layer[0].flushes, first_read, written, distances)
        # The last layer counts until all are finished: the one before may be finished after it. Any other counts until
        # the next one starts, when this one is scanned and the other bank is free.
        end = max(finished, before_finished)
        if n + 1 < len(layers):
            end = int(max(clock.scan[0], clock.written[clock.bank[0]] + distances.written_to_free))
        after = int(_selected_after(end, pes.pushed, pes.jobs))
        starved = params.pes * (end - accepted) - (entries + carried - after)
        carried, before_finished = after, finished
        records.append(LayerTimes(accepted, finished, written + 1, entries, padding, starved, blocked, skipped, waited))
    return records


def _windows(layer: Sequence[Work], masks: Sequence[NDArray[np.uint8]]) -> NDArray[np.void]:
    """The windows of a layer, whose columns, masks and packets stand one behind the other."""
    windows = np.array([Window.of(work.step) for work in layer], Window.DTYPE)
    windows["packets"] = [len(work.packets) for work in layer]
    for name, sizes in (
        ("block", [len(work.counts) for work in layer]),
        ("mask", [each.size for each in masks]),
        ("first_packet", windows["packets"]),
    ):
        windows[name] = np.cumsum(sizes) - sizes
    return windows


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
