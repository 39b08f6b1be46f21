"""What one image computes, still without memories: maps, and layers and elementwise operations between them.

A layer adds, for every pixel and channel of its result, the products of one window of each of its segments; an
operation multiplies and adds maps number by number. Loops repeat some of them for each step of a sequence.
`Program.verify` states what must hold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ModelError
from compiler.lower.chain import MAX_SHIFT, Chain, QuantizedLayer
from hw.params import FUNCTIONS, Params

__all__ = [
    "HIGH", "LOW", "RATES", "Function", "Loop", "MapForm", "Operand", "Operation", "Pair", "Program", "ProgramLayer",
    "Segment", "chain_program", "segment_of", "touched", "usual_axes",
]  # fmt: skip

Int = NDArray[np.int64]
Pair = tuple[int, int]
"""A number for each axis of a map: rows first."""

LOW, HIGH = -(1 << 15), (1 << 15) - 1

RATES = 64
"""Rates of rows are whole numbers of these parts."""


def usual_axes(height: int, width: int) -> str:
    """The axes of a map that has no more of them than it needs, channels first."""
    return "C" if height == width == 1 else "CW" if height == 1 else "CHW"


@dataclass(frozen=True)
class MapForm:
    """A value: height x width pixels of channels, and the power of two of its numbers.

    Attributes
    ----------
    density : share of its numbers that are not zero, if it is known.
    axes : order of its axes in the graph, one of `compiler.graph.integer.ARRAY_AXES`; unless given, channels first.
    layout : maps of one layout have their units in one order; -1: it has an order of its own. parts : its channels are
        so many times these units, one after the other, each in whole lines.
    vectors, pitch : activation vectors of a pixel, and from pixel to pixel; 0: whatever suits the layer that writes it.
    block : maps of one block lie in the same lines, this one from pixel ``at`` of the block on; -1: it has its own.
    """

    name: str
    channels: int
    height: int
    width: int
    exponent: int
    density: float | None = None
    axes: str = ""
    layout: int = -1
    parts: int = 1
    vectors: int = 0
    pitch: int = 0
    block: int = -1
    at: int = 0

    def __post_init__(self) -> None:
        if not self.axes:
            object.__setattr__(self, "axes", usual_axes(self.height, self.width))

    @property
    def units(self) -> int:
        """Channels of a part."""
        return self.channels // self.parts


@dataclass(frozen=True)
class Function:
    """A table of 513 numbers and the shifts of what is looked up in it; docs/numerics.md, Table."""

    table: tuple[int, ...]
    left: int
    right: int


@dataclass(frozen=True, eq=False)
class Segment:
    """Weights of one window.

    Pixel (y, x) of the sums reads pixel ``origin + (y, x) * stride + k * dilation`` of its map, k from 0 to
    ``kernel - 1`` on each axis; pixels outside the map are zero.

    Attributes
    ----------
    source : number of the map that it reads.
    kernel, stride, dilation, origin : window.
    starts : (channels + 1,), where the nonzeros of each output channel begin among those below.
    tap : (nonzeros,), ``ky * kernel[1] + kx``. channel : (nonzeros,), channel of the source. In this order within an
        output channel.
    code : uint8 (nonzeros,), never 0.
    codebook : int16 (2**code_bits,).
    moves : in each round of the loop it reads the next pixel instead.
    """

    source: int
    kernel: Pair
    stride: Pair
    dilation: Pair
    origin: Pair
    starts: Int
    tap: Int
    channel: Int
    code: NDArray[np.uint8]
    codebook: NDArray[np.int16]
    moves: bool = False

    @property
    def counts(self) -> Int:
        """Nonzeros of each output channel."""
        return np.diff(self.starts)

    @cached_property
    def channels_read(self) -> int:
        """How many channels of the source have a nonzero."""
        return int(np.count_nonzero(np.bincount(self.channel)))

    @cached_property
    def uniform(self) -> bool:
        """Whether the kernel has several places and the same weights at all of them, as an average has."""
        taps = math.prod(self.kernel)
        if taps == 1 or not len(self.code) or (self.counts % taps).any():
            return False
        each = np.repeat(self.counts // taps, self.counts)  # nonzeros of a place
        within = np.arange(len(self.code)) - np.repeat(self.starts[:-1], self.counts)
        first = np.repeat(self.starts[:-1], self.counts) + within % each
        same = (self.tap == within // each) & (self.channel == self.channel[first]) & (self.code == self.code[first])
        return bool(same.all())

    @cached_property
    def narrow(self) -> Segment:
        """Of a `uniform` segment the first place alone."""
        here = self.tap == 0
        return replace(
            self, kernel=(1, 1), starts=self.starts // math.prod(self.kernel), tap=self.tap[here],
            channel=self.channel[here], code=self.code[here],
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class ProgramLayer:
    """One layer.

    Attributes
    ----------
    name : unique in the program.
    result : number of the map that it writes.
    segments : windows whose products are added, in this order.
    bias : int64 (channels,) in units of the products. shift : int64 (channels,), 0 … 31.
    low, high : limits of the results; ReLU is low 0.
    pool, pool_stride : a pixel of the result is the largest of ``pool`` pixels, which are not shared with other pixels;
        (1, 1) where there is no pooling.
    maximum : the result is the largest activation that the segments' nonzeros name, instead of a sum; its bias is
        -32768 and its shift 0.
    exact : weights and bias are represented without any rounding.
    products : multiplications of a dense layer, for one sample.
    functions : at most two. which : (channels,) number of each channel's function, 1 or 2, 0 for none; None: all 0.
    moves : it makes one pixel of its result, the next one in each round of the loop. pixel : the first.
    rates : int64 (channels,), of how many of its nonzeros the activation is not zero on average, in parts of `RATES`;
        None if nothing tells the channels apart.
    """

    name: str
    result: int
    segments: tuple[Segment, ...]
    bias: Int
    shift: Int
    low: int = LOW
    high: int = HIGH
    pool: Pair = (1, 1)
    pool_stride: Pair = (1, 1)
    maximum: bool = False
    exact: bool = True
    products: int = 0
    functions: tuple[Function, ...] = ()
    which: Int | None = None
    moves: bool = False
    pixel: int = 0
    rates: Int | None = None

    @property
    def work(self) -> Int:
        """Nonzeros of each output channel."""
        found: Int = np.sum([segment.counts for segment in self.segments], axis=0)
        return found

    @property
    def load(self) -> Int:
        """Nonzeros of each output channel times its rate, or `RATES`."""
        return self.work * (RATES if self.rates is None else self.rates)

    @cached_property
    def channelwise(self) -> bool:
        """Each output channel reads a channel of its own of each segment, as in a depthwise convolution."""
        for each in self.segments:
            used = each.counts > 0
            read = each.channel[each.starts[:-1][used]]
            if len(np.unique(read)) < len(read) or not np.array_equal(each.channel, np.repeat(read, each.counts[used])):
                return False
        return True

    def made(self, form: MapForm) -> MapForm:
        """What it makes of its result at once."""
        return replace(form, height=1, width=1) if self.moves else form


@dataclass(frozen=True)
class Operand:
    """What an operation reads or makes: a part of a map from pixel ``pixel`` of its row on; ``moves`` as in Segment."""

    map: int
    part: int = 0
    pixel: int = 0
    moves: bool = False


@dataclass(frozen=True)
class Operation:
    """``result = function(limit((a * (b or scale_a) + c * (e or scale_c) + offset) / 2**shift))``, number by number.

    All that it reads and makes has one layout. Without c there is no second product.
    """

    name: str
    result: Operand
    a: Operand
    b: Operand | None = None
    c: Operand | None = None
    e: Operand | None = None
    scale_a: int = 0
    scale_c: int = 0
    offset: int = 0
    shift: int = 0
    low: int = LOW
    high: int = HIGH
    function: Function | None = None

    @property
    def reads(self) -> dict[str, Operand]:
        """The operands that it has, by name."""
        named = {"a": self.a, "b": self.b, "c": self.c, "e": self.e}
        return {name: each for name, each in named.items() if each is not None}


def touched(step: ProgramLayer | Operation) -> tuple[list[Operand], Operand]:
    """What a step reads and what it makes."""
    if isinstance(step, Operation):
        return list(step.reads.values()), step.result
    reads = [Operand(segment.source, moves=segment.moves) for segment in step.segments]
    return reads, Operand(step.result, pixel=step.pixel, moves=step.moves)


@dataclass(frozen=True)
class Loop:
    """Steps ``first`` to ``last`` run ``count`` times; what moves goes on a pixel a round, or back if `reverse`."""

    first: int
    last: int
    count: int
    reverse: bool


@dataclass(frozen=True, eq=False)
class Program:
    """Layers and operations in order of computation; `inputs` and `outputs` are numbers of maps.

    Attributes
    ----------
    operations : the elementwise ones. order : all steps, each as the number of a layer, or -1 - the number of an
        operation; empty: the layers. loops : successive steps that repeat; they do not overlap.
    pitch : lines from pixel to pixel of the maps that move.
    """

    maps: tuple[MapForm, ...]
    layers: tuple[ProgramLayer, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operations: tuple[Operation, ...] = ()
    order: tuple[int, ...] = ()
    loops: tuple[Loop, ...] = ()
    pitch: int = 0

    @property
    def steps(self) -> list[ProgramLayer | Operation]:
        """All layers and operations in order."""
        if not self.order:
            return list(self.layers)
        return [self.layers[n] if n >= 0 else self.operations[-1 - n] for n in self.order]

    @property
    def looped(self) -> frozenset[int]:
        """Numbers of the layers that are in a loop."""
        return frozenset(n for each in self.loops for n in self.order[each.first : each.last + 1] if n >= 0)

    @property
    def tables(self) -> list[tuple[int, ...]]:
        """The different tables of all functions, in order of use."""
        found = [each.table for layer in self.layers for each in layer.functions]
        found += [each.function.table for each in self.operations if each.function is not None]
        return list(dict.fromkeys(found))

    def verify(self, params: Params) -> None:
        """Check names, order and ranges; `compiler.lower.program_check` has what loops and operations need.

        Raises
        ------
        ModelError
            Listing every violation.
        """
        wrong = [] if self.layers else ["the program has no layers"]
        for kind, names in (("layer", [n.name for n in self.layers]), ("map", [n.name for n in self.maps])):
            wrong += [f"{kind} name {n!r} is used twice" for n in dict.fromkeys(names) if names.count(n) > 1]
        made, limit = set(self.inputs), 1 << (params.acc_bits - 1)
        if sorted(n for n in self.order if n >= 0) != list(range(len(self.layers) if self.order else 0)):
            wrong.append(f"the order of steps {self.order} does not have each of {len(self.layers)} layers once")
        for layer in self.steps:
            if isinstance(layer, Operation):
                wrong += self._wrong_operation(layer, made)
                made.add(layer.result.map)
                continue
            channels = self.maps[layer.result].channels
            if layer.result in made:
                wrong.append(f"{layer.name}: its result is made before")
            named = 0 if layer.which is None else int(layer.which.max(initial=0))
            if named != len(layer.functions) or (layer.which is not None and layer.which.shape != (channels,)):
                wrong.append(f"{layer.name}: its channels name {named} functions; it has {len(layer.functions)}")
            if len(layer.functions) > FUNCTIONS:
                wrong.append(f"{layer.name}: {len(layer.functions)} functions; expected at most {FUNCTIONS}")
            for segment in layer.segments:
                if segment.source not in made:
                    wrong.append(
                        f"{layer.name}: it reads {self.maps[segment.source].name!r}, which is not made before it"
                    )
                if segment.codebook.shape != (1 << params.code_bits,) or segment.codebook[0]:
                    shape = segment.codebook.shape
                    wrong.append(f"{layer.name}: codebook is {shape}; expected {1 << params.code_bits}, the first zero")
            if layer.bias.shape != (channels,) or layer.shift.shape != (channels,):
                wrong.append(
                    f"{layer.name}: bias {layer.bias.shape}, shift {layer.shift.shape}; expected ({channels},)"
                )
            elif not 0 <= int(layer.shift.min()) <= int(layer.shift.max()) <= MAX_SHIFT:
                wrong.append(f"{layer.name}: shifts are {layer.shift}; expected 0 to {MAX_SHIFT}")
            elif int(layer.bias.min()) < -limit or int(layer.bias.max()) >= limit:
                wrong.append(f"{layer.name}: bias does not fit {params.acc_bits} bits")
            made.add(layer.result)
        wrong += [f"output {self.maps[n].name!r} is not made" for n in self.outputs if n not in made]
        if len(self.tables) > params.tables:
            wrong.append(f"{len(self.tables)} function tables; the array has {params.tables}")
        if wrong:
            raise ModelError("; ".join(wrong))

    def _wrong_operation(self, operation: Operation, made: set[int]) -> list[str]:
        wrong = []
        result = self.maps[operation.result.map]
        for each in operation.reads.values():
            form = self.maps[each.map]
            if each.map not in made:
                wrong.append(f"{operation.name}: it reads {form.name!r}, which is not made before it")
            if (form.layout, form.units) != (result.layout, result.units):
                wrong.append(f"{operation.name}: {form.name!r} has another layout than {result.name!r}")
        return wrong


def segment_of(
    source: int,
    codes: NDArray[np.uint8],
    codebook: NDArray[np.int16],
    *,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
    origin: Pair = (0, 0),
) -> Segment:
    """A segment from codes (outputs, kernel rows, kernel columns, channels of the source)."""
    outputs, rows, columns, channels = codes.shape
    flat = np.flatnonzero(_kept(codes, codebook))
    size = rows * columns * channels
    starts = np.searchsorted(flat, np.arange(outputs + 1) * size)
    within = flat % size
    tap, channel = np.divmod(within, channels) if rows * columns > 1 else (np.zeros_like(within), within)
    return Segment(
        source, (rows, columns), stride, dilation, origin, starts, tap, channel,
        np.ascontiguousarray(codes).reshape(-1)[flat], codebook,
    )  # fmt: skip


def _kept(codes: NDArray[np.uint8], codebook: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Where a code has a weight: zeros of the codebook need no entry."""
    most = int(codes.max(initial=0))
    if most < len(codebook) and not codebook[0] and codebook[1 : most + 1].all():
        return np.not_equal(codes, 0)  # of a hundred million codes a table takes six times as long
    kept = np.zeros(1 << 8, np.bool_)
    kept[: len(codebook)] = codebook != 0
    return kept[codes]


def chain_program(chain: Chain, name: str = "input", height: int = 1, width: int = 1) -> Program:
    """A chain of fully connected layers for each of height x width pixels; its input is called `name`."""
    first = chain.layers[0]
    maps = [MapForm(name, first.codes.shape[1], height, width, first.input_exponent)]
    layers = []
    for layer in chain.layers:
        maps.append(MapForm(layer.name, layer.codes.shape[0], height, width, layer.output_exponent))
        layers.append(_connected(layer, len(maps) - 2, height * width))
    return Program(tuple(maps), tuple(layers), (0,), (len(maps) - 1,))


def _connected(layer: QuantizedLayer, source: int, pixels: int) -> ProgramLayer:
    outputs, inputs = layer.codes.shape
    return ProgramLayer(
        name=layer.name,
        result=source + 1,
        segments=(segment_of(source, layer.codes.reshape(outputs, 1, 1, inputs), layer.codebook),),
        bias=layer.bias,
        shift=np.full(outputs, layer.shift),
        low=0 if layer.activation == "relu" else LOW,
        exact=layer.exact,
        products=layer.codes.size * pixels,
    )
