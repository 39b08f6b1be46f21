"""What one image computes, still without memories: maps, and layers of segments between them.

A layer adds, for every pixel and channel of its result, the products of one window of each of its segments;
`Program.verify` states what must hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ModelError
from compiler.lower.chain import MAX_SHIFT, Chain, QuantizedLayer
from hw.params import Params

__all__ = [
    "HIGH",
    "LOW",
    "MapForm",
    "Pair",
    "Program",
    "ProgramLayer",
    "Segment",
    "chain_program",
    "segment_of",
    "usual_axes",
]

Int = NDArray[np.int64]
Pair = tuple[int, int]
"""A number for each axis of a map: rows first."""

LOW, HIGH = -(1 << 15), (1 << 15) - 1


def usual_axes(height: int, width: int) -> str:
    """The axes of a map that has no more of them than it needs, channels first."""
    return "C" if height == width == 1 else "CW" if height == 1 else "CHW"


@dataclass(frozen=True)
class MapForm:
    """A value: height x width pixels of channels, and the power of two of its numbers.

    density : share of its numbers that are not zero, if it is known.
    axes : order of its axes in the graph, one of `compiler.graph.integer.ARRAY_AXES`; unless given, channels first.
    """

    name: str
    channels: int
    height: int
    width: int
    exponent: int
    density: float | None = None
    axes: str = ""

    def __post_init__(self) -> None:
        if not self.axes:
            object.__setattr__(self, "axes", usual_axes(self.height, self.width))


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

    @property
    def counts(self) -> Int:
        """Nonzeros of each output channel."""
        return np.diff(self.starts)

    @cached_property
    def channels_read(self) -> int:
        """How many channels of the source have a nonzero."""
        return int(np.count_nonzero(np.bincount(self.channel)))


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

    @property
    def work(self) -> Int:
        """Nonzeros of each output channel."""
        found: Int = np.sum([segment.counts for segment in self.segments], axis=0)
        return found

    @cached_property
    def channelwise(self) -> bool:
        """Each output channel reads a channel of its own of each segment, as in a depthwise convolution."""
        for each in self.segments:
            used = each.counts > 0
            read = each.channel[each.starts[:-1][used]]
            if len(np.unique(read)) < len(read) or not np.array_equal(each.channel, np.repeat(read, each.counts[used])):
                return False
        return True


@dataclass(frozen=True, eq=False)
class Program:
    """Layers in order of computation; `inputs` and `outputs` are numbers of maps."""

    maps: tuple[MapForm, ...]
    layers: tuple[ProgramLayer, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def verify(self, params: Params) -> None:
        """Check names, order and ranges.

        Raises
        ------
        ModelError
            Listing every violation.
        """
        wrong = [] if self.layers else ["the program has no layers"]
        for kind, names in (("layer", [n.name for n in self.layers]), ("map", [n.name for n in self.maps])):
            wrong += [f"{kind} name {n!r} is used twice" for n in dict.fromkeys(names) if names.count(n) > 1]
        made, limit = set(self.inputs), 1 << (params.acc_bits - 1)
        for layer in self.layers:
            channels = self.maps[layer.result].channels
            if layer.result in made:
                wrong.append(f"{layer.name}: its result is made before")
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
        if wrong:
            raise ModelError("; ".join(wrong))


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
    kept = np.zeros(1 << 8, np.bool_)  # zeros of the codebook need no entry
    kept[: len(codebook)] = codebook != 0
    flat = np.flatnonzero(kept[codes])
    size = rows * columns * channels
    starts = np.searchsorted(flat, np.arange(outputs + 1) * size)
    within = flat % size
    tap, channel = np.divmod(within, channels) if rows * columns > 1 else (np.zeros_like(within), within)
    return Segment(
        source, (rows, columns), stride, dilation, origin, starts, tap, channel,
        np.ascontiguousarray(codes).reshape(-1)[flat], codebook,
    )  # fmt: skip


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
