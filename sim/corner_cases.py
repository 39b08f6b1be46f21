"""What may go wrong around a run: networks and refused programs for the bench `sim.testbench.corners`, and overlaps."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.lib import data
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.image.image import Image
from compiler.image.words import memory_words
from compiler.lower.build import build
from hw.layouts import Error, Memory, Op, descriptor, elementwise, fields, loop
from hw.params import SEGMENTS, Params
from sim import run as engines
from sim.cases import random_input, random_network
from sim.program import chunks, refill_stream
from sim.rtl.build import Build
from sim.rtl.engine import simulate

__all__ = ["MOMENTS", "Corners", "corner_cases", "corner_job", "observe", "overlap", "refused_otherwise"]

MOMENTS = 9
"""At which a run in tiles is abandoned."""
ENTRIES = (1500, 500, 2000)
_WILD = 2
"""Programs, the last, that add up what nothing reads."""

Refused = tuple[list[int], int, Error, int]


@dataclass(frozen=True)
class Corners:
    """Networks with their inputs, and programs that are refused: descriptors, samples, error, index of the end.

    wild : the last `_WILD` of these compute with what memories happen to hold.
    """

    params: Params
    images: tuple[Image, ...]
    inputs: tuple[dict[str, NDArray[np.int16]], ...]
    refused: tuple[Refused, ...]
    wild: bool


def _put(layout: data.Layout, word: int, **values: int) -> int:
    """A descriptor of a layout with fields replaced."""
    for name, first, width in fields(layout):
        if name in values:
            word = word & ~(((1 << width) - 1) << first) | (values[name] & (1 << width) - 1) << first
    return word


def _network(rng: np.random.Generator, params: Params, wanted: int, batch: int, tiles: int = 0) -> Image:
    """A random network of at least `wanted` entries, so that it can be caught in the middle, in so many tiles."""
    while True:
        with contextlib.suppress(ImageError):
            image = build(random_network(rng, params), params)
            entries = sum(layer.entries for layer in image.layers)
            refills = sum(step.refill for steps in image.steps for step in steps)
            enough = wanted < entries < 12000 and len(image.layers) > 1 and image.frame * batch <= params.act_lines
            if enough and (refills >= tiles if tiles else not refills):
                return image


def _refused(image: Image) -> list[Refused]:
    """Programs that are refused, all but a few fields as in a network."""
    params = image.params

    def put(word: int, **values: int) -> int:
        return _put(descriptor(params), word, **values)

    words = memory_words(image)[Memory.DESCRIPTORS][0]
    end = words[-1]
    legal = put(words[0], first=1, last=1, chained=0, tiles_y=1, tiles_x=1)
    beyond = params.act_lines * params.groups  # activation vectors
    inside = {"y0": 0, "x0": 0, "height": 99, "width": 99}
    sizes = ("vectors", "wy", "wx", "height", "width", "tiles_y", "tiles_x", "row_lines", "words")
    two = {"tiles_x": 2, "first": 0, "last": 0}
    return [
        ([put(legal, op=Op.ILLEGAL.value), end], 1, Error.OPCODE, 0),
        ([put(legal, op=4), end], 1, Error.OPCODE, 0),
        ([legal, put(legal, op=14), end], 1, Error.OPCODE, 1),
        ([put(legal, reserved9=1), end], 1, Error.RESERVED, 0),
        ([legal, put(legal, reserved11=1 << 7), end], 1, Error.RESERVED, 1),
        ([put(end, reserved2=5)], 1, Error.RESERVED, 0),
        *(([put(legal, **{size: 0}), end], 1, Error.RANGE, 0) for size in sizes),
        ([legal, end], 0, Error.RANGE, 0),  # no samples
        ([put(legal, codebook=params.codebooks), end], 1, Error.RANGE, 0),
        ([put(legal, pointers=params.pointer_blocks), end], 1, Error.RANGE, 0),
        ([put(legal, outputs=params.output_words, words=1), end], 1, Error.RANGE, 0),
        ([put(legal, outputs=params.output_words - 1, words=2), end], 1, Error.RANGE, 0),
        ([put(legal, low=5, high=4), end], 1, Error.RANGE, 0),
        ([put(legal, low=0, high=-1), end], 1, Error.RANGE, 0),
        # Addresses that leave their memory while the window is scanned, or the results are written.
        ([put(legal, source=beyond, **inside), end], 1, Error.RANGE, 0),
        ([put(legal, destination=0xFFFF), end], 1, Error.RANGE, 0),
        ([put(legal, destination=0, frame=params.act_lines), end], 2, Error.RANGE, 0),
        # A layer that begins in another, ends before it is complete, or does not begin.
        ([put(legal, last=0), legal, end], 1, Error.RANGE, 1),
        ([put(legal, last=0), end], 1, Error.RANGE, 1),
        ([legal, put(legal, first=0), end], 1, Error.RANGE, 1),
        ([put(legal, tiles_x=2, last=0), *[put(legal, **two)] * SEGMENTS, end], 1, Error.RANGE, SEGMENTS),
        # Sums that were kept for a segment that does not come: written back, and the next run starts from zero.
        ([put(legal, last=0), put(legal, first=0, last=0), put(end, reserved3=1)], 1, Error.RESERVED, 2),
        *_refused_operations(params, legal, end),
        *_refused_streams(params, legal, end),
        # A refused tile takes nothing from the stream (which is empty here) and waits for nothing.
        ([put(legal, refill=1, words=0), end], 1, Error.RANGE, 0),
        ([put(legal, refill=1, tiles_y=2), end], 1, Error.RANGE, 0),
        ([legal] * params.descriptors, 1, Error.RANGE, params.descriptors),  # no END anywhere
        # The pointers of these lead anywhere, and so do the sums: a restart must follow.
        ([put(legal, source=0, wy=1, wx=1, vectors=beyond + 1, pointers=0, **inside), end], 1, Error.RANGE, 0),
        ([put(legal, source=0, wy=1, wx=1, vectors=3, pointers=params.pointer_blocks - 1, **inside), end], 1,
         Error.RANGE, 0),
    ]  # fmt: skip


def _reserved(layout: data.Layout) -> Iterator[tuple[str, int]]:
    """The lowest and the highest bit of each reserved field, as a value of it."""
    for name, _, width in fields(layout):
        if name.startswith("reserved"):
            yield from dict.fromkeys([(name, 1), (name, 1 << (width - 1))])


def _refused_operations(params: Params, legal: int, end: int) -> list[Refused]:
    """Operations and ends of loops. What is accepted before one is carried out."""
    operation, ends = elementwise(params), loop(params)
    fits = _put(operation, 0, op=Op.ELEMENTWISE.value, lines=1, result=0, low=-5, high=4, frame=1)
    back = _put(ends, 0, op=Op.LOOP.value, first=0, count=1)

    def wrong(layout: data.Layout, word: int, **values: int) -> Refused:
        return [legal, _put(layout, word, **values), end], 1, Error.RANGE, 1

    inside = _put(descriptor(params), legal, last=0)
    found: list[Refused] = [
        wrong(ends, back, count=0), wrong(ends, back, first=1), wrong(ends, back, first=0xFFFF),
        ([legal, back, back, end], 1, Error.RANGE, 2),  # it leads into the loop before
        ([legal, back, _put(ends, back, first=1), end], 1, Error.RANGE, 2),
        ([inside, back, end], 1, Error.RANGE, 1),
        *(([legal, _put(ends, back, **{name: value}), end], 1, Error.RESERVED, 1) for name, value in _reserved(ends)),
    ]  # fmt: skip
    if not params.elementwise:
        return [*found, ([fits, end], 1, Error.OPCODE, 0)]
    tables = range(params.tables, 8)
    return [
        *found, ([fits, end], 0, Error.RANGE, 0), wrong(operation, fits, lines=0), wrong(operation, fits, low=5),
        wrong(operation, fits, low=-1, high=-2), wrong(operation, fits, has_e=1),
        wrong(operation, fits, a=params.act_lines), wrong(operation, fits, result=params.act_lines),
        *(wrong(operation, fits, functions=1, table_1=table) for table in tables),
        ([inside, fits, end], 1, Error.RANGE, 1),
        *(([legal, _put(operation, fits, **{name: value}), end], 1, Error.RESERVED, 1)
          for name, value in _reserved(operation)),
    ]  # fmt: skip


def _refused_streams(params: Params, legal: int, end: int) -> list[Refused]:
    """Layers whose maps stream, or have functions, that cannot be; none of them takes a beat."""
    layout = descriptor(params)
    ring = {
        "chained": 0, "moves_source": 0, "ring": 1, "stream_in": 1, "reach": 2, "ring_rows": 3, "ring_row": 1, "dy": 1,
        "step_y": 1, "y0": 0, "ring_size": 3,
    }  # fmt: skip
    sent = {"stream_out": 1, "out_rows": 1, "tile_lines": 1, "moves_result": 0}
    rings = (
        {"ring_rows": 0}, {"ring_row": 0}, {"ring": 0}, {"stream_in": 0}, {"chained": 1}, {"moves_source": 1},
        {"reach": 0}, {"reach": 4}, {"dy": 4}, {"step_y": 4}, {"y0": 4}, {"y0": -4},
    )  # fmt: skip
    outs = ({"out_rows": 0}, {"tile_lines": 0}, {"moves_result": 1})
    tables = [(n, table) for n in (1, 2) for table in range(params.tables, 8)]
    wrong = [{**ring, **each} for each in rings] + [{**sent, **each} for each in outs]
    wrong += [{"functions": 1, f"table_{n}": table} for n, table in tables]
    kept = [([legal, _put(layout, legal, **{name: value}), end], 1, Error.RESERVED, 1) for name, value in
            _reserved(layout)]  # fmt: skip
    return [*(([_put(layout, legal, **values), end], 1, Error.RANGE, 0) for values in wrong), *kept]


def corner_cases(params: Params, seed: int, entries: tuple[int, int, int] = ENTRIES, *, wild: bool = True) -> Corners:
    """Three networks, the last one in tiles, and what is refused, by a seed.

    entries : that the networks have at least. wild : with programs that compute with what memories happen to hold, so
        that their time is not defined.
    """
    rng = np.random.default_rng(seed)
    batches = (1, 3, 2)
    images = (
        _network(rng, params, entries[0], 1), _network(rng, params, entries[1], 3),
        _network(rng, params, entries[2], 2, tiles=4),
    )  # fmt: skip
    inputs = []
    for n, (image, batch) in enumerate(zip(images, batches, strict=True)):
        maps = [image.maps[number] for number in image.inputs]
        x = {info.name: random_input(rng, (info.height, info.width, info.channels), batch) for info in maps}
        if n != 1:  # dense: long enough to be interrupted
            x = {name: rng.integers(-32768, 32768, raw.shape).astype(np.int16) for name, raw in x.items()}
        inputs.append(x)
    refused = _refused(images[0])
    return Corners(params, images, tuple(inputs), tuple(refused if wild else refused[:-_WILD]), wild)


def corner_job(cases: Corners, moments: int = MOMENTS) -> dict[str, Any]:
    """What the bench reads as ``job.json``. moments : at which a run in tiles is abandoned."""
    networks = []
    for image, x in zip(cases.images, cases.inputs, strict=True):
        (part,) = chunks(image, engines.check_input(image, x)[0])
        words = {m.name: [[hex(w) for w in unit] for unit in units] for m, units in memory_words(image).items()}
        lines = [
            [hex(int.from_bytes(line.astype("<i2").tobytes(), "little")) for line in bank]
            for bank in part.inputs.transpose(1, 0, 2)
        ]
        networks.append({"words": words, "inputs": lines, "batch": part.count, "lines": len(part.inputs),
                         "records": len(image.descriptors) - 1,
                         "tiles": refill_stream(image, part.count).tobytes().hex()})  # fmt: skip
    illegal = [
        ([hex(word) for word in words], batch, cases.wild and n >= len(cases.refused) - _WILD)
        for n, (words, batch, *_) in enumerate(cases.refused)
    ]
    return {"params": cases.params.asdict(), "watchdog": 2_000_000, "networks": networks, "moments": moments,
            "seed": 1, "illegal": illegal}  # fmt: skip


def observe(
    built: Build, cases: Corners, folder: Path, plusargs: Sequence[str] = (), moments: int = MOMENTS
) -> dict[str, Any]:
    """Run all scenarios in `folder`; what was observed.

    Raises
    ------
    RtlError
        The bench failed.
    """
    return _bench(built, "corners", corner_job(cases, moments), folder, ("+verilator+seed+7", *plusargs))


def refused_otherwise(cases: Corners, observed: Mapping[str, Any]) -> str | None:
    """The first refused program that did not end as expected, in words."""
    for n, (outcome, (*_, error, index)) in enumerate(zip(observed["illegal"], cases.refused, strict=True)):
        got = Error(outcome["status"]["error"]), outcome["status"]["index"]
        if got != (error, index):
            return f"refused program {n} ends with {got[0].name} at {got[1]}, expected {error.name} at {index}"
    return None


def overlap(
    built: Build, params: Params, seed: int, folder: Path, plusargs: Sequence[str] = (), rounds: int = 8
) -> dict[str, Any]:
    """Three hosts at once at the host port; "wrong", the first thing that is or None, and "seen", counts.

    Raises
    ------
    RtlError
        The bench failed.
    """
    job = {"params": params.asdict(), "seed": seed, "rounds": rounds}
    return _bench(built, "overlap", job, folder, plusargs)


def _bench(built: Build, name: str, job: Mapping[str, Any], folder: Path, plusargs: Sequence[str]) -> dict[str, Any]:
    """Run a bench of `sim.testbench` from registers with random contents; its results."""
    (folder / "job.json").write_text(json.dumps(job))
    simulate(built, f"sim.testbench.{name}", folder, plusargs=("+verilator+rand+reset+2", *plusargs))
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results
