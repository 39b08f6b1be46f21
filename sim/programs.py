"""From an image back to the program that it was built from: the inverse of `compiler.lower.build`.

The decoder says which products each output adds; the layers of the image say of what window they are one copy.
There are no weights for positions that are outside the map for all tiles: there, what one pixel of the tile lacks
another one has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compiler.errors import CodingError
from compiler.image.image import Image, LayerInfo, MapInfo
from compiler.image.steps import LoopStep, Step
from compiler.lower.canonical import DENSITIES
from compiler.lower.program import Function, Loop, MapForm, Operand, Program, ProgramLayer, Segment
from compiler.lower.program import Operation as ProgramOperation
from hw.params import LANES
from sim.decode import decode
from sim.golden_array import WRAP, Layer, Operation
from sim.golden_array import Function as Looked
from sim.whole import whole_maps

__all__ = ["program_of"]

Int = NDArray[np.int64]


def program_of(image: Image) -> Program:
    """The program of an image, read the way the array reads it.

    Raises
    ------
    ImageError
        The image contradicts itself.
    CodingError
        Its layers are no copies of the windows that it says.
    """
    found: dict[int, list[Layer]] = {}
    operations: list[ProgramOperation] = []
    order: list[int] = []
    place: dict[int, int] = {}  # descriptor → step of the program
    layers_of = decode(image, codes=True).layers
    image = dataclasses.replace(image, maps=whole_maps(image))  # as the decoded layers have them
    for layer in layers_of:
        if isinstance(layer, Operation):
            order.append(-1 - len(operations))
            operations.append(_operation(image, layer))
        else:
            if layer.result not in found:
                order.append(len(found))
            found.setdefault(layer.result, []).append(layer)
        place.setdefault(image.numbers[layer.number], len(order) - 1)
    maps = tuple(_form(each) for each in image.maps)
    layers = tuple(_layer(image, result, blocks) for result, blocks in found.items())
    loops, pitch = [], 0
    for number, step in enumerate(image.program):
        if isinstance(step, LoopStep):
            last = max(at for first, at in place.items() if first < number)
            loops.append(Loop(place[step.first], last, step.count, step.pitch < 0))
            pitch = abs(step.pitch)
    if not operations and not loops:
        return Program(maps, layers, image.inputs, image.outputs)
    return Program(
        maps, layers, image.inputs, image.outputs, tuple(operations), tuple(order), tuple(loops), pitch
    )  # fmt: skip


def _form(info: MapInfo) -> MapForm:
    density = None if info.density < 0 else info.density / DENSITIES
    return MapForm(
        info.name, info.channels, info.height, info.width, info.exponent, density, info.axes, info.layout,
        info.channel_parts, info.vectors if info.layout >= 0 else 0, info.pitch if info.walked else 0,
        info.block, info.at,
    )  # fmt: skip


def _operation(image: Image, operation: Operation) -> ProgramOperation:
    step, info, groups = operation.step, image.layers[operation.number], image.params.groups
    names = [name for name in "abce" if name == "a" or getattr(step, f"has_{name}")]

    def operand(name: str, number: int) -> Operand:
        found = image.maps[number]
        pixel, within = divmod(getattr(step, name) - found.base, max(1, found.pitch // groups))
        part = within // max(1, found.vectors // found.channel_parts // groups)
        return Operand(number, part, pixel, bool(getattr(step, f"moves_{name}")))

    reads = {name: operand(name, number) for name, number in zip(names, info.sources, strict=True)}
    return ProgramOperation(
        name=operation.name, result=operand("result", operation.result), **reads, scale_a=step.scale_a,
        scale_c=step.scale_c, offset=step.offset, shift=step.shift, low=step.low, high=step.high,
        function=None if operation.function is None else _function(operation.function),
    )  # fmt: skip


def _function(function: Looked) -> Function:
    return Function(tuple(function.table.tolist()), function.left, function.right)


def _layer(image: Image, result: int, blocks: Sequence[Layer]) -> ProgramLayer:
    """A layer, of which the hardware computes `blocks` of the channels each."""
    info, channels = image.layers[blocks[0].number], image.maps[result].channels
    bias, shift, which = np.zeros((3, channels), np.int64)
    parts: list[list[tuple[Int, Int, Int, Int]]] = [[] for _ in info.sources]
    books, moves = [0] * len(info.sources), [False] * len(info.sources)
    for layer in blocks:
        of = image.layers[layer.number]
        if (of.sources, of.windows, of.pool) != (info.sources, info.windows, info.pool):
            raise _other(info, "its blocks differ")
        channel, y, x = _places(image, layer, len(blocks) > 1)
        bias[channel], shift[channel] = layer.outputs.bias, layer.outputs.shift
        if layer.outputs.functions:
            which[channel] = layer.outputs.function
        term_channel, term_y, term_x, used = _terms(image, layer, of, channel, y, x)
        for number, segment in zip(of.parts, layer.segments, strict=True):
            books[number], moves[number] = segment.step.codebook, bool(segment.step.moves_source)
            weight = segment.weight.tocoo()
            term, column = weight.row[used[weight.row]], weight.col[used[weight.row]]
            row, across, source = _columns(image, info, number, segment.step)
            kernel, stride, dilation, _ = _window(info, number)
            ky, ry = np.divmod(row[column] - term_y[term] * stride[0], dilation[0])
            kx, rx = np.divmod(across[column] - term_x[term] * stride[1], dilation[1])
            outside = (ky < 0) | (ky >= kernel[0]) | (kx < 0) | (kx >= kernel[1]) | (source[column] < 0)
            if (outside | (ry != 0) | (rx != 0)).any():
                raise _other(info, "a weight is not in its window")
            code = weight.data[used[weight.row]]
            parts[number].append((term_channel[term], ky * kernel[1] + kx, source[column], code))
    first = blocks[0].step
    segments = tuple(
        _segment(image, info, number, channels, books[number], moves[number], pieces)
        for number, pieces in enumerate(parts)
    )
    py, px, sy, sx = info.pool
    functions = tuple(_function(each) for each in blocks[0].outputs.functions[: int(which.max())])
    at = (first.destination - image.maps[result].base) * image.params.groups
    return ProgramLayer(
        name=info.name.removesuffix("#0") if len(blocks) > 1 else info.name,
        result=result, segments=segments, bias=bias, shift=shift, low=first.low, high=first.high,
        pool=(py, px), pool_stride=(sy, sx), maximum=bool(first.maximum), exact=info.exact,
        products=sum(image.layers[layer.number].products for layer in blocks), functions=functions,
        which=which if functions else None, moves=bool(first.moves_result),
        pixel=at // image.maps[result].pitch if first.moves_result else 0,
        rates=np.array(info.rates, np.int64) if info.rates else None,
    )  # fmt: skip


def _places(image: Image, layer: Layer, cut: bool) -> tuple[Int, Int, Int]:
    """Channel of each output, and its pixel in the tile. `cut`: the layer makes some of the channels of one pixel."""
    made, groups, step = image.maps[layer.result], image.params.groups, layer.step
    vector, lane = np.divmod(layer.outputs.place, LANES)
    inside = step.destination - made.base
    if made.planes > 1:
        y, x = np.divmod(vector, made.row)
        x, within = np.divmod(x, made.pitch)
        within += np.where(within < made.plane, inside // made.plane_lines * made.plane, made.vectors)
    else:
        y, within = np.divmod(vector, step.row_lines * groups)
        begin = inside * groups % (made.pitch if step.moves_result else WRAP)
        x, within = (np.zeros_like(y), within + begin) if cut else np.divmod(within, made.pitch)
    if within.size and int(within.max()) >= made.vectors:
        raise _other(image.layers[layer.number], "an output is no channel of its result")
    channel = image.map_orders[layer.result][within * LANES + lane].astype(np.int64)
    if (channel < 0).any():
        raise _other(image.layers[layer.number], "an output is no channel of its result")
    return channel, y, x


def _terms(
    image: Image, layer: Layer, info: LayerInfo, channel: Int, y: Int, x: Int
) -> tuple[Int, Int, Int, NDArray[np.bool_]]:
    """Channel and pixel of the sums of each term, and which terms are looked at."""
    count = len(channel)
    terms = max([segment.weight.shape[0] for segment in layer.segments] + [count])
    output, sub = np.arange(terms), np.zeros(terms, np.int64)
    for number, step in enumerate(layer.outputs.rounds, 1):
        output[step.terms], sub[step.terms] = step.outputs, number
    if terms and int(output.max(initial=0)) >= count:
        raise _other(info, "a sum belongs to no output")
    if not all(_whole(segment.step, info, number) for number, segment in zip(info.parts, layer.segments, strict=True)):
        qy, qx = np.divmod(sub, info.pool[1])
        rows, columns = y[output] * info.pool[2] + qy, x[output] * info.pool[3] + qx
        return channel[output], rows, columns, np.ones(terms, np.bool_)
    # The first pixel of the tile has all weights; of those that an output is the largest of, it reads the first pixels.
    where = np.zeros(terms, np.int64)
    for number, segment in zip(info.parts, layer.segments, strict=True):
        weight = segment.weight.tocoo()
        row, across, _ = _columns(image, info, number, segment.step)
        where += np.bincount(weight.row, (row + across)[weight.col], terms).astype(np.int64)
    order = np.lexsort((sub, where, output))
    first = np.zeros(terms, np.bool_)
    first[order[np.diff(output[order], prepend=-1) != 0]] = True
    none = np.zeros(terms, np.int64)
    return channel[output], none, none, first & (y[output] == 0) & (x[output] == 0)


def _whole(step: Step, info: LayerInfo, number: int) -> bool:
    """Whether each position that a tile meets is in the map for some tile: others have no weights."""
    kernel, stride, dilation, origin = _window(info, number)
    good = not step.refill
    for axis, (tile, tiles, move, distance, size) in enumerate((
        (info.tile_y, step.tiles_y, step.step_y, step.dy, step.height),
        (info.tile_x, step.tiles_x, step.step_x, step.dx, step.width),
    )):  # fmt: skip
        last = (tile - 1) * info.pool[2 + axis] + info.pool[axis] - 1
        reach = last * stride[axis] + (kernel[axis] - 1) * dilation[axis]
        at = origin[axis] + np.arange(tiles)[:, np.newaxis] * move + np.arange(0, reach + 1, distance)
        good = good and bool(((at >= 0) & (at < size)).any(axis=0).all())
    return good


def _columns(image: Image, info: LayerInfo, number: int, step: Step) -> tuple[Int, Int, Int]:
    """Row and column of each column of a descriptor, from where the window begins, and its channel (or -1)."""
    source, groups = image.maps[info.sources[number]], image.params.groups
    vector, lane = np.divmod(np.arange(step.positions * step.vectors * LANES), LANES)
    if step.refill:
        vector += (step.source - source.base * groups) % WRAP
        plane, vector = np.divmod(vector, source.plane_lines * groups)
        y, within = np.divmod(vector, source.row)
        x, within = np.divmod(within, source.pitch)
        origin = _window(info, number)[3]
        y, x = y - origin[0], x - origin[1]
    else:
        offset = step.source - source.base * groups - step.y0 * source.row - step.x0 * source.pitch
        plane, first = np.divmod(np.int64(offset % WRAP), source.plane_lines * groups)
        position, within = np.divmod(vector, step.vectors)
        within += first
        y, x = np.divmod(position, step.wx)
        origin = _window(info, number)[3]
        y, x = step.y0 - origin[0] + y * step.dy, step.x0 - origin[1] + x * step.dx
    order = image.map_orders[info.sources[number]]
    place = (plane * source.plane + within) * LANES + lane
    channel = np.where(within < source.plane, order[np.minimum(place, len(order) - 1)], -1)
    return y, x, channel.astype(np.int64)


def _segment(
    image: Image, info: LayerInfo, number: int, outputs: int, book: int, moves: bool,
    pieces: list[tuple[Int, Int, Int, Int]],
) -> Segment:  # fmt: skip
    kernel, stride, dilation, origin = _window(info, number)
    channels = image.maps[info.sources[number]].channels
    output, tap, channel, code = (
        np.concatenate([np.zeros(0, np.int64), *(piece[n] for piece in pieces)]) for n in range(4)
    )
    size = kernel[0] * kernel[1] * channels
    key, first = np.unique(output * size + tap * channels + channel, return_index=True)
    return Segment(
        info.sources[number], kernel, stride, dilation, origin, np.searchsorted(key, np.arange(outputs + 1) * size),
        tap[first], channel[first], code[first].astype(np.uint8), image.codebooks[book], moves,
    )  # fmt: skip


def _window(info: LayerInfo, number: int) -> tuple[tuple[int, int], ...]:
    """Kernel, stride, dilation and origin of a segment."""
    numbers = info.windows[8 * number : 8 * number + 8]
    return tuple((numbers[n], numbers[n + 1]) for n in range(0, 8, 2))


def _other(info: LayerInfo, why: str) -> CodingError:
    return CodingError(f"{info.name}: its memories are not of the windows that it states: {why}")
