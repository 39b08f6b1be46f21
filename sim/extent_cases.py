"""Runs as long as the fields of a descriptor allow, for the bench `sim.testbench.extents`.

Networks that fit a small array use the low bits of its counters alone. Here one extent of a program is as large as it
can be: positions of a window, tiles, samples, lines of a stream, rounds of a loop. Nothing is expected of such a run by
itself: its times and counters must lie on the line through those of two short ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth.lib import data

from hw.layouts import (
    Join,
    Op,
    descriptor,
    elementwise,
    entry,
    fields,
    loop,
    output_word,
    pointer_block,
    record,
)
from hw.params import LANES, SEGMENTS, Params
from sim.rtl.build import Build
from sim.rtl.engine import simulate

__all__ = ["EXTENTS", "FEW", "MOST", "observe_edges", "observe_extents", "packed", "wrong_extents"]

FEW = (33, 39)
"""Six apart, as many cycles as credit takes from a queue to the scan and back: what waits for it comes in turns of so
many vectors. MOST, and any other length in its place, is a multiple of six further."""
MOST = (1 << 16) - 1

_WEIGHT, _VALUE, _BIAS, _SHIFT = -29521, 321, 12345, 29
_MEETS = 38
"""Words of a tile that is written as long after it is opened as two descriptors of a slim array take to be fetched."""
_PITCH = -12345
"""Lines from round to round of a loop in which nothing moves."""


@dataclass(frozen=True)
class Program:
    """Descriptors, and samples of the run."""

    words: tuple[int, ...]
    batch: int = 1


def packed(layout: data.Layout, **values: int) -> int:
    """A word of a layout: all fields zero but these, and names of leaves with double underscores."""
    word = 0
    for name, first, width in fields(layout):
        word |= (values.pop(name.replace(".", "__"), 0) & (1 << width) - 1) << first
    if values:
        raise KeyError(f"a {layout} has no {', '.join(values)}")
    return word


class _Maker:
    """Programs of an array: a layer of one position that reads zeros, with some fields as they are given."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self.zeros = (params.act_lines - 1) * params.groups  # activation vector
        self.end = packed(descriptor(params), op=Op.END.value)

    def layer(self, **values: int) -> int:
        one = dict.fromkeys(
            ("vectors", "wy", "wx", "height", "width", "tiles_y", "tiles_x", "row_lines", "words", "first", "last",
             "uniform"), 1,
        )  # fmt: skip
        fixed = {"op": Op.SEGMENT.value, "source": self.zeros, "low": -32768, "high": 32767}
        return packed(descriptor(self.params), **{**one, **fixed, **values})

    def operation(self, **values: int) -> int:
        fixed = {"op": Op.ELEMENTWISE.value, "lines": 1, "low": -32768, "high": 32767, "scale_a": 3, "shift": 1}
        return packed(elementwise(self.params), **{**fixed, "a": self.params.act_lines - 1, **values})

    def alone(self, *, batch: int = 1, **values: int) -> Program:
        return Program((self.layer(**values), self.end), batch)

    def ring(self, rows: int, *, batch: int = 1, **values: int) -> Program:
        """A layer that reads a map of `rows` rows of one vector, row by row, from a ring of three."""
        groups = self.params.groups
        base = self.params.act_lines - 4
        stream = {
            "ring": 1, "stream_in": 1, "ring_base": base, "ring_rows": 3, "ring_row": groups, "ring_size": 3 * groups,
            "reach": 1, "step_y": 1, "tile_pitch_y": groups, "window_pitch": groups, "height": rows, "tiles_y": rows,
            "source": base * groups, "ring_skip": rows % 3, "ring_skip_size": rows % 3 * groups,
        }  # fmt: skip
        return self.alone(batch=batch, **{**stream, **values})

    def larger_ring(self, samples: int) -> Program:
        """Samples of three rows each in a ring of so many rows that the first one comes to lie at every place."""
        groups, rows = self.params.groups, 29
        row = (self.params.act_lines - 8) // rows * groups
        return self.ring(
            3, batch=samples, ring_base=4, source=4 * groups, ring_rows=rows, ring_row=row, ring_size=rows * row,
            tile_pitch_y=row, window_pitch=row, ring_skip=3, ring_skip_size=3 * row,
        )  # fmt: skip

    def rounds(self, count: int, *body: int) -> Program:
        back = packed(loop(self.params), op=Op.LOOP.value, first=0, count=count, pitch=_PITCH)
        return Program((*body, back, self.end))


def _extents(params: Params) -> dict[str, Callable[[int], Program]]:
    make = _Maker(params)
    wide = {"height": MOST, "width": MOST}
    found: dict[str, Callable[[int], Program]] = {
        "columns of a window": lambda n: make.alone(**wide, wx=n, dx=1),
        "rows of a window": lambda n: make.alone(**wide, wy=n, dy=1),
        "columns beside the map": lambda n: make.alone(wx=n, dx=255, y0=-1, x0=-32768, vectors=31, uniform=0,
                                                       position_pitch=-1, source=-1),
        "rows beside the map": lambda n: make.alone(wy=n, dy=255, y0=-32768, x0=-1, vectors=MOST, window_pitch=-1),
        "columns of tiles": lambda n: make.alone(**wide, tiles_x=n, step_x=1),
        "rows of tiles": lambda n: make.alone(**wide, tiles_y=n, step_y=1),
        "samples": lambda n: make.alone(batch=n),
        "samples that lie far apart": lambda n: make.alone(batch=n, frame=MOST, x0=-1, outputs=1),  # and write nothing
        "products": lambda n: make.alone(**wide, wx=n, dx=1, source=params.groups),
    }  # fmt: skip
    if params.elementwise:
        found["samples of an operation"] = lambda n: Program((make.operation(), make.end), n)
        found["rounds of a loop"] = lambda n: make.rounds(n, make.operation())
    if params.slim:  # the next layer is opened in the cycle in which one is written
        found["rounds of a loop of layers"] = lambda n: make.rounds(n, make.layer(words=_MEETS))
    if params.streams:
        found |= {
            "rows of a stream in": make.ring,
            "samples of a stream in": lambda n: make.ring(1, batch=n), "samples in a larger ring": make.larger_ring,
            "rows of a stream out": lambda n: make.alone(**wide, tiles_y=n, step_y=1, stream_out=1, out_rows=2,
                                                         tile_lines=1),
            "samples of a stream out": lambda n: make.alone(batch=n, stream_out=1, out_rows=2, tile_lines=1),
        }  # fmt: skip
    return found


EXTENTS = tuple(_extents(Params(pes=1)))
"""Names of all extents; `_extents` says which of them an array has."""


def _loads(params: Params) -> list[tuple[str, int, int, list[str]]]:
    """What all programs use: line 1 of values, the last one of zeros, and one entry for each lane of a vector."""
    one = sum((_VALUE & 0xFFFF) << 16 * lane for lane in range(LANES))
    stored = sum(packed(entry(params), code=1) << entry(params).size * lane for lane in range(LANES))
    blocks = packed(pointer_block(params), **{f"lengths__{lane}": 1 for lane in range(LANES)})
    flush = packed(output_word(params), flush=1)
    output = packed(output_word(params), bias=_BIAS, shift=_SHIFT, join=Join.START.value, last=1, flush=1)
    loads = [("CODEBOOK", 0, 0, [0, _WEIGHT & 0xFFFF])]
    loads += [("WEIGHTS", pe, 0, [stored]) for pe in range(params.pes)]
    loads += [("POINTERS", pe, 0, [blocks]) for pe in range(params.pes)]
    for group in range(params.groups):
        loads += [
            ("OUTPUTS", group, 0, [output, output & ~flush, *[0] * (_MEETS - 2)]),
            ("ACTIVATIONS", group, 0, [0, one]),
        ]
        loads += [("ACTIVATIONS", group, params.act_lines - 4, [0, 0, 0, 0])]
    return [(name, unit, at, [hex(word) for word in words]) for name, unit, at, words in loads]


def observe_extents(
    built: Build,
    params: Params,
    folder: Path,
    names: Sequence[str] = (),
    most: int = MOST,
    plusargs: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Run extents (all that the array has, if none is named) in three lengths each; what was observed.

    Raises
    ------
    RtlError
        The bench failed.
    """
    made = _extents(params)
    programs = [made[name](n) for name in names or made for n in (*FEW, most)]
    job = {
        "params": params.asdict(), "watchdog": 10_000_000, "loads": _loads(params),
        "programs": [([hex(word) for word in each.words], each.batch) for each in programs],
    }  # fmt: skip
    (folder / "job.json").write_text(json.dumps(job))
    simulate(built, "sim.testbench.extents", folder, plusargs=("+verilator+rand+reset+2", *plusargs))
    results: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())
    return results


def wrong_extents(
    params: Params, observed: Sequence[Mapping[str, Any]], names: Sequence[str] = (), most: int = MOST
) -> list[str]:
    """What of the observed is not as it must be, in words: an error, a time or counter off its line, a wrong sum."""
    wrong = []
    for number, name in enumerate(names or _extents(params)):
        runs = observed[3 * number : 3 * number + 3]
        if any(run["status"]["error"] for run in runs):
            wrong.append(f"{name}: ends with {[run['status'] for run in runs]}")
            continue
        found = [_numbers(params, run) for run in runs]
        for what in found[0]:
            one, two, last = (numbers[what] for numbers in found)
            expected = (one + (two - one) * (most - FEW[0]) // (FEW[1] - FEW[0])) % (1 << 32)
            if last != expected:
                wrong.append(f"{name}: {what} is {one}, {two}, {last} for {(*FEW, most)}; expected {expected} at last")
        if name == "products":
            half = 1 << (_SHIFT - 1)
            sums = [_BIAS + n * LANES * _WEIGHT * _VALUE for n in (*FEW, most)]
            wrapped = [(each + (1 << params.acc_bits - 1)) % (1 << params.acc_bits) - (1 << params.acc_bits - 1)
                       for each in sums]  # fmt: skip
            right = [max(-32768, min(32767, (each + half) >> _SHIFT)) & 0xFFFF for each in wrapped]
            got = [int(run["line"], 16) & 0xFFFF for run in runs]
            if got != right:
                wrong.append(f"{name}: the sums come to {got}; expected {right}")
    return wrong


def _numbers(params: Params, run: Mapping[str, Any]) -> dict[str, int]:
    """The times and counters of a run by name."""
    found = {"cycles": int(run["cycles"])}
    names = [str(name) for name, _ in record(params)]
    for number, word in enumerate(run["records"]):
        values = _unpacked(params, int(word, 16))
        found |= {f"{name} of record {number}": values[name] for name in names}
    return found


def _unpacked(params: Params, word: int) -> dict[str, int]:
    """The fields of a record."""
    return {name: word >> first & (1 << width) - 1 for name, first, width in fields(record(params))}


def _out_of_range(make: _Maker) -> list[tuple[Program, int]]:
    """Programs that leave the memory or wait for what cannot come; the descriptor at which each ends with RANGE."""
    lines, groups = make.params.act_lines, make.params.groups
    found = [
        (make.alone(source=lines * groups), 0),
        (make.alone(destination=lines), 0),
        (make.alone(vectors=2, pointers=make.params.pointer_blocks - 1, uniform=0, source=0), 0),
    ]
    if make.params.elementwise:  # the second sample is behind the memory
        found.append((Program((make.operation(frame=0x155), make.end), 3), 0))
    lacks = {"refill": make.params.refill, "functions": make.params.tables, "ring": make.params.streams}
    found += [(make.alone(**{name: 1}), 0) for name, there in lacks.items() if not there]
    # A layer in tiles of more segments than there may be; where no more descriptors are, it ends behind the last one.
    many = [make.layer(first=n == 0, last=0, tiles_x=2) for n in range(SEGMENTS + 1)]
    found.append((Program(tuple(many[: make.params.descriptors])), SEGMENTS))
    return [*found, *(_streams_out_of_range(make) if make.params.streams else ())]


def _streams_out_of_range(make: _Maker) -> list[tuple[Program, int]]:
    lines, groups = make.params.act_lines, make.params.groups
    behind_all = (0x5555, 0xAAAA)  # also as other numbers of a stream, so that each bit of them changes
    ring = make.ring(9, y0=-1, last=0).words[0]  # its rows are all beside the map: it waits for none
    behind = make.ring(9, y0=1, reach=3, first=0).words[0]
    return [
        (make.ring(9, ring_base=lines - 2), 0),  # the third row of the ring is behind the memory
        (make.ring(9, source=lines * groups), 0),  # a window is
        (Program((ring, behind, make.end)), 1),  # the first segment lets rows go, and this one needs more than may come
        (make.alone(stream_out=1, out_rows=1, tile_lines=2, destination=lines - 1), 1),  # a line to send is not there
        *((make.ring(n, ring_base=n, ring_rows=n, ring_row=n, ring_size=n), 0) for n in behind_all),
        *((make.alone(stream_out=1, out_rows=n, tile_lines=n >> 4, destination=n, tiles_y=n), 0) for n in behind_all),
    ]


def _held_up(make: _Maker) -> dict[str, Program]:
    """Programs whose streams stop: four layers that wait for a row each, and more rows than the host takes.

    Behind the four come two that wait for nothing, so that the counters of the waits begin again.
    """
    row, still = make.ring(1).words[0], make.layer()
    return {
        "waits": Program((row, row, row, row, still, still, make.end)),
        "fills": make.alone(height=MOST, width=MOST, tiles_y=60, step_y=1, stream_out=1, out_rows=40, tile_lines=1),
    }


def observe_edges(built: Build, params: Params, folder: Path, plusargs: Sequence[str] = ()) -> dict[str, Any]:
    """Offsets, bits, words and headers at their edges; "wrong", the first thing that is or None, and "seen", counts.

    Raises
    ------
    RtlError
        The bench failed.
    """
    make = _Maker(params)
    programs = {
        "long": make.alone(height=MOST, width=MOST, wx=2000, dx=1), "refill": make.alone(refill=int(params.refill)),
        "other": make.alone(refill=int(params.refill), buffer=1), "short": make.alone(),
    }  # fmt: skip
    job: dict[str, Any] = {name: [hex(word) for word in made.words] for name, made in programs.items()}
    job["output"] = hex(packed(output_word(params), join=Join.START.value, last=1, flush=1))
    job["faults"] = [([hex(word) for word in made.words], made.batch, index) for made, index in _out_of_range(make)]
    if params.streams:
        programs = _held_up(make)
        job |= {name: [hex(word) for word in made.words] for name, made in programs.items()}
    (folder / "job.json").write_text(json.dumps({"params": params.asdict(), **job}))
    simulate(built, "sim.testbench.edges", folder, plusargs=("+verilator+rand+reset+2", *plusargs))
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results
