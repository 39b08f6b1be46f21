"""What must hold for the descriptors of an image: they agree with its maps, and lead out of no memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from amaranth.lib import data
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.image.image import Image, LayerInfo, MapInfo
from compiler.image.order import flags
from compiler.image.rings import ring_offsets
from compiler.image.steps import AnyStep, ElementwiseStep, LoopStep, Step
from hw.layouts import Op, descriptor, elementwise, fields, loop
from hw.params import FUNCTIONS, SEGMENTS, Params

__all__ = ["check_steps"]

_WRAP = (1 << 24) - 1
"""Addresses of activation vectors wrap, as those of the array do."""

MAX_ROUNDS = 1 << 20
"""Descriptors that loops may run: images are followed step by step."""

_OF_LAYER = (
    "tiles_y", "tiles_x", "destination", "row_lines", "row_pitch", "tile_lines", "column_lines", "outputs", "words",
    "frame", "low", "high", "maximum", "refill", "moves_result", "functions", "table_1", "left_1", "right_1", "table_2",
    "left_2", "right_2", "stream_in", "stream_out", "out_rows", "ring_base", "ring_rows", "ring_row", "ring_size",
    "ring_skip", "ring_skip_size",
)  # fmt: skip
"""Fields that all segments of a layer have alike."""

_OF_SEGMENT = ("codebook", "moves_source", "wx", "dy", "dx", "x0", "step_y", "step_x", "uniform")
"""Fields that all strips of a segment have alike, beside what its map decides."""


def _require(good: bool, message: str) -> None:
    if not good:
        raise ImageError(message)


def check_steps(image: Image) -> None:
    """Descriptors walk the maps, the pointer blocks and the output table without a gap, as the packer lays them out."""
    params = image.params
    ends = _fields(descriptor(params), image.descriptors[-1])
    _require(ends == {**dict.fromkeys(ends, 0), "op": Op.END.value}, "the last descriptor is not END and nothing else")
    _require(len(image.program) == len(image.descriptors) - 1, f"descriptor {len(image.program)} has an unknown op")
    for number, step in enumerate(image.program):
        _require(not (image.descriptors[number] & _reserved(_layout(step, params))).any(),
                 f"a reserved bit of descriptor {number} is set")  # fmt: skip
    _check_loops(image)
    pointers = outputs = streamed = 0
    for place_of, (layer, number, steps) in enumerate(zip(image.layers, image.numbers, image.steps, strict=True)):
        if place_of in image.operations:
            _require(layer.descriptors == 1, f"{layer.name}: an operation of {layer.descriptors} descriptors")
            check_operation(image, place_of, number)
            continue
        _require(len(steps) == layer.descriptors, f"{layer.name}: other descriptors stand between its segments")
        pointers, streamed = _check_segments(image, place_of, steps, number, pointers, streamed)
        _exact(steps[0], number, {"outputs": outputs, "frame": image.frame})
        outputs += steps[0].words
    _check_blocks(image)
    chained, barrier = flags(image)
    for number, step in enumerate(image.program):
        if isinstance(step, Step):
            _exact(step, number, {"chained": int(number in chained), "barrier": int(number in barrier)})
    _require(pointers == image.pointers.shape[1], f"pointers have {image.pointers.shape[1]} words; expected {pointers}")
    _require(outputs == image.table.shape[1], f"table has {image.table.shape[1]} words; expected {outputs}")


def _check_segments(
    image: Image, place_of: int, steps: list[Step], number: int, pointers: int, streamed: int
) -> tuple[int, int]:
    """The segments of a layer from descriptor `number` on; pointer blocks and streamed tiles up to its end."""
    params, layer = image.params, image.layers[place_of]
    _check_result(layer, steps[0], image)
    _require(
        steps[0].tiles == 1 or len(steps) <= SEGMENTS,
        f"{layer.name}: {len(steps)} segments in {steps[0].tiles} tiles; expected at most {SEGMENTS}",
    )
    if steps[0].refill:
        _require(list(layer.parts) == sorted(layer.parts), f"{layer.name}: its ranges are not in order of segments")
    else:
        pointers = _check_strips(image, place_of, steps, number, pointers)
    offsets, _ = ring_offsets(image, place_of)
    for place, (step, part) in enumerate(zip(steps, layer.parts, strict=True)):
        at = number + place
        _exact(step, at, {
            "op": Op.SEGMENT.value, "first": int(place == 0), "last": int(place == len(steps) - 1),
            "dense": step.maximum, **{name: getattr(steps[0], name) for name in _OF_LAYER},
        })  # fmt: skip
        good = step.codebook < len(image.codebooks)
        _require(good, f"descriptor {at}: codebook {step.codebook}; there are {len(image.codebooks)}")
        source = image.maps[layer.sources[part]]
        if step.refill:
            _check_range(step, at, source, params)
            _exact(step, at, {"buffer": streamed % 2, "moves_source": 0, "uniform": 0})
            streamed += 1
        else:
            _check_window(step, at, source, params.groups, offsets.get(layer.sources[part]))
            _exact(step, at, {"buffer": 0})
    check_functions(image, steps[0], number, FUNCTIONS)
    return pointers, streamed


def check_functions(image: Image, step: Step | ElementwiseStep, number: int, most: int) -> None:
    """Functions name tables that are there; without functions their fields are zero."""
    for n in range(1, most + 1):
        names = [f"{name}_{n}" for name in ("table", "left", "right")]
        if step.functions:
            table = getattr(step, names[0])
            _require(
                table < len(image.functions), f"descriptor {number}: table {table}; there are {len(image.functions)}"
            )
        else:
            _exact(step, number, dict.fromkeys(names, 0))


def check_operation(image: Image, layer: int, number: int) -> None:
    """An elementwise operation reads and writes whole parts of the maps that its layer names."""
    params, info, step = image.params, image.layers[layer], image.operations[layer]
    _require(params.elementwise, f"descriptor {number}: an elementwise operation, which the array does not have")
    names = [name for name in "abce" if name == "a" or getattr(step, f"has_{name}")]
    _require(
        bool(step.has_c) or not step.has_e, f"descriptor {number}: the second factor of a product that is not there"
    )
    _require(len(names) == len(info.sources), f"{info.name}: {len(names)} operands read {len(info.sources)} maps")
    _require(step.low <= step.high, f"{info.name}: limits {step.low} to {step.high}")
    _exact(step, number, {"frame": image.frame})
    absent = {name: 0 for other in "bce" if other not in names for name in (other, f"moves_{other}")}
    _exact(step, number, absent)
    limit = 1 << (params.acc_bits - 1)
    _require(-limit <= step.offset < limit, f"{info.name}: offset {step.offset} does not fit {params.acc_bits} bits")
    for name, source in (*zip(names, info.sources, strict=True), ("result", info.result)):
        each, first = image.maps[source], getattr(step, name)
        inside = each.base <= first and first + step.lines <= each.base + each.lines
        _require(step.lines > 0 and inside, f"{info.name}: {name} is lines {first} to {first + step.lines}; "
                 f"{each.name} has {each.base} to {each.base + each.lines}")  # fmt: skip
    check_functions(image, step, number, 1)


def _check_loops(image: Image) -> None:
    """Loops begin at a layer, do not overlap, and end in reasonable time."""
    free = rounds = 0
    looped: set[int] = set()
    begins = set(image.numbers)
    for number, step in enumerate(image.program):
        if isinstance(step, LoopStep):
            good = free <= step.first < number and step.first in begins and step.count > 0
            _require(good, f"descriptor {number}: a loop of {step.count} rounds from descriptor {step.first} on")
            rounds += step.count * (number - step.first)
            free = number + 1
            looped |= set(range(step.first, number))
    for number, step in enumerate(image.program):
        if number not in looped and not isinstance(step, LoopStep):
            moves = [field.name for field in dataclasses.fields(step) if field.name.startswith("moves_")]
            _exact(step, number, dict.fromkeys(moves, 0))
    _require(rounds <= MAX_ROUNDS, f"its loops run {rounds} descriptors; expected at most {MAX_ROUNDS}")


def _exact(step: AnyStep, number: int, values: dict[str, int]) -> None:
    for name, value in values.items():
        found = getattr(step, name)
        _require(found == value, f"descriptor {number}: {name} is {found}; expected {value}")


def _check_blocks(image: Image) -> None:
    """The layers that write one map, its blocks, write all of its vectors once."""
    written: dict[int, list[tuple[int, int]]] = {}
    for layer, steps in zip(image.layers, image.steps, strict=True):
        if steps and not steps[0].moves_result:
            result = image.maps[layer.result]
            inside = 0 if result.off_chip else steps[0].destination - result.base
            written.setdefault(layer.result, []).append((inside, steps[0].row_lines))
    for number, blocks in written.items():
        result = image.maps[number]
        if result.planes > 1:
            wanted = [(n * result.plane_lines, blocks[0][1]) for n in range(result.planes)]
            _require(blocks == wanted, f"{result.name}: its planes are written at lines {blocks}; expected {wanted}")
        elif len(blocks) > 1:
            ends = [0, *(first + count for first, count in blocks)]
            good = [first for first, _ in blocks] == ends[:-1] and ends[-1] * image.params.groups >= result.vectors
            _require(good, f"{result.name}: its blocks are written at lines {blocks}, not one behind the other")


def _check_strips(image: Image, place_of: int, steps: Sequence[Step], first: int, pointers: int) -> int:
    """Segments follow one another, the planes of each, and the strips of these; the pointer block behind the last."""
    layer, groups = image.layers[place_of], image.params.groups
    offsets, _ = ring_offsets(image, place_of)
    for segment, source in enumerate(layer.sources):
        mine = [(first + n, steps[n]) for n, part in enumerate(layer.parts) if part == segment]
        _require(bool(mine), f"{layer.name}: segment {segment} has no descriptor")
        like = mine[0][1]
        spans: dict[int, list[tuple[int, Step]]] = {}
        for number, step in mine:
            _exact(step, number, {name: getattr(like, name) for name in _OF_SEGMENT})
            spans.setdefault(_plane(step, image.maps[source], groups, offsets.get(source)), []).append((number, step))
        if like.uniform:
            _check_uniform(layer, segment, mine, len(spans))
        for plane in sorted(spans):
            y0, vectors = like.y0, spans[plane][0][1].vectors
            for number, step in spans[plane]:
                _exact(step, number, {"pointers": pointers, "y0": y0, "vectors": vectors})
                pointers += step.pointer_blocks
                y0 += step.wy * step.dy
    return pointers


def _check_uniform(layer: LayerInfo, segment: int, mine: Sequence[tuple[int, Step]], spans: int) -> None:
    """A segment with one weight for all positions is whole, and read by one pixel: its window is the kernel."""
    kernel = layer.windows[8 * segment : 8 * segment + 2]
    good = len(mine) == spans and layer.tile_y == layer.tile_x == 1 and layer.pool[:2] == (1, 1)
    for number, step in mine:
        _require(
            good and (step.wy, step.wx) == kernel and step.positions > 1,
            f"descriptor {number}: uniform, with {step.wy} x {step.wx} positions of a window of {layer.tile_y} x "
            f"{layer.tile_x} pixels and a kernel of {' x '.join(map(str, kernel))}; expected the kernel of one pixel",
        )


def _offset(step: Step, source: MapInfo, groups: int, ring: int | None) -> int:
    """Activation vectors from the first one of the map to those that a window reads of pixel (0, 0).

    ring : where the map's row begins in a row of the ring, if it is off chip.
    """
    if ring is None:
        first = source.base * groups + step.y0 * source.row
    else:
        first = step.ring_base * groups + step.y0 % max(1, step.ring_rows) * step.ring_row + ring
    return (step.source - first - step.x0 * source.pitch) & _WRAP


def _plane(step: Step, source: MapInfo, groups: int, ring: int | None) -> int:
    """The plane that a window reads."""
    return _offset(step, source, groups, ring) // (source.plane_lines * groups)


def _check_window(step: Step, number: int, source: MapInfo, groups: int, ring: int | None) -> None:
    """A segment's window reads its map, and nothing beyond; `ring` as of `_offset`."""
    _require(step.wy > 0 and step.wx > 0, f"descriptor {number}: a window of {step.wy} x {step.wx} positions")
    row = source.row if ring is None else step.ring_row
    pitches = {
        "position_pitch": step.dx * source.pitch, "window_pitch": step.dy * row,
        "tile_pitch_x": step.step_x * source.pitch, "tile_pitch_y": step.step_y * row,
    }  # fmt: skip
    _exact(step, number, {
        "height": source.height, "width": source.width, **{name: value & _WRAP for name, value in pitches.items()},
    })  # fmt: skip
    plane, vector = divmod(_offset(step, source, groups, ring), source.plane_lines * groups)
    good = plane < source.planes and 0 < step.vectors <= source.plane - vector
    _require(good, f"descriptor {number}: {step.vectors} vectors from {step.source} on are not of a pixel of "
                   f"{source.name}")  # fmt: skip


def _check_range(step: Step, number: int, source: MapInfo, params: Params) -> None:
    """A streamed range lies in the map of its segment."""
    _require(params.refill, f"descriptor {number}: refill, which the array does not have")
    _exact(step, number, {
        **dict.fromkeys(("tiles_y", "tiles_x", "wy", "wx", "height", "width"), 1), "y0": 0, "x0": 0,
    })  # fmt: skip
    _require(step.vectors > 0, f"descriptor {number}: a range of no vectors")
    last = step.pointers + step.vectors
    _require(last <= params.pointer_blocks, f"descriptor {number}: its pointer blocks do not fit the array")
    low, high = source.base * params.groups, (source.base + source.lines) * params.groups
    good = low <= step.source and step.source + step.vectors <= high
    _require(good, f"descriptor {number}: vectors from {step.source} on are not all of {source.name}")


def _check_result(layer: LayerInfo, step: Step, image: Image) -> None:
    """The tiles of a layer lie in its map, and cover it; in a loop it may make one pixel of it."""
    name, groups, result = layer.name, image.params.groups, image.maps[layer.result]
    good = step.tiles_y * layer.tile_y >= result.height and step.tiles_x * layer.tile_x >= result.width
    if step.moves_result:
        good = step.tiles_y == step.tiles_x == layer.tile_y == layer.tile_x == 1 and result.height == 1
        good = good and result.pitch % groups == 0
    _require(good, f"{name}: {step.tiles_y} x {step.tiles_x} tiles of {layer.tile_y} x {layer.tile_x} pixels; "
                   f"its map has {result.height} x {result.width}")  # fmt: skip
    _require(step.low <= step.high, f"{name}: limits {step.low} to {step.high}")
    if result.planes > 1:
        _check_plane(layer, step, result, groups)
        return
    row_lines, rest = divmod(result.row, groups)
    _require(not rest, f"{name}: rows of its map are {result.row} vectors apart; expected whole lines")
    expected = {"row_pitch": row_lines, "tile_lines": layer.tile_y * row_lines}
    for field, value in expected.items():
        _require(getattr(step, field) == value, f"{name}: {field} is {getattr(step, field)}; expected {value}")
    good = layer.tile_x * result.pitch == step.column_lines * groups
    _require(good, f"{name}: column_lines is {step.column_lines}; a tile has {layer.tile_x} x {result.pitch} vectors")
    # A block begins behind the vectors of others.
    inside = 0 if result.off_chip else step.destination - result.base
    if step.moves_result and inside >= 0:
        inside %= result.pitch // groups
    good = 0 <= inside and 0 < step.row_lines <= step.column_lines - inside
    _require(good, f"{name}: {step.row_lines} lines from {step.destination} on are not in a pixel of its map")
    last = (step.tiles_y * layer.tile_y - 1) * row_lines + (step.tiles_x - 1) * step.column_lines
    _require(last + inside + step.row_lines <= result.lines, f"{name}: its tiles lead out of its map")
    _require(step.tiles_x * step.column_lines <= row_lines, f"{name}: its tiles are wider than a row of its map")


def _check_plane(layer: LayerInfo, step: Step, result: MapInfo, groups: int) -> None:
    """The tiles of a layer that makes a plane are whole rows, one behind the other."""
    name, lines = layer.name, -(-layer.tile_y * result.row // groups)
    good = step.tiles_x == 1 and layer.tile_x == result.width and not step.moves_result
    _require(good, f"{name}: {step.tiles_x} tiles of {layer.tile_x} pixels in a row; expected 1 of {result.width}")
    _require(result.row == result.width * result.pitch, f"{name}: its map has gaps between its rows")
    whole = step.tiles_y == 1 or layer.tile_y * result.row % groups == 0
    _require(whole, f"{name}: tiles of {layer.tile_y} x {result.row} vectors; expected whole lines")
    for field in ("row_lines", "row_pitch", "tile_lines", "column_lines"):
        _require(getattr(step, field) == lines, f"{name}: {field} is {getattr(step, field)}; expected {lines}")
    good = step.tiles_y * lines <= result.plane_lines
    _require(good, f"{name}: its tiles lead out of a plane of {result.plane_lines} lines")


def _layout(step: AnyStep, params: Params) -> data.StructLayout:
    if isinstance(step, ElementwiseStep):
        return elementwise(params)
    return loop(params) if isinstance(step, LoopStep) else descriptor(params)


def _reserved(layout: data.StructLayout) -> NDArray[np.uint8]:
    """The bits of a descriptor that mean nothing, as a mask."""
    bits = np.ones(-(-layout.size // 8) * 8, np.uint8)
    for name, first, width in fields(layout):
        if not name.startswith("reserved"):
            bits[first : first + width] = 0
    return np.packbits(bits, bitorder="little")


def _fields(layout: data.Layout, word: NDArray[np.uint8]) -> dict[str, int]:
    value = int.from_bytes(word.tobytes(), "little")
    return {name: value >> first & ((1 << width) - 1) for name, first, width in fields(layout)}
