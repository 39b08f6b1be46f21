"""What must hold for rings: a layer streams its maps off chip, and its windows find their rows."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.errors import ImageError
from compiler.image.image import Image, LayerInfo
from compiler.image.rings import ring_offsets, rows_needed
from compiler.image.steps import LoopStep, Step

__all__ = ["check_streams"]

_IN = ("ring_base", "ring_rows", "ring_row", "ring_size", "ring_skip", "ring_skip_size")
"""Fields that are zero unless something streams in."""


def _require(good: bool, message: str) -> None:
    if not good:
        raise ImageError(message)


def check_streams(image: Image) -> None:
    """Check the rings of each layer; that its segments agree on them is checked with the other descriptors."""
    looped = [
        range(step.first, number) for number, step in enumerate(image.program) if isinstance(step, LoopStep)
    ]  # fmt: skip
    for number, (info, steps) in enumerate(zip(image.layers, image.steps, strict=True)):
        reads = {source for source in info.sources if image.maps[source].off_chip}
        writes = image.maps[info.result].off_chip
        if number in image.operations:
            _require(not reads and not writes, f"{info.name}: an elementwise operation of a map off chip")
            continue
        step = steps[0]
        for name, wanted in (("stream_in", bool(reads)), ("stream_out", writes)):
            _require(
                getattr(step, name) == wanted, f"{info.name}: {name} is {getattr(step, name)}; expected {wanted:d}"
            )
        if reads or writes:
            inside = any(image.numbers[number] in each for each in looped)
            _require(not inside, f"{info.name}: a layer of a loop streams maps")
            _require(not step.refill, f"{info.name}: a layer whose weights are streamed streams maps as well")
        _check_in(image, number, steps)
        _check_out(image, info, step)


def _check_in(image: Image, number: int, steps: Sequence[Step]) -> None:
    """The ring of what a layer reads."""
    info, step, groups = image.layers[number], steps[0], image.params.groups
    for each, part in zip(steps, info.parts, strict=True):
        ring = image.maps[info.sources[part]].off_chip
        reach = (each.wy - 1) * each.dy + 1 if ring else 0
        good = each.ring == ring and each.reach == reach and not (ring and each.chained)
        _require(good, f"{info.name}: ring {each.ring}, reach {each.reach}, chained {each.chained} of a segment; "
                       f"expected ring {ring:d}, reach {reach}, and only maps on chip chained")  # fmt: skip
    if not step.stream_in:
        given = {name: getattr(step, name) for name in _IN if getattr(step, name)}
        _require(not given, f"{info.name}: {given} of a ring, but nothing streams in")
        return
    offsets, row = ring_offsets(image, number)
    rings = [each for each in steps if each.ring]
    heights = {image.maps[source].height for source in offsets}
    _require(len(heights) == 1, f"{info.name}: maps of {sorted(heights)} rows stream in together; expected one height")
    (height,) = heights
    _require(step.ring_rows > 0, f"{info.name}: a ring of no rows")
    skip = height % step.ring_rows
    expected = {"ring_row": row, "ring_size": step.ring_rows * row, "ring_skip": skip, "ring_skip_size": skip * row}
    for name, value in expected.items():
        _require(getattr(step, name) == value, f"{info.name}: {name} is {getattr(step, name)}; expected {value}")
    top = min(each.y0 for each in rings)
    good = bool(step.ring) and step.y0 == top
    _require(good, f"{info.name}: its first segment begins in row {step.y0}, ring {step.ring}; expected the one of the "
                   f"ring that begins highest, in row {top}")  # fmt: skip
    steps_y = {each.step_y for each in rings}
    _require(
        len(steps_y) == 1, f"{info.name}: its windows in the ring move by {sorted(steps_y)} rows; expected one step"
    )
    needed = rows_needed(height, [(each.y0, each.wy, each.dy) for each in rings], step.step_y, step.tiles_y)
    _require(needed <= step.ring_rows, f"{info.name}: a ring of {step.ring_rows} rows; its windows need {needed}")
    room = image.rings * groups
    _require(step.ring_base * groups + step.ring_size <= room, f"{info.name}: its ring leads into the frames")


def _check_out(image: Image, info: LayerInfo, step: Step) -> None:
    """The ring of a result."""
    if not step.stream_out:
        _require(not step.out_rows, f"{info.name}: out_rows is {step.out_rows}, but nothing streams out")
        return
    result = image.maps[info.result]
    _require(step.out_rows > 0, f"{info.name}: a ring of no rows of tiles")
    lines = step.tiles_y * step.tile_lines
    _require(result.lines == lines, f"{info.name}: {lines} lines are sent; its map has {result.lines}")
    _require(step.row_lines == step.column_lines, f"{info.name}: it streams a part of each pixel")
    low, high = step.destination, step.destination + step.out_rows * step.tile_lines
    begin, end = step.ring_base, step.ring_base + -(-step.ring_size // image.params.groups)
    _require(high <= begin or end <= low or not step.stream_in, f"{info.name}: its two rings lie on the same lines")
