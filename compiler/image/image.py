"""What an image holds: the contents of the array's memories, and what a user wants to know of the layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from compiler.image.steps import AnyStep, ElementwiseStep, LoopStep, Step, parse_program
from compiler.options import DEFAULT, Options
from compiler.short import few
from hw.layouts import identity
from hw.params import LANES, Params

__all__ = ["TENSORS", "Image", "LayerInfo", "MapInfo", "Planar"]

TENSORS: dict[str, tuple[str, int]] = {  # dtype in safetensors' spelling, dimensions
    "entries": ("U8", 3),
    "pointers": ("U8", 3),
    "tiles": ("U8", 2),
    "codebooks": ("I16", 2),
    "table": ("U8", 3),
    "functions": ("I16", 2),
    "descriptors": ("U8", 2),
    "orders": ("I32", 1),
}
"""The tensors of an image in a file."""


class Planar:
    """What follows of a map from its planes; `vectors`, `lines` and `planes` are those of the map."""

    vectors: int
    lines: int
    planes: int

    @property
    def plane(self) -> int:
        """Activation vectors of a pixel in a plane."""
        return self.vectors // self.planes

    @property
    def plane_lines(self) -> int:
        """Lines from plane to plane."""
        return self.lines // self.planes


@dataclass(frozen=True)
class MapInfo(Planar):
    """A value: height x width pixels of channels, in the frame of each sample in activation memory, or off chip.

    A vector of n numbers is a map of one pixel with n channels; a sequence is a map of one row.

    Attributes
    ----------
    name : unique in the image; the name of the value in the graph.
    channels, height, width : its numbers.
    vectors : activation vectors of a pixel that hold channels. pitch : activation vectors from pixel to pixel.
    row : activation vectors from row to row.
    base : first line in the frame of the first sample, or -1: it is off chip, and its rows pass through rings
        (`compiler.image.rings`). lines : lines that it takes, overhang included.
    planes : equal parts of the vectors of a pixel, each in a plane of its own, one plane behind the other; 1: together.
    exponent : value = raw * 2**exponent.
    density : share of its numbers that are not zero, in 256ths, or -1; what the compiler was told of it.
    axes : the order of its axes in the graph, of channels C, rows H and columns W; axes that are not named have size 1.
    layout, channel_parts (`parts`), block, at : as of `compiler.lower.program.MapForm`. walked : 1 if a loop walks over
        its pixels. They say of what the image was made; the array does not know them.
    """

    name: str
    channels: int
    height: int
    width: int
    vectors: int
    pitch: int
    row: int
    base: int
    lines: int
    planes: int
    exponent: int
    density: int
    axes: str
    layout: int
    channel_parts: int
    block: int
    at: int
    walked: int

    def addresses(self, groups: int) -> NDArray[np.int64]:
        """(height, width, vectors) of the frame's activation vectors in which it lies."""
        row = np.arange(self.height, dtype=np.int64).reshape(-1, 1, 1) * self.row
        pixel = np.arange(self.width, dtype=np.int64).reshape(1, -1, 1) * self.pitch
        plane, vector = np.divmod(np.arange(self.vectors, dtype=np.int64), self.plane)
        return (self.base + plane * self.plane_lines) * groups + row + pixel + vector

    @property
    def off_chip(self) -> bool:
        """It streams in and out by rows."""
        return self.base < 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the value in the graph."""
        sizes = {"C": self.channels, "H": self.height, "W": self.width}
        return tuple(sizes[axis] for axis in self.axes)


@dataclass(frozen=True)
class LayerInfo:
    """What a user of an image wants to know of a layer or an operation; the array itself needs only the descriptors.

    Attributes
    ----------
    name : unique in the image.
    sources : for each segment the number of its map; of an elementwise operation for each operand. In a loop, of the
        first round.
    result : number of the map that it writes.
    tile_y, tile_x : pixels of the result in a tile.
    exact : weights and bias are represented without any rounding.
    products : multiplications of a dense layer, for one sample.
    nonzeros : weights that are not zero (each counted once, however many copies the tile needs).
    entries, padding : stored entries in all, and the padding entries among them.
    parts : for each descriptor the segment of which it is a strip of window rows, or a streamed range.
    expected : cycles of the layer for one sample as the compiler judges or estimates them, of all blocks in the first.
    other : the tile that it would have taken otherwise, and cycles with it (tile_y, tile_x, cycles); empty if there is
        none.
    windows : for each segment eight numbers, rows before columns: kernel, stride, dilation, and the pixel of its map
        at which the window of the first pixel begins.
    pool : four numbers: pixels of which a result is the largest, and from those of one result to those of the next.
    rates : as of `compiler.lower.program.ProgramLayer`, of all blocks in the first; empty if there are none. They say
        of what the image was made.
    """

    name: str
    sources: tuple[int, ...]
    result: int
    tile_y: int
    tile_x: int
    exact: bool
    products: int
    nonzeros: int
    entries: int
    padding: int
    parts: tuple[int, ...]
    expected: int
    other: tuple[int, ...]
    windows: tuple[int, ...]
    pool: tuple[int, ...]
    rates: tuple[int, ...] = ()

    @property
    def descriptors(self) -> int:
        """How many it takes."""
        return len(self.parts)


@dataclass(frozen=True, eq=False)
class Image:
    """Memory contents of a network for one array.

    Attributes
    ----------
    params : the array.
    layers : one a layer. maps : one a value in activation memory.
    inputs, outputs : numbers of the maps that the host writes before a run, and reads after it; those off chip it sends
        and takes while the array runs.
    entries : uint8 (pes, words, word_bytes), weight memory as far as used.
    pointers : uint8 (pes, blocks, ceil(bits / 8)), pointer memory as far as used.
    tiles : uint8 (beats, 16), what the refill stream brings for each sample; empty if all layers stay on chip.
    codebooks : int16 (codebooks, 2**code_bits).
    table : uint8 (groups, words, ceil(bits / 8)), output table as far as used.
    functions : int16 (tables, 513), function tables.
    descriptors : uint8 (one for each segment, elementwise operation and end of a loop, and END; ceil(bits / 8)).
    orders : int32 (sum of 8 * vectors over maps,), for each map, lane of a pixel → channel, or -1 for an unused lane.
    frame : lines of activation memory for one sample; the first frame begins behind the `rings`.
    options : what the compiler was told; packing the network again takes the same. The array does not know them.
    """

    params: Params
    layers: tuple[LayerInfo, ...]
    maps: tuple[MapInfo, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    entries: NDArray[np.uint8]
    pointers: NDArray[np.uint8]
    tiles: NDArray[np.uint8]
    codebooks: NDArray[np.int16]
    table: NDArray[np.uint8]
    functions: NDArray[np.int16]
    descriptors: NDArray[np.uint8]
    orders: NDArray[np.int32]
    frame: int
    options: Options = DEFAULT

    def __repr__(self) -> str:
        layers = few(layer.name for layer in self.layers)
        size = sum(getattr(self, name).nbytes for name in TENSORS)
        return f"<Image: {self.params.pes} PEs, {size:,} bytes, layers {layers}>"

    @cached_property
    def identity(self) -> str:
        """Hash of parameters and layouts; an array with another one cannot run this image."""
        return identity(self.params)

    @cached_property
    def program(self) -> list[AnyStep]:
        """The descriptors in front of END."""
        return parse_program(self.params, self.descriptors)

    @cached_property
    def numbers(self) -> list[int]:
        """Number of the first descriptor of each layer; ends of loops stand between layers."""
        found, at = [], 0
        for layer in self.layers:
            while at < len(self.program) and isinstance(self.program[at], LoopStep):
                at += 1
            found.append(at)
            at += layer.descriptors
        return found

    @cached_property
    def steps(self) -> list[list[Step]]:
        """The segments of each layer; an elementwise operation has none."""
        return [
            [step for step in self.program[first : first + layer.descriptors] if isinstance(step, Step)]
            for first, layer in zip(self.numbers, self.layers, strict=True)
        ]

    @cached_property
    def operations(self) -> dict[int, ElementwiseStep]:
        """Number of the layer → the elementwise operation that it is."""
        found = ((n, self.program[first]) for n, first in enumerate(self.numbers) if first < len(self.program))
        return {n: step for n, step in found if isinstance(step, ElementwiseStep)}

    @cached_property
    def rings(self) -> int:
        """Lines in front of the first frame, in which the rings of the layers that stream lie."""
        ends = [0]
        for step in (steps[0] for steps in self.steps if steps):
            if step.stream_in:
                ends.append(step.ring_base + -(-step.ring_size // self.params.groups))
            if step.stream_out:
                ends.append(step.destination + step.out_rows * step.tile_lines)
        return max(ends)

    @cached_property
    def repeated(self) -> dict[int, LoopStep]:
        """Maps that a loop writes anew in each round, where they lie, and which loop; states are not among them."""
        found: dict[int, LoopStep] = {}
        for number, loop in enumerate(self.program):
            if not isinstance(loop, LoopStep):
                continue
            for layer, first in zip(self.layers, self.numbers, strict=True):
                step, result = self.program[first], layer.result
                moves = not isinstance(step, LoopStep) and step.moves_result
                if loop.first <= first < number and not moves and self.maps[result].block < 0:
                    found[result] = loop
        return {number: loop for number, loop in found.items() if number not in self.outputs}

    @cached_property
    def map_orders(self) -> list[NDArray[np.int32]]:
        """For each map, (8 * vectors,) lane of a pixel → channel (-1: unused)."""
        sizes = [LANES * each.vectors for each in self.maps]
        return np.split(self.orders, np.cumsum(sizes)[:-1])
