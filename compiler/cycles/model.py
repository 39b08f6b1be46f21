"""Exact cycle model: the time of every event of a run, as a recurrence over vectors and PEs.

Nothing here steps through cycles. For each vector of each window the model computes when it leaves the scan
(`scan`), from the vector before; from the tiles before, when a tile is accepted, finished and written (`tiles`); and of
each elementwise operation the same (`operations`). Loops are unrolled.
docs/architecture.md derives the equations from the pipeline. The results equal the RTL's layer records in every field
but `saturated`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.cycles.distances import DISTANCES, Distances, distances_of
from compiler.cycles.events import PLACES, Events, Round, vectors_at_most
from compiler.cycles.operations import NO_CLAIMS, operate
from compiler.cycles.scan import Pes, Window, pack_columns
from compiler.cycles.streams import Streams, bring
from compiler.cycles.tiles import Clock, selected_after, tiles
from compiler.image.steps import ElementwiseStep, LoopStep, Step
from hw.layouts import COUNTER_MOST, COUNTERS
from hw.params import LANES, Params

__all__ = ["DISTANCES", "Distances", "LayerTimes", "Work", "run", "run_to_end", "vectors_of"]

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
        """The columns as `compiler.cycles.scan` takes them, and for each the entries and padding entries in all PEs."""
        sums = (values.sum(axis=2, dtype=np.int64) for values in (self.counts, self.padding))
        return pack_columns(self.counts, self.starts), *sums


@dataclass(frozen=True)
class LayerTimes:
    """The record of a layer or of an elementwise operation: three times, and the counters except `saturated`.

    Times are cycles since the run began.
    """

    accepted: int
    finished: int
    written: int
    entries: int
    padding: int
    starved: int
    blocked: int
    skipped: int
    refill: int
    stream: int = 0


def _word_to_line(step: Step, distances: Distances) -> int:
    """Cycles from a word of the output table to the line that it completes."""
    return distances.word_to_line + distances.function * step.functions


def _line_gates(step: Step, flushes: Int, first_read: int, written: int, distances: Distances) -> Int:
    """When each line from the first of a layer's last tile on may be read, up to its last one."""
    number = np.arange(len(flushes) + 1)
    lines = number // step.row_lines * step.row_pitch + number % step.row_lines
    times = first_read + flushes + _word_to_line(step, distances) + distances.line_to_read
    # Flush n makes the lines before that of flush n + 1 readable.
    after = np.searchsorted(lines[1:], np.arange(lines[-1]), side="right")
    return np.minimum(times[after], written + distances.written_to_free).astype(np.int64)


def _last_line(step: Step, batch: int) -> int:
    """First line of a layer's last tile."""
    first = step.destination + (step.tiles_x - 1) * step.column_lines
    if step.stream_out:
        return first + (batch * step.tiles_y - 1) % step.out_rows * step.tile_lines
    return first + (batch - 1) * step.frame + (step.tiles_y - 1) * step.tile_lines


def run(
    params: Params,
    works: Sequence[Work | ElementwiseStep | LoopStep],
    masks: Sequence[NDArray[np.uint8]],
    *,
    distances: Distances = DISTANCES,
) -> list[LayerTimes]:
    """Times of every layer and elementwise operation of a run, see `run_to_end`."""
    return run_to_end(params, works, masks, distances=distances)[0]


def run_to_end(
    params: Params,
    works: Sequence[Work | ElementwiseStep | LoopStep],
    masks: Sequence[NDArray[np.uint8]],
    *,
    distances: Distances = DISTANCES,
    events: Events | None = None,
) -> tuple[list[LayerTimes], int]:
    """Times of every layer and elementwise operation of a run over a batch, in the order of their descriptors.

    And when the run ends: everything is written, and everything that streams out is sent.

    Parameters
    ----------
    params : the array. works : what each descriptor is, but END.
    masks : uint8 (batch, height, width, vectors), bit n of a vector of its map: the activation of lane n is not zero.
        One for each segment in the order in which they run: segments of a loop have one in each round. What no window
        reads does not matter.
    distances : of the hardware without hops; others are for tests.
    events : is told when what was, entry by entry; takes 16 bytes for each vector and PE.

    Raises
    ------
    ValueError
        A window needs more rows of a map that streams in than its ring holds.
    """
    steps = [work.step for work in works if isinstance(work, Work)]
    batch = len(masks[0])
    state = _Run(params, batch, any(step.stream_in for step in steps), distances_of(params, distances))
    if events is not None:
        state.keep(events, vectors_of(works, batch))
    left = list(masks[::-1])
    number, rounds = 0, 1
    offset = 0
    while number < len(works):
        work = works[number]
        if isinstance(work, LoopStep):
            state.clock.control += distances.next_descriptor
            rounds, offset = (rounds + 1, offset + work.pitch) if rounds < work.count else (1, 0)
            number = work.first if rounds > 1 else number + 1
        elif isinstance(work, ElementwiseStep):
            state.operation(number, work)
            number += 1
        else:
            layer = [work]
            while not layer[-1].step.last:
                more = works[number + len(layer)]
                assert isinstance(more, Work)
                layer.append(more)
            state.layer(number, layer, [left.pop() for _ in layer], offset)
            number += len(layer)
    return state.finish()


class _Run:
    """The state of a run, from one layer or operation to the next."""

    def __init__(self, params: Params, batch: int, streams_in: bool, distances: Distances) -> None:
        self.params, self.batch, self.distances = params, batch, distances
        self.streams, self.streams_in = Streams(params.groups, distances), streams_in
        self.pes = Pes.idle(params)
        self.events: Events | None = None
        self.clock = Clock.start(distances)
        self.claims = NO_CLAIMS.copy()
        self.gates, self.opens = np.zeros(0, np.int64), (0, 0, params.groups)
        self.records: dict[int, LayerTimes] = {}
        self.youngest = -1  # layer accepted last, since when, and how many entries of it are not counted
        self.since = self.entries = self.written = 0
        self.finished = [0, 0]  # of the last two layers

    def keep(self, events: Events, vectors: int) -> None:
        """Note when what is, of a run of so many vectors at most."""
        self.events, self.pes = events, Pes.idle(self.params, vectors)

    def note(self, number: int, times: LayerTimes, tiles: Int, before: Int, segments: int) -> None:
        """A round is written."""
        if self.events is not None:
            self.events.rounds.append(Round(
                number, times.accepted, times.finished, times.written, tiles, before, self.pes.pushed.copy(), segments
            ))  # fmt: skip

    def layer(self, number: int, layer: list[Work], masks: list[NDArray[np.uint8]], offset: int) -> None:
        """One round of a layer, whose first descriptor has this number."""
        clock, distances, groups = self.clock, self.distances, self.params.groups
        step = layer[0].step
        without = clock.accept(bool(step.barrier), distances)
        if self.streams_in:
            self.streams.expect(self.batch * step.tiles * len(layer[0].flushes), int(clock.control[0]))
        accept = self.stream(step, without)
        self.count(accept)  # the layer before is the youngest up to here
        step = replace(step, destination=step.destination + offset * step.moves_result)
        windows = _windows(layer, masks)
        windows["source"] += [groups * offset * work.step.moves_source for work in layer]
        seen = np.full((self.batch * step.tiles * len(layer) if self.events is not None else 0, PLACES), -1, np.int64)
        before = self.pes.pushed.copy()
        packed, sums, padded = (_joined(list(parts)) for parts in zip(*(work.columns for work in layer), strict=True))
        finished, entries, padding, blocked, skipped, refill, waited, first_read = tiles(
            accept, windows, packed, sums, padded, _joined([np.ascontiguousarray(each).reshape(-1) for each in masks]),
            np.array([words for work in layer for words in work.packets], np.int64),
            layer[0].flushes, (self.batch, step.tiles_y, step.tiles_x, step.words, _word_to_line(step, distances)),
            (step.ring_rows, step.height, step.stream_out),
            self.gates, self.opens, self.claims, self.streams.arrays, self.params.queue_depth - distances.round_trip,
            clock.arrays, self.pes.arrays, distances, seen,
        )  # fmt: skip
        if step.stream_in:
            self.streams.finish_in(int(clock.scan[1]) + distances.passed)
        self.written = written = int(clock.drain[0])
        self.opens = _last_line(step, self.batch), written + distances.written_to_free, groups
        self.gates = _line_gates(step, layer[0].flushes, first_read, written, distances)
        self.youngest, self.since, self.finished = number, accept, [self.finished[1], finished]
        self.entries += entries
        waited += accept - without
        times = LayerTimes(accept, finished, written + 1, entries, padding, 0, blocked, skipped, refill, waited)
        self.note(number, times, seen, before, len(layer))
        self.record(number, times)

    def stream(self, step: Step, accept: int) -> int:
        """When the first segment of a layer is accepted, if nothing but streams holds it back behind `accept`."""
        if not (step.stream_in or step.stream_out):
            return accept
        streams, distances = self.streams, self.distances
        quiet = streams.through()
        accept = max(accept, quiet)
        if step.stream_in:
            settled = int(self.clock.control[0]) + distances.settle
            begins = max(settled, int(self.clock.scan[1]) + distances.passed, quiet)
            streams.begin_in(step, self.batch, begins)
            rows = min(step.height, max(0, step.y0 + step.reach))
            there = bring(rows, *streams.arrays[:4]) + distances.row_to_accept
            accept = max(accept, begins + distances.begin_to_accept, there)
        if step.stream_out:
            streams.begin_out(step, self.batch)
        return accept

    def operation(self, number: int, step: ElementwiseStep) -> None:
        """One round of an elementwise operation."""
        clock, distances = self.clock, self.distances
        place = clock.place[0]
        pushed = int(max(clock.control[0], clock.places[place] + distances.written_to_place))
        pushed = max(pushed, self.streams.last_sent + distances.stream_to_quiet)
        start, last, written = operate(step, self.batch, pushed, int(clock.drain[0]), self.claims, distances)
        if self.streams_in:
            lines = self.batch * step.lines
            self.streams.expect(lines, int(clock.control[0]))
            self.streams.write(written - np.arange(lines)[::-1] * LANES * step.products)
        clock.control[0] = pushed + distances.next_descriptor
        clock.drain[0] = clock.places[place] = clock.operated[0] = written
        clock.place[0] = (place + 1) % len(clock.places)
        times = LayerTimes(start, last, written + 1, 0, 0, 0, 0, 0, 0)
        self.note(number, times, np.zeros((0, PLACES), np.int64), self.pes.pushed.copy(), 0)
        self.record(number, times)

    def count(self, end: int) -> None:
        """Cycles in which no entry was selected, up to `end`, for the layer accepted last.

        If it is written by then, what comes after that is no layer's.
        """
        if self.youngest < 0:
            return
        end = min(end, self.written - self.distances.record_to_written)
        if self.events is not None:
            self.events.counted.append((self.youngest, self.since, end))
        after = int(selected_after(end, self.pes.pushed, self.pes.jobs))
        record = self.records[self.youngest]
        starved = self.params.pes * (end - self.since) - (self.entries - after)
        self.records[self.youngest] = replace(record, starved=record.starved + starved)
        self.entries = after

    def record(self, number: int, times: LayerTimes) -> None:
        """Counters add up over the rounds; a layer is accepted in the first one."""
        before = self.records.get(number)
        if before:
            names = ("entries", "padding", "starved", "blocked", "skipped", "refill", "stream")
            sums = {name: getattr(before, name) + getattr(times, name) for name in names}
            times = replace(times, accepted=before.accepted, **sums)
        self.records[number] = times

    def finish(self) -> tuple[list[LayerTimes], int]:
        """All records, and the end. The last layer counts until END is found and all are finished, as the one before.

        The run ends when END is found, all that is accepted is written, and nothing is left to take or to send.
        """
        self.count(max(int(self.clock.control[0]), *self.finished))
        end = max(
            int(self.clock.drain[0]) + self.distances.written_to_free, self.streams.through(),
            int(self.clock.control[0]) + self.distances.end_to_done,
        )  # fmt: skip
        if self.events is not None:
            self.events.jobs, self.events.end = self.pes.jobs, end
        return [_as_read(self.records[number]) for number in sorted(self.records)], int(end)


def vectors_of(works: Sequence[Work | ElementwiseStep | LoopStep], batch: int) -> int:
    """Vectors that a run sends at most."""
    steps = [work.step if isinstance(work, Work) else None for work in works]
    sizes = [0 if step is None else batch * step.tiles * step.wy * step.wx * step.vectors for step in steps]
    return vectors_at_most(works, sizes)


def _as_read(record: LayerTimes) -> LayerTimes:
    """As the array holds it, 32 bits a field: times wrap, counters stop."""
    times = {name: int(getattr(record, name)) & 0xFFFFFFFF for name in ("accepted", "finished", "written")}
    counters = {name: int(min(getattr(record, name), COUNTER_MOST)) for name in COUNTERS if name != "saturated"}
    return LayerTimes(**times, **counters)


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
