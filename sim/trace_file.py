"""A run of the array as a trace for Perfetto (ui.perfetto.dev), in the trace event format of Chrome.

Two processes. "array": layers from accept to the last line written, those that overlap side by side; segments while the
scan reads them; the tile in each bank of sums; write-back; refill of weights; how many PEs are busy. "PEs": of each one
when it selects an entry a cycle ("busy") and when none ("starved"), each by layer, as the counters ``entries`` and
``starved`` count them.
"""

from __future__ import annotations

import gzip
import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.cycles.events import ACCEPTED, DRAIN, FINISHED, FIRST_WORD, LAST_WORD, PASSED, WRITTEN, Round
from compiler.files import write_file
from sim.timeline import ArrayRun

__all__ = ["LIMIT", "Written", "trace_events", "write_trace_file"]

LIMIT = 200_000_000
"""Bytes of a trace unless told otherwise."""

ARRAY, PES = 1, 2
SCAN, WRITE_BACK, REFILL, BANKS, LAYERS = 1, 2, 3, 4, 10
"""Tracks of the array; banks and layers take several, from these on."""

_AROUND = 4096
"""Bytes kept free for what stands around the events."""

BUCKETS = 2000
"""Points of the curve of busy PEs in a run, at most."""

Int = NDArray[np.int64]
Event = dict[str, Any]


@dataclass(frozen=True)
class Written:
    """What became of a trace: its bytes, before they were packed; and, if it was cut, what is left out, in words."""

    size: int
    cut: str | None


def write_trace_file(
    path: Path, runs: Sequence[ArrayRun], mhz: float, *, about: dict[str, Any] | None = None, limit: int = LIMIT
) -> Written:
    """Write the runs one behind the other; packed if the name ends in ``.gz``.

    Parameters
    ----------
    mhz : clock at which cycles are shown as time; each event also says them in cycles. about : more to say of the run.
    limit : bytes before packing. A longer trace is cut, the tracks of PEs first, and says so.
    """
    lines: list[str] = []
    size = _AROUND
    cut = None
    for event in trace_events(runs, mhz):
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        size += len(line.encode()) + 2
        if size > limit:
            cut = "all PEs and a part of the array's tracks"
            if event["pid"] == PES and event["ph"] == "X":
                cut = f"the PEs from run {event['args']['run']}, cycle {event['args']['cycle']:,} on"
            break
        lines.append(line)
    rest = {"displayTimeUnit": "ns", "otherData": {
        "clock_mhz": mhz, "cycles": sum(run.events.end for run in runs), "left_out": cut, **(about or {}),
    }}  # fmt: skip
    text = '{"traceEvents":[\n' + ",\n".join(lines) + "\n]," + json.dumps(rest, separators=(",", ":"))[1:] + "\n"
    content = text.encode()
    write_file(path, gzip.compress(content, 6, mtime=0) if path.suffix == ".gz" else content)
    return Written(len(content), cut)


def trace_events(runs: Sequence[ArrayRun], mhz: float) -> Iterator[Event]:
    """The events of the format: names of tracks, then what the array did in all runs, then the PEs in time."""
    pes = runs[0].image.params.pes if runs else 0
    yield from _names(pes)
    starts = np.cumsum([0, *(run.events.end for run in runs)])
    clocks = [_Clock(int(start), mhz, number) for number, start in enumerate(starts[:-1])]
    for run, clock in zip(runs, clocks, strict=True):
        yield from _layers(run, clock)
        yield from _tiles(run, clock)
        yield from _busy_pes(run, clock, pes)
    for run, clock in zip(runs, clocks, strict=True):
        tracks = [_pe(run, clock, pe) for pe in range(pes)]
        yield from heapq.merge(*tracks, key=lambda event: event["args"]["cycle"])


@dataclass(frozen=True)
class _Clock:
    """Turns cycles of a run into events; runs before it took `start` cycles."""

    start: int
    mhz: float
    run: int

    def at(self, cycle: int) -> float:
        """Microseconds, in whole nanoseconds, so that what meets in a cycle meets in time."""
        return round((self.start + cycle) * 1000 / self.mhz) / 1000

    def slice(self, place: tuple[int, int], name: str, begin: int, end: int, **more: Any) -> Event:
        """Something from cycle `begin` until before cycle `end`."""
        process, track = place
        return {
            "ph": "X", "pid": process, "tid": track, "name": name, "ts": self.at(begin),
            "dur": round(self.at(end) - self.at(begin), 3),
            "args": {"cycle": int(begin), "cycles": int(end - begin), "run": self.run, **more},
        }  # fmt: skip


def _names(pes: int) -> Iterator[Event]:
    def named(what: str, process: int, track: int, name: str) -> Event:
        return {"ph": "M", "pid": process, "tid": track, "name": what, "args": {"name": name}}

    yield named("process_name", ARRAY, 0, "array")
    yield named("process_name", PES, 0, f"PEs ({pes})")
    tracks = {SCAN: "scan", WRITE_BACK: "write-back (drain)", REFILL: "refill", BANKS: "bank 0", BANKS + 1: "bank 1"}
    for track, name in tracks.items():
        yield named("thread_name", ARRAY, track, name)
    for pe in range(pes):
        yield named("thread_name", PES, pe, f"PE {pe}")


def _layers(run: ArrayRun, clock: _Clock) -> Iterator[Event]:
    """Every round of a layer or operation, on the first track that is free, and the record of the layer with it."""
    free: list[tuple[int, int]] = []  # (when, track)
    places = {number: n for n, number in enumerate(run.image.numbers)}
    rounds: dict[int, int] = {}
    for each in sorted(run.events.rounds, key=lambda each: each.accepted):
        if free and free[0][0] <= each.accepted:
            _, track = heapq.heappop(free)
        else:
            track = len(free)
            yield {"ph": "M", "pid": ARRAY, "tid": LAYERS + track, "name": "thread_name",
                   "args": {"name": "layers" if not track else f"layers that overlap, {track}"}}  # fmt: skip
        heapq.heappush(free, (each.written, track))
        rounds[each.number] = rounds.get(each.number, 0) + 1
        yield clock.slice(
            (ARRAY, LAYERS + track), run.name(each), each.accepted, each.written,
            layer=places[each.number], round=rounds[each.number] - 1, samples=list(run.samples),
            finished=each.finished, record=run.records[places[each.number]],
        )  # fmt: skip


def _tiles(run: ArrayRun, clock: _Clock) -> Iterator[Event]:
    tile = 0  # banks take turns over the whole run
    for each in run.events.rounds:
        name = run.name(each)
        if not each.segments:
            yield clock.slice((ARRAY, WRITE_BACK), f"{name}: elementwise", each.accepted, each.written)
            continue
        for number, rows in enumerate(each.tiles.reshape(-1, each.segments, each.tiles.shape[1])):
            for segment, row in enumerate(rows):
                which = f"{name}: tile {number}" + (f", segment {segment}" if each.segments > 1 else "")
                yield clock.slice((ARRAY, SCAN), which, row[ACCEPTED], row[PASSED])
                if row[FIRST_WORD] >= 0:
                    yield clock.slice((ARRAY, REFILL), which, row[FIRST_WORD], row[LAST_WORD] + 1)
            first, last = rows[0], rows[-1]
            yield clock.slice(
                (ARRAY, BANKS + tile % 2), f"{name}: tile {number}", first[ACCEPTED], last[WRITTEN] + 1,
                finished=int(last[FINISHED]),
            )  # fmt: skip
            yield clock.slice((ARRAY, WRITE_BACK), f"{name}: tile {number}", last[DRAIN], last[WRITTEN] + 1)
            tile += 1


def _busy_pes(run: ArrayRun, clock: _Clock, pes: int) -> Iterator[Event]:
    """How many PEs are busy, as means over equal spans of cycles."""
    end = max(run.events.end, 1)
    span = -(-end // BUCKETS)
    changes = np.zeros(end + 2, np.int64)
    for each in run.events.rounds:
        for pe in range(pes):
            begins, ends = run.events.selected(pe, int(each.before[pe]), int(each.after[pe]))
            np.add.at(changes, begins, 1)
            np.subtract.at(changes, ends, 1)
    busy = np.cumsum(changes)[:end]
    for first in range(0, end, span):
        value = round(float(busy[first : first + span].mean()), 2)
        yield {"ph": "C", "pid": ARRAY, "name": "busy PEs", "ts": clock.at(first),
               "args": {"busy PEs": value}}  # fmt: skip


def _pe(run: ArrayRun, clock: _Clock, pe: int) -> Iterator[Event]:
    """A PE in time: slices of entries of one layer that follow one another; where there are none it is starved."""
    spans = [_joined(*run.events.selected(pe, int(each.before[pe]), int(each.after[pe]))) for each in run.events.rounds]
    layers = np.repeat([_layer(run, each) for each in run.events.rounds], [len(begins) for begins, _ in spans])
    begins, ends = (np.concatenate([part[n] for part in spans]) for n in range(2))
    windows = [(since + 1, last + 1, run.image.numbers.index(number)) for number, since, last in run.events.counted]
    at, before = 0, -1
    for n in range(len(begins) + 1):
        begin = int(begins[n]) if n < len(begins) else windows[-1][1] if windows else 0
        while at < len(windows) and windows[at][1] <= before:
            at += 1
        for first, after, layer in windows[at:]:
            if first >= begin:
                break
            since, until = max(first, before), min(after, begin)
            if since < until:
                yield clock.slice((PES, pe), "starved", since, until, state="starved", layer=layer)
        if n < len(begins):
            before, layer = int(ends[n]), int(layers[n])
            yield clock.slice(
                (PES, pe), run.image.layers[layer].name, begin, before, state="busy", layer=layer
            )  # fmt: skip


def _layer(run: ArrayRun, each: Round) -> int:
    return run.image.numbers.index(each.number)


def _joined(begins: Int, ends: Int) -> tuple[Int, Int]:
    """Spans in order, those that touch as one."""
    if not len(begins):
        return begins, ends
    apart = np.flatnonzero(begins[1:] != ends[:-1])
    return begins[np.append(0, apart + 1)], ends[np.append(apart, len(ends) - 1)]
