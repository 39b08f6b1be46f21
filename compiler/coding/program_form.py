"""Programs of an array in a file, their head: maps, layers, windows; all but what is large.

What most networks have costs nothing: a layer reads what the one before makes, and is called as its result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from compiler.coding.names import read_name, write_name
from compiler.coding.program_steps import (
    LayerSteps,
    Steps,
    read_layer_steps,
    read_steps,
    special,
    write_layer_steps,
    write_steps,
)  # fmt: skip
from compiler.coding.sizes import MAX_DENSE, MAX_ELEMENTS
from compiler.coding.wire import Reader, Writer
from compiler.errors import CodingError, ModelError
from compiler.graph.integer import ARRAY_AXES, TABLE_SIZE
from compiler.lower.canonical import DENSITIES
from compiler.lower.program import HIGH, LOW, MapForm, Pair, Program, ProgramLayer, Segment, usual_axes

__all__ = [
    "RATED",
    "STEPS",
    "Head",
    "LayerHead",
    "Room",
    "Window",
    "matrix_shape",
    "read_head",
    "window_of",
    "write_head",
]

_MAX_MAPS = 1 << 12
_MAX_SIZE = 1 << 16
_MAX_CHANNELS = 1 << 24
_MAX_SEGMENTS = 1 << 8
_MAX_EXPONENT = 1 << 20
_MAX_PRODUCTS = 1 << 60

_PIXEL, _DENSE, _AXES = 1, 2, 4
STEPS, RATED = 1, 2  # what a program may have: loops, functions and operations; rates
# What a layer has that the plainest one has not.
_NAMED, _RESULT, _SEGMENTS, _POOL, _MAXIMUM, _LIMITS, _VARIED, _PRODUCTS = (1 << n for n in range(8))
_ONE: Pair = (1, 1)


@dataclass
class Room:
    """What the rest of a file may still hold: elements of matrices, and other numbers."""

    elements: int = MAX_ELEMENTS
    numbers: int = MAX_DENSE

    def take(self, elements: int, numbers: int, what: str) -> None:
        """Take of both. Raises `CodingError` if there is no more."""
        self.elements -= elements
        self.numbers -= numbers
        if self.elements < 0 or self.numbers < 0:
            raise CodingError(
                f"{what}: more weights than this kit reads ({MAX_ELEMENTS}), or more other numbers ({MAX_DENSE})"
            )


@dataclass(frozen=True)
class Window:
    """What a segment reads, and how; `groups` of channels, each of which reads its own channels only."""

    source: int
    groups: int
    kernel: Pair = _ONE
    stride: Pair = _ONE
    dilation: Pair = _ONE
    origin: Pair = (0, 0)


@dataclass(frozen=True)
class LayerHead:
    """A layer without its numbers. `shift` is None if the channels differ; `steps`: what it has of loops."""

    name: str
    result: int
    windows: tuple[Window, ...]
    shift: int | None
    low: int
    high: int
    pool: Pair
    pool_stride: Pair
    maximum: bool
    exact: bool
    products: int
    steps: LayerSteps = field(default_factory=LayerSteps)


@dataclass(frozen=True)
class Head:
    """A program without its numbers. `rated`: layers have rates."""

    maps: tuple[MapForm, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    layers: tuple[LayerHead, ...]
    steps: Steps
    rated: bool = False


def matrix_shape(window: Window, maps: Sequence[MapForm], result: int) -> tuple[int, int]:
    """Rows and columns of a segment's matrix."""
    return maps[result].channels, math.prod(window.kernel) * (maps[window.source].channels // window.groups)


def _products(windows: Sequence[Window], maps: Sequence[MapForm], result: int) -> int:
    made = maps[result]
    return sum(math.prod(matrix_shape(window, maps, result)) for window in windows) * made.height * made.width


def _groups(segment: Segment, outputs: int, inputs: int) -> int:
    """The most groups of which each reads its own channels only."""
    output = np.repeat(np.arange(outputs), segment.counts)
    both = math.gcd(outputs, inputs)
    for count in range(both, 1, -1):
        if both % count == 0 and np.array_equal(output // (outputs // count), segment.channel // (inputs // count)):
            return count
    return 1


def write_head(writer: Writer, program: Program) -> None:
    """Append all of a program but its codes, codebooks, biases, unequal shifts and tables.

    Raises
    ------
    ModelError
        It has more than a file may hold.
    """
    maps = program.maps
    if len(maps) > _MAX_MAPS or any(len(layer.segments) > _MAX_SEGMENTS for layer in program.layers):
        raise ModelError(f"{len(maps)} values in a part of the array; a file holds at most {_MAX_MAPS}")
    ends = (program.inputs != (0,), program.outputs != (len(maps) - 1,))
    writer.varint(len(maps) << 2 | ends[1] << 1 | ends[0])
    for given, numbers in zip(ends, (program.inputs, program.outputs), strict=True):
        if given:
            writer.varint(len(numbers))
            for number in numbers:
                writer.varint(number)
    name, exponent = "input", 0
    for each in maps:
        write_name(writer, each.name, name)
        writer.varint(each.channels)
        pixel, dense = each.height == each.width == 1, each.density is not None
        plain = each.axes == usual_axes(each.height, each.width)
        writer.signed((each.exponent - exponent) << 3 | (not plain) << 2 | dense << 1 | pixel)
        if not pixel:
            writer.varint(each.height)
            writer.varint(each.width)
        if each.density is not None:
            writer.varint(round(each.density * DENSITIES))
        if not plain:
            writer.varint(ARRAY_AXES.index(each.axes))
        name, exponent = each.name, each.exponent
    more = special(program)
    writer.byte(STEPS * more | RATED * any(layer.rates is not None for layer in program.layers))
    if more:
        write_steps(writer, program)
    taken = {*program.inputs, *(each.result.map for each in program.operations)}
    free = [n for n in range(len(maps)) if n not in taken]
    before = program.inputs[0]
    for layer, result in zip(program.layers, free, strict=True):
        _write_layer(writer, layer, result, before, maps)
        before = layer.result
        if more:
            write_layer_steps(writer, layer, program)


def _write_layer(writer: Writer, layer: ProgramLayer, usual: int, before: int, maps: Sequence[MapForm]) -> None:
    windows = [window_of(segment, maps, layer.result) for segment in layer.segments]
    varied = bool((layer.shift != layer.shift[0]).any())
    products = _products(windows, maps, layer.result)
    flags = (
        _NAMED * (layer.name != maps[layer.result].name)
        | _RESULT * (layer.result != usual)
        | _SEGMENTS * (windows != [Window(before, 1)])
        | _POOL * ((layer.pool, layer.pool_stride) != (_ONE, _ONE))
        | _MAXIMUM * layer.maximum
        | _LIMITS * ((layer.low, layer.high) not in ((LOW, HIGH), (0, HIGH)))
        | _VARIED * varied
        | _PRODUCTS * (layer.products != products)
    )
    writer.byte((0 if varied else int(layer.shift[0])) << 3 | bool(flags) << 2 | layer.exact << 1 | (layer.low == 0))
    if not flags:
        return
    writer.byte(flags)
    if flags & _RESULT:
        writer.varint(layer.result)
    if flags & _NAMED:
        write_name(writer, layer.name, maps[layer.result].name)
    if flags & _SEGMENTS:
        writer.varint(len(windows))
        for window in windows:
            wide = window != Window(window.source, window.groups)
            writer.varint(window.source << 2 | (window.groups > 1) << 1 | wide)
            if window.groups > 1:
                writer.varint(window.groups)
            if wide:
                for size in (*window.kernel, *window.stride, *window.dilation):
                    writer.varint(size)
                for place in window.origin:
                    writer.signed(place)
    if flags & _POOL:
        for size in (*layer.pool, *layer.pool_stride):
            writer.varint(size)
    if flags & _LIMITS:
        writer.signed(layer.low)
        writer.signed(layer.high)
    if flags & _PRODUCTS:
        writer.varint(layer.products)


def window_of(segment: Segment, maps: Sequence[MapForm], result: int) -> Window:
    """The window of a segment of the layer that makes a map."""
    groups = _groups(segment, maps[result].channels, maps[segment.source].channels)
    return Window(segment.source, groups, segment.kernel, segment.stride, segment.dilation, segment.origin)


def read_head(reader: Reader, room: Room, known: int = STEPS | RATED) -> Head:
    """What `write_head` wrote; sizes are taken of `room`. `known`: what programs of the format may have."""
    head = reader.varint("values of a part", _MAX_MAPS << 2 | 3, 2 << 2)
    count = head >> 2
    inputs = _read_numbers(reader, "inputs", count) if head & 1 else (0,)
    outputs = _read_numbers(reader, "outputs", count) if head & 2 else (count - 1,)
    maps: list[MapForm] = []
    name, exponent = "input", 0
    for _ in range(count):
        name = read_name(reader, name)
        channels = reader.varint(f"{name}: channels", _MAX_CHANNELS, 1)
        step = reader.signed(f"{name}: exponent", _MAX_EXPONENT << 5)
        exponent += step >> 3
        sizes = (1, 1) if step & _PIXEL else tuple(reader.varint(f"{name}: size", _MAX_SIZE, 1) for _ in range(2))
        density = reader.varint(f"{name}: density", DENSITIES) / DENSITIES if step & _DENSE else None
        if abs(exponent) > _MAX_EXPONENT:
            raise CodingError(f"{name}: exponent {exponent} is out of range")
        axes = ARRAY_AXES[reader.varint(f"{name}: axes", len(ARRAY_AXES) - 1)] if step & _AXES else ""
        maps.append(MapForm(name, channels, sizes[0], sizes[1], exponent, density, axes))
    steps, flags = Steps(), reader.byte("whether there are loops, and rates", known) if known else 0
    more = bool(flags & STEPS)
    if more:
        steps = read_steps(reader, maps, inputs)
        maps = list(steps.maps)
        room.take(0, steps.tables * TABLE_SIZE, "function tables")
    layers: list[LayerHead] = []
    before = inputs[0]
    taken = {*inputs, *(operation.result.map for operation, _ in steps.operations)}
    for usual in [n for n in range(count) if n not in taken]:
        layer = _read_layer(reader, usual, before, maps)
        before = layer.result
        for window in layer.windows:
            room.take(math.prod(matrix_shape(window, maps, before)), maps[before].channels, layer.name)
        if more:
            layer = replace(layer, steps=read_layer_steps(reader, layer.name, len(layer.windows), steps))
        layers.append(layer)
    if not layers:
        raise CodingError("a part of the array has no layers")
    return Head(tuple(maps), inputs, outputs, tuple(layers), steps, bool(flags & RATED))


def _read_numbers(reader: Reader, what: str, maps: int) -> tuple[int, ...]:
    numbers = tuple(reader.varint(what, maps - 1) for _ in range(reader.varint(f"number of {what}", maps, 1)))
    if len(set(numbers)) < len(numbers):
        raise CodingError(f"{what} are values {numbers}; expected different ones")
    return numbers


def _read_layer(reader: Reader, usual: int, before: int, maps: Sequence[MapForm]) -> LayerHead:
    head = reader.byte("a layer")
    flags = reader.byte("what a layer has") if head & 4 else 0
    result = reader.varint("result of a layer", len(maps) - 1) if flags & _RESULT else usual
    name = maps[result].name
    if flags & _NAMED:
        name = read_name(reader, name)
    windows: tuple[Window, ...] = (Window(before, 1),)
    if flags & _SEGMENTS:
        count = reader.varint(f"{name}: segments", _MAX_SEGMENTS, 1)
        windows = tuple(_read_window(reader, name, maps, result) for _ in range(count))
    pool = [1, 1, 1, 1]
    if flags & _POOL:
        pool = [reader.varint(f"{name}: pool", _MAX_SIZE, 1) for _ in range(4)]
    low, high = 0 if head & 1 else LOW, HIGH
    if flags & _LIMITS:
        low, high = (reader.signed(f"{name}: limit", -LOW) for _ in range(2))
        if high > HIGH:
            raise CodingError(f"{name}: limit {high}; expected at most {HIGH}")
    products = _products(windows, maps, result)
    if flags & _PRODUCTS:
        products = reader.varint(f"{name}: products", _MAX_PRODUCTS)
    return LayerHead(
        name, result, windows, None if flags & _VARIED else head >> 3, low, high, (pool[0], pool[1]),
        (pool[2], pool[3]), bool(flags & _MAXIMUM), bool(head >> 1 & 1), products,
    )  # fmt: skip


def _read_window(reader: Reader, name: str, maps: Sequence[MapForm], result: int) -> Window:
    head = reader.varint(f"{name}: source", (len(maps) - 1) << 2 | 3)
    source, groups = head >> 2, 1
    both = math.gcd(maps[source].channels, maps[result].channels)
    if head & 2:
        groups = reader.varint(f"{name}: groups", both, 1)
        if both % groups:
            raise CodingError(f"{name}: {groups} groups of {both} channels")
    if not head & 1:
        return Window(source, groups)
    sizes = [reader.varint(f"{name}: window", _MAX_SIZE, 1) for _ in range(6)]
    origin = [reader.signed(f"{name}: origin", _MAX_SIZE) for _ in range(2)]
    return Window(
        source, groups, (sizes[0], sizes[1]), (sizes[2], sizes[3]), (sizes[4], sizes[5]), (origin[0], origin[1])
    )
