"""What must hold for the descriptors of an image: they agree with its maps, and lead out of no memory."""

from __future__ import annotations

import numpy as np
from amaranth.lib import data
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.image.image import Image, LayerInfo, MapInfo
from compiler.image.steps import Step
from hw.layouts import Op, descriptor, fields
from hw.params import SEGMENTS, Params

__all__ = ["check_steps"]

_OF_LAYER = (
    "tiles_y", "tiles_x", "destination", "row_lines", "row_pitch", "tile_lines", "column_lines", "outputs", "words",
    "frame", "low", "high", "maximum", "refill",
)  # fmt: skip
"""Fields that all segments of a layer have alike."""


def _require(good: bool, message: str) -> None:
    if not good:
        raise ImageError(message)


def check_steps(image: Image) -> None:
    """Descriptors walk the maps, the pointer blocks and the output table without a gap, as the packer lays them out."""
    params = image.params
    ends = _fields(descriptor(params), image.descriptors[-1])
    _require(ends == {**dict.fromkeys(ends, 0), "op": Op.END.value}, "the last descriptor is not END and nothing else")
    _require(not (image.descriptors[:-1] & _reserved(params)).any(), "a reserved bit of a descriptor is set")
    number = pointers = outputs = streamed = 0
    written = -1
    for layer, steps in zip(image.layers, image.steps, strict=True):
        _check_result(layer, steps[0], image)
        _exact(steps[0], number, {"outputs": outputs, "frame": image.frame})
        if not steps[0].refill:
            count = len(layer.sources)
            _require(len(steps) == count, f"{layer.name}: {len(steps)} segments read {count} maps")
            _require(
                steps[0].tiles == 1 or len(steps) <= SEGMENTS,
                f"{layer.name}: {len(steps)} segments in {steps[0].tiles} tiles; expected at most {SEGMENTS}",
            )
        at = 0
        for place, step in enumerate(steps):
            _exact(step, number, {
                "op": Op.SEGMENT.value, "first": int(place == 0), "last": int(place == len(steps) - 1),
                "dense": step.maximum, **{name: getattr(steps[0], name) for name in _OF_LAYER},
            })  # fmt: skip
            good = step.codebook < len(image.codebooks)
            _require(good, f"descriptor {number}: codebook {step.codebook}; there are {len(image.codebooks)}")
            if step.refill:
                at = _check_range(step, number, layer, at, image)
                _exact(step, number, {"buffer": streamed % 2})
                streamed += 1
            else:
                at = place
                _check_window(step, number, image.maps[layer.sources[place]], params)
                _exact(step, number, {"pointers": pointers, "buffer": 0})
                pointers += step.pointer_blocks
            _exact(step, number, {"chained": int(layer.sources[at] == written)})
            number += 1
        outputs += steps[0].words
        written = layer.result
    _require(pointers == image.pointers.shape[1], f"pointers have {image.pointers.shape[1]} words; expected {pointers}")
    _require(outputs == image.table.shape[1], f"table has {image.table.shape[1]} words; expected {outputs}")


def _exact(step: Step, number: int, values: dict[str, int]) -> None:
    for name, value in values.items():
        found = getattr(step, name)
        _require(found == value, f"descriptor {number}: {name} is {found}; expected {value}")


def _check_window(step: Step, number: int, source: MapInfo, params: Params) -> None:
    """A segment's window reads its map, and nothing beyond."""
    _require(step.wy > 0 and step.wx > 0, f"descriptor {number}: a window of {step.wy} x {step.wx} positions")
    row = source.row_lines * params.groups
    pitches = {
        "position_pitch": step.dx * source.pitch, "window_pitch": step.dy * row,
        "tile_pitch_x": step.step_x * source.pitch, "tile_pitch_y": step.step_y * row,
    }  # fmt: skip
    _exact(step, number, {
        "source": (source.base * params.groups + step.y0 * row + step.x0 * source.pitch) & 0xFFFFFF, "vectors": source.vectors, "height": source.height,
        "width": source.width, **{name: value & 0xFFFFFF for name, value in pitches.items()},
    })  # fmt: skip


def _check_range(step: Step, number: int, layer: LayerInfo, at: int, image: Image) -> int:
    """A streamed range lies in a map of its layer, the one at place `at` or a later one; that place."""
    params = image.params
    _require(params.refill, f"descriptor {number}: refill, which the array does not have")
    _exact(step, number, {
        **dict.fromkeys(("tiles_y", "tiles_x", "wy", "wx", "height", "width"), 1), "y0": 0, "x0": 0,
    })  # fmt: skip
    _require(step.vectors > 0, f"descriptor {number}: a range of no vectors")
    last = step.pointers + step.vectors
    _require(last <= params.pointer_blocks, f"descriptor {number}: its pointer blocks do not fit the array")
    for place in range(at, len(layer.sources)):
        source = image.maps[layer.sources[place]]
        low, high = source.base * params.groups, (source.base + source.lines) * params.groups
        if low <= step.source and step.source + step.vectors <= high:
            return place
    raise ImageError(f"descriptor {number}: vectors from {step.source} on are of no map that {layer.name} reads")


def _check_result(layer: LayerInfo, step: Step, image: Image) -> None:
    """The tiles of a layer lie in its map, and cover it."""
    name, groups, result = layer.name, image.params.groups, image.maps[layer.result]
    good = step.tiles_y * layer.tile_y >= result.height and step.tiles_x * layer.tile_x >= result.width
    _require(good, f"{name}: {step.tiles_y} x {step.tiles_x} tiles of {layer.tile_y} x {layer.tile_x} pixels; "
                   f"its map has {result.height} x {result.width}")  # fmt: skip
    expected = {"row_pitch": result.row_lines, "tile_lines": layer.tile_y * result.row_lines}
    for field, value in expected.items():
        _require(getattr(step, field) == value, f"{name}: {field} is {getattr(step, field)}; expected {value}")
    good = layer.tile_x * result.pitch == step.column_lines * groups
    _require(good, f"{name}: column_lines is {step.column_lines}; a tile has {layer.tile_x} x {result.pitch} vectors")
    inside = step.destination - result.base  # a block begins behind the vectors of others
    good = 0 <= inside and 0 < step.row_lines <= step.column_lines - inside
    _require(good, f"{name}: {step.row_lines} lines from {step.destination} on are not in a pixel of its map")
    last = (step.tiles_y * layer.tile_y - 1) * result.row_lines + (step.tiles_x - 1) * step.column_lines
    _require(last + inside + step.row_lines <= result.lines, f"{name}: its tiles lead out of its map")
    _require(step.tiles_x * step.column_lines <= result.row_lines, f"{name}: its tiles are wider than a row of its map")
    _require(step.low <= step.high, f"{name}: limits {step.low} to {step.high}")


def _reserved(params: Params) -> NDArray[np.uint8]:
    """The bits of a descriptor that mean nothing, as a mask."""
    layout = descriptor(params)
    bits = np.ones(-(-layout.size // 8) * 8, np.uint8)
    for name, first, width in fields(layout):
        if not name.startswith("reserved"):
            bits[first : first + width] = 0
    return np.packbits(bits, bitorder="little")


def _fields(layout: data.Layout, word: NDArray[np.uint8]) -> dict[str, int]:
    value = int.from_bytes(word.tobytes(), "little")
    return {name: value >> first & ((1 << width) - 1) for name, first, width in fields(layout)}
