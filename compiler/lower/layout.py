"""Where the channels of a map stand, and how a layer's result is cut into tiles and blocks.

A pixel takes `pitch` activation vectors, of which readers scan the first `vectors`. Successive vectors of a row of
pixels lie in successive banks, and the write-back group of a bank writes them: the rows of a layer that make a vector
must be in its group. Channels are given vectors such that all groups have equal work.

The result of a depthwise layer may lie in planes instead, each with a few vectors of all pixels. Planes are computed
one after the other, each from the vectors of its channels alone: so a tile has room for many pixels, and few positions
of its window are scanned for other tiles again. Tiles of a plane are whole rows of pixels, one behind the other.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compiler.image.image import Planar
from compiler.lower.program import MapForm, Pair, Program, ProgramLayer, Segment
from compiler.options import Options
from hw.params import LANES, Params

__all__ = [
    "Placement", "Tiling", "Window", "fixed_placement", "input_placement", "plane_tiling", "result_placement",
    "shared", "shared_orders", "spread", "tiling", "window",
]  # fmt: skip

Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Placement(Planar):
    """How a map lies in activation memory, wherever it begins.

    Attributes
    ----------
    form : the value.
    vectors, pitch : vectors of a pixel that are scanned, and from pixel to pixel.
    row : vectors from row to row. lines : all lines, overhang of tiles included.
    order : int32 (8 * vectors,), lane of a pixel → channel, -1 for an unused lane.
    planes : equal parts of the vectors of a pixel, with so many lines each.
    """

    form: MapForm
    vectors: int
    pitch: int
    row: int
    lines: int
    order: NDArray[np.int32]
    planes: int = 1

    @property
    def place(self) -> Int:
        """(channels,) channel → lane of a pixel."""
        used = np.flatnonzero(self.order >= 0)
        place = np.zeros(self.form.channels, np.int64)
        place[self.order[used]] = used
        return place


@dataclass(frozen=True)
class Tiling:
    """How a layer's result is cut.

    Attributes
    ----------
    fy, fx : pixels of the result in a tile.
    tiles_y, tiles_x : tiles of the result.
    vectors, pitch : those of the result.
    blocks : ranges of vectors of a pixel, one hardware layer each; more than one if not all rows of a pixel have
        accumulators at the same time, or for planes.
    planes : of the result.
    """

    fy: int
    fx: int
    tiles_y: int
    tiles_x: int
    vectors: int
    pitch: int
    blocks: tuple[Pair, ...]
    planes: int = 1

    @property
    def tiles(self) -> int:
        """Tiles of one sample."""
        return self.tiles_y * self.tiles_x


@dataclass(frozen=True)
class Window:
    """What a tile scans of a segment's map: positions, their distance, and the distance of tiles, in pixels.

    top, left : rows and columns of positions before those that are scanned: outside the map for all tiles.
    cut : positions are left out, there or behind those that are scanned.
    """

    wy: int
    wx: int
    dy: int
    dx: int
    step_y: int
    step_x: int
    top: int = 0
    left: int = 0
    cut: bool = False

    @property
    def positions(self) -> int:
        """Positions of the window."""
        return self.wy * self.wx


def shared_orders(program: Program, params: Params, options: Options) -> dict[int, NDArray[np.int32]]:
    """For each layout, lane → unit: vectors of equal work, of all layers that make maps of the layout."""
    work: dict[int, Int] = {}
    forms = {form.layout: form for form in program.maps if form.layout >= 0}
    for number, form in forms.items():
        work[number] = np.zeros(form.units, np.int64)
    for layer in program.layers:
        form = program.maps[layer.result]
        if form.layout >= 0:
            work[form.layout] += layer.load.reshape(form.parts, -1).sum(axis=0)
    return {
        number: _even(units, forms[number].vectors // forms[number].parts, params.groups)
        if options.balanced and units.any() else _in_order(len(units), forms[number].vectors // forms[number].parts)
        for number, units in work.items()
    }  # fmt: skip


def _shared(form: MapForm, units: NDArray[np.int32]) -> NDArray[np.int32]:
    """Lane → channel of a map whose parts have one order of units."""
    return np.concatenate([np.where(units >= 0, units + part * form.units, -1) for part in range(form.parts)])


def fixed_placement(form: MapForm, units: NDArray[np.int32], params: Params) -> Placement:
    """A map of a layout that no layer writes: the result of an operation, or what the host writes."""
    pitch = form.pitch or form.vectors
    row_lines = -(-form.width * pitch // params.groups)
    row = row_lines * params.groups
    return Placement(form, form.vectors, pitch, row, row_lines * form.height, _shared(form, units))


def spread(placement: Placement, row: int) -> Placement:
    """A map of several rows with its rows further apart."""
    if placement.form.height == 1:
        return placement
    return replace(placement, row=row, lines=placement.lines * row // placement.row)


def input_placement(form: MapForm, params: Params) -> Placement:
    """A map that the host writes: channels in their order."""
    vectors = params.act_vectors(form.channels)
    pitch = form.pitch or vectors
    row_lines = -(-form.width * pitch // params.groups)
    row = row_lines * params.groups
    return Placement(form, vectors, pitch, row, row_lines * form.height, _in_order(form.channels, vectors))


def _in_order(channels: int, vectors: int) -> NDArray[np.int32]:
    order = np.full(vectors * LANES, -1, np.int32)
    order[:channels] = np.arange(channels)
    return order


def plane_tiling(form: MapForm, fy: int, planes: int, params: Params) -> Tiling:
    """The tiling into planes, with tiles of fy rows, or of the least number above that makes whole lines."""
    vectors = params.act_vectors(form.channels)
    each = vectors // planes
    step = params.groups // math.gcd(form.width * each, params.groups)
    fy = min(-(-fy // step) * step, form.height)
    blocks = tuple((n * each, (n + 1) * each) for n in range(planes))
    return Tiling(fy, form.width, -(-form.height // fy), 1, vectors, each, blocks, planes)


def tiling(form: MapForm, layer: ProgramLayer, fy: int, fx: int, params: Params, options: Options) -> Tiling:
    """The tiling with tiles of fy x fx pixels; its pitch makes a row of pixels whole lines."""
    least = form.vectors or params.act_vectors(form.channels)
    step = params.groups // math.gcd(fx, params.groups)
    pitch = form.pitch or -(-least // step) * step
    # A map of one pixel is spread over all groups; a larger one is not, since every reader scans all of its vectors.
    single = form.height == form.width == 1 and options.balanced and not form.vectors and not form.pitch
    vectors = pitch if single else least
    blocks: tuple[Pair, ...] = ((0, vectors),)
    each = LANES // params.group * math.prod(layer.pool)  # accumulators of a PE that a vector takes
    most = _slots(layer, params) // each * params.groups
    if fy == fx == 1 and vectors > most >= params.groups:
        whole = -(-vectors // params.groups)
        pitch = form.pitch or whole * params.groups
        parts = -(-vectors // most)
        lines = np.array_split(np.arange(whole), parts)
        ends = [min(vectors, (int(part[-1]) + 1) * params.groups) for part in lines]
        blocks = tuple(zip([0, *ends[:-1]], ends, strict=True))
    return Tiling(fy, fx, -(-form.height // fy), -(-form.width // fx), vectors, pitch, blocks)


def _slots(layer: ProgramLayer, params: Params) -> int:
    """Accumulators of a PE that a tile may take: a layer of maxima cannot have padding entries."""
    return min(params.rows, 1 << params.index_bits) if layer.maximum else params.rows


def result_placement(
    form: MapForm,
    layer: ProgramLayer,
    cut: Tiling,
    units: NDArray[np.int32] | None,
    source: Placement | None,
    params: Params,
    options: Options,
) -> Placement:
    """Where the channels of a layer's result stand.

    units : the order of its layout, if it has one. source : what its first segment reads, for planes.
    """
    if cut.planes > 1:
        assert source is not None
        lines = cut.tiles_y * -(-cut.fy * cut.fx * cut.pitch // params.groups)
        order = _following(layer, cut, source)
        return Placement(form, cut.vectors, cut.pitch, cut.fx * cut.pitch, lines * cut.planes, order, cut.planes)
    if layer.moves:
        row_lines = form.width * cut.pitch // params.groups
    else:
        row_lines = cut.tiles_x * cut.fx * cut.pitch // params.groups
    order = _in_order(form.channels, cut.vectors)
    if units is not None:
        order = _shared(form, units)
    elif options.balanced:
        order = _even(layer.load, cut.vectors, math.gcd(cut.pitch, params.groups))
    return Placement(form, cut.vectors, cut.pitch, row_lines * params.groups, row_lines * cut.tiles_y * cut.fy, order)


def _following(layer: ProgramLayer, cut: Tiling, source: Placement) -> NDArray[np.int32]:
    """The order of the channels that a depthwise layer reads, so that a plane of its result reads few vectors."""
    segment = layer.segments[0]
    channels = len(layer.bias)
    made = np.full(source.form.channels, -1, np.int64)
    used = segment.counts > 0
    made[segment.channel[segment.starts[:-1][used]]] = np.flatnonzero(used)
    order = np.append(made, -1)[source.order]
    if source.vectors != cut.vectors:
        order = _in_order(channels, cut.vectors)
        found = np.append(made, -1)[source.order[source.order >= 0]]
        order[:channels] = np.concatenate([found[found >= 0], np.flatnonzero(~used)])
    elif not used.all():  # what reads nothing stands in the lanes that are left
        order[np.flatnonzero(order < 0)[: int((~used).sum())]] = np.flatnonzero(~used)
    return order.astype(np.int32)


def _even(work: Int, vectors: int, classes: int) -> NDArray[np.int32]:
    """Channels by falling work to the class of vectors with the least work, and within it to the least busy vector.

    Vectors of one class (v mod `classes`) are written by the same groups, whichever pixel of a tile they belong to.
    """
    order = np.full((vectors, LANES), -1, np.int32)
    members = [list(range(first, vectors, classes)) for first in range(min(classes, vectors))]
    full = -(-len(work) // vectors)  # write-back takes as long as the fullest vector of a line
    by_class = _least_first(work, np.arange(len(work)), [full * len(each) for each in members])
    for mine, channels in zip(members, by_class, strict=True):
        for vector, found in zip(mine, _least_first(work, channels, [full] * len(mine)), strict=True):
            order[vector, : len(found)] = np.sort(found)
    return order.reshape(-1)


def _least_first(work: Int, channels: Int, room: list[int]) -> list[Int]:
    """Channels by falling work, each to the bin with the least work that has room (LPT; Graham 1969)."""
    heap = [(0, 0, number) for number in range(len(room))]
    found: list[list[int]] = [[] for _ in room]
    for channel in channels[np.argsort(-work[channels], kind="stable")].tolist():
        load, count, number = heapq.heappop(heap)
        found[number].append(channel)
        if count + 1 < room[number]:
            heapq.heappush(heap, (load + int(work[channel]), count + 1, number))
    return [np.array(each, np.int64) for each in found]


def window(segment: Segment, layer: ProgramLayer, cut: Tiling, source: MapForm) -> Window:
    """The window that a tile scans of a segment's map.

    Along an axis with one tile, positions outside the map are left out.
    """
    sizes = [
        _axis(segment.kernel[n], segment.stride[n], segment.dilation[n], layer.pool[n], layer.pool_stride[n], tile)
        for n, tile in enumerate((cut.fy, cut.fx))
    ]
    (wy, dy), (wx, dx) = sizes
    steps = [segment.stride[n] * layer.pool_stride[n] * tile for n, tile in enumerate((cut.fy, cut.fx))]
    top, rows = _inside(wy, dy, segment.origin[0], source.height) if cut.tiles_y == 1 else (0, wy)
    left, columns = _inside(wx, dx, segment.origin[1], source.width) if cut.tiles_x == 1 else (0, wx)
    return Window(rows, columns, dy, dx, steps[0], steps[1], top, left, (rows, columns) != (wy, wx))


def shared(segment: Segment, layer: ProgramLayer, cut: Tiling) -> bool:
    """Whether all positions of the window have the same weights, so that these are stored once.

    In a tile of several pixels, a position adds to some of them only.
    """
    return cut.fy == cut.fx == 1 and layer.pool == (1, 1) and segment.uniform


def _inside(count: int, distance: int, origin: int, size: int) -> Pair:
    """The first position in the map, and how many there are; all of them if there is none."""
    first = max(0, -(origin // distance))
    end = min(count, (size - 1 - origin) // distance + 1)
    return (first, end - first) if end > first else (0, count)


def _axis(kernel: int, stride: int, dilation: int, pool: int, pool_stride: int, tile: int) -> Pair:
    """Positions and their distance along one axis."""
    last = (tile - 1) * pool_stride + pool - 1  # of the pixels before pooling
    parts = [dilation] * (kernel > 1) + [stride] * (pool > 1) + [stride * pool_stride] * (tile > 1)
    distance = math.gcd(*parts) or 1
    return (last * stride + (kernel - 1) * dilation) // distance + 1, distance
