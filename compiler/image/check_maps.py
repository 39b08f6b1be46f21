"""What must hold for the maps of an image: sizes, places, and orders of channels."""

from __future__ import annotations

import numpy as np

from compiler.errors import ImageError
from compiler.graph.integer import ARRAY_AXES
from compiler.image.image import Image, MapInfo
from hw.params import LANES

__all__ = ["check_maps"]

MAX_EXPONENT = 1 << 20
"""Far beyond any exponent of a float; keeps later arithmetic with exponents within machine integers."""

_MAX_SIZE = (1 << 16) - 1
"""What the fields of a descriptor hold."""

MAX_OFF_CHIP = 1 << 23
"""Activation vectors of all maps off chip: models hold them whole."""


def _require(good: bool, message: str) -> None:
    if not good:
        raise ImageError(message)


def check_maps(image: Image) -> None:
    """Each map lies in the frame, with room for its pixels, and its order names each channel once."""
    maps = image.maps
    _require(len({each.name for each in maps}) == len(maps), "a map name is used twice")
    for what, numbers in (("inputs", image.inputs), ("outputs", image.outputs)):
        good = len(set(numbers)) == len(numbers) > 0 and all(0 <= n < len(maps) for n in numbers)
        _require(good, f"{what} are maps {numbers}; expected different ones of {len(maps)}")
    written = {layer.result for layer in image.layers}
    _require(not written & set(image.inputs), "a layer writes an input")
    _require(written | set(image.inputs) == set(range(len(maps))), "a map is neither an input nor written by a layer")
    _require(set(image.outputs) <= written, "an output is not written by a layer")
    for each in maps:
        _check_map(each, image)
    outside = [each for each in maps if each.off_chip]
    _require(image.params.streams or not outside, "a map is off chip; the array has no streams for maps")
    vectors = sum(each.lines for each in outside) * image.params.groups
    _require(vectors <= MAX_OFF_CHIP, f"maps off chip take {vectors} vectors; expected at most {MAX_OFF_CHIP}")
    size = sum(LANES * each.vectors for each in maps)
    _require(len(image.orders) == size, f"orders has shape {image.orders.shape}; expected ({size},)")
    for each, order in zip(maps, image.map_orders, strict=True):
        channels = np.sort(order[order >= 0])
        good = np.array_equal(channels, np.arange(each.channels)) and int(order.min()) >= -1
        _require(good, f"{each.name}: its order does not name each of {each.channels} channels once")


def _check_map(each: MapInfo, image: Image) -> None:
    name, groups = each.name, image.params.groups
    sizes = (each.channels, each.height, each.width, each.vectors, each.pitch, each.planes, each.lines)
    good = min(sizes) > 0 and max(sizes[1:-1]) <= _MAX_SIZE and 0 < each.row <= _MAX_SIZE * groups
    good = good and (each.off_chip or each.lines <= _MAX_SIZE)
    _require(good, f"{name}: sizes {(*sizes, each.row)} are out of range")
    good = each.vectors % each.planes == 0 and each.lines % each.planes == 0
    _require(good, f"{name}: {each.vectors} vectors and {each.lines} lines in {each.planes} planes")
    _require(each.channels <= each.vectors * LANES, f"{name}: {each.channels} channels in {each.vectors} vectors")
    _require(each.plane <= each.pitch, f"{name}: pixels of {each.plane} vectors, {each.pitch} apart")
    row = (each.width - 1) * each.pitch + each.plane
    _require(row <= each.row, f"{name}: rows of {row} vectors, {each.row} apart")
    room = each.plane_lines * groups
    _require(each.row * each.height <= room, f"{name}: {each.plane_lines} lines; its rows take more")
    if each.off_chip:
        good = each.base == -1 and each.planes == 1 and each.row % groups == 0
        _require(good, f"{name}: base {each.base} for rows of {each.row} vectors; expected -1 and rows of whole lines "
                       "in one plane, or a line")  # fmt: skip
    else:
        low, high = image.rings, image.rings + image.frame
        good = low <= each.base and each.base + each.lines <= high
        _require(good, f"{name}: lines {each.base} to {each.base + each.lines}; the frame has {low} to {high}")
    named = all(size == 1 or axis in each.axes for axis, size in (("H", each.height), ("W", each.width)))
    good = each.axes in ARRAY_AXES and named
    _require(good, f"{name}: axes {each.axes!r:.20} for {each.height} x {each.width} pixels")
    good = -1 <= min(each.layout, each.block) and max(each.layout, each.block, each.at) <= _MAX_SIZE and each.at >= 0
    good = good and 0 < each.channel_parts and each.channels % each.channel_parts == 0 and each.walked in (0, 1)
    _require(good, f"{name}: layout {each.layout} of {each.channel_parts} parts, place {each.at} of block {each.block}")
    _require(-1 <= each.density <= 256, f"{name}: density {each.density} is out of range")
    _require(abs(each.exponent) <= MAX_EXPONENT, f"{name}: exponent {each.exponent} is out of range")
