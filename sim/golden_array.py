"""The golden model of the array: tiles, windows, outputs and elementwise operations in integers, bit for bit.

Arithmetic is that of docs/numerics.md, sections 1 and 3; where numbers come from and go to is what the descriptors say.
PEs, queues, weight and pointer memory do not exist here: `sim.decode` reads the matrices back from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from compiler.image.steps import ElementwiseStep, Step
from hw.params import LANES
from sim.golden_ops import HIGH, LOW, saturate, shifted, wrap

__all__ = [
    "Function", "Layer", "LayerRun", "Operation", "Outputs", "Program", "Round", "Segment", "run_layers",
    "window_addresses", "word_lines",
]  # fmt: skip

Int = NDArray[np.int64]

CHUNK = 1 << 22
"""Activations of windows that are held at once."""

WRAP = 1 << 24
"""Addresses of activation vectors are modulo this: windows may begin in front of their map."""


@dataclass(frozen=True, eq=False)
class Segment:
    """One window with its weights.

    Attributes
    ----------
    step : the descriptor.
    weight : int64 CSR (terms, 8 * vectors of the window); columns in the order of the scan, by lane within a vector.
    """

    step: Step
    weight: scipy.sparse.csr_array


@dataclass(frozen=True, eq=False)
class Round:
    """One more term for some of the outputs.

    Attributes
    ----------
    terms : rows of the weights. outputs : which outputs they join. bias : int64, added to each.
    maximum : which of them join by maximum instead of by sum.
    """

    terms: Int
    outputs: Int
    bias: Int
    maximum: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Function:
    """int64 (513,) numbers of a table, and the shifts of what is looked up."""

    table: Int
    left: int
    right: int

    def __call__(self, y: Int) -> Int:
        """Table of docs/numerics.md, section 7."""
        place, _ = saturate(shifted(y << self.left, self.right))
        piece, part = (place >> 7) + 256, place & 127
        found: Int = self.table[piece] + (((self.table[piece + 1] - self.table[piece]) * part + 64) >> 7)
        return found


@dataclass(frozen=True, eq=False)
class Outputs:
    """The outputs of a tile, n of them; term k of the weights is the first of output k.

    Attributes
    ----------
    bias : int64 (n,). shift : int64 (n,). rounds : further terms, in order.
    place : flat place of each in the tile's words, (lines, groups, 8). lines : lines of a tile. groups : of the array.
    low, high : limits of the results. function : int64 (n,), number of each output's function, 0 for none. functions :
        functions 1 and 2 of the layer.
    """

    bias: Int
    shift: Int
    rounds: tuple[Round, ...]
    place: Int
    lines: int
    groups: int
    low: int
    high: int
    function: Int
    functions: tuple[Function, ...] = ()

    @property
    def pooled(self) -> int:
        """Pixels of which the largest is an output."""
        joined = sum(int(step.maximum.sum()) for step in self.rounds)
        return 1 + joined // max(1, len(self.bias))


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of the hardware.

    Attributes
    ----------
    name : of the layer of the image that it belongs to. number : of that layer. result : number of the map.
    maximum : accumulators take the maximum of the activations instead of the sum of products.
    """

    name: str
    number: int
    result: int
    maximum: bool
    segments: tuple[Segment, ...]
    outputs: Outputs

    @property
    def step(self) -> Step:
        """The first descriptor: all of a layer say the same of its tiles."""
        return self.segments[0].step

    @cached_property
    def lines(self) -> Int:
        """(tiles, lines) of the frame that are written, in the order in which they are."""
        return word_lines(self.step, self.outputs.lines)


@dataclass(frozen=True, eq=False)
class Operation:
    """One elementwise operation; `name`, `number` and `result` as of a layer. ``function``: what comes last, if any."""

    name: str
    number: int
    result: int
    step: ElementwiseStep
    function: Function | None

    @property
    def lines(self) -> Int:
        """(1, lines) of the frame that are written."""
        return self.step.result + np.arange(self.step.lines, dtype=np.int64)[np.newaxis]


@dataclass(frozen=True, eq=False)
class Program:
    """An image, decoded.

    Attributes
    ----------
    layers : layers of the hardware and operations, in the order of their descriptors.
    rounds : what runs, in order: places in `layers`, and the loop offset.
    """

    layers: tuple[Layer | Operation, ...]
    rounds: tuple[tuple[int, int], ...]

    @cached_property
    def runs(self) -> list[Layer | Operation]:
        """What runs, in order, at the lines of its round."""
        return [moved(self.layers[n], offset) for n, offset in self.rounds]


def moved(layer: Layer | Operation, offset: int) -> Layer | Operation:
    """A layer or operation in a round of a loop with this offset."""
    if not offset:
        return layer
    if isinstance(layer, Operation):
        step = layer.step
        lines = {
            name: getattr(step, name) + offset
            for name in ("a", "b", "c", "e", "result") if getattr(step, f"moves_{name}")
        }  # fmt: skip
        return replace(layer, step=replace(step, **lines))
    groups = layer.outputs.groups
    return replace(layer, segments=tuple(
        replace(segment, step=replace(
            segment.step, source=(segment.step.source + offset * groups * segment.step.moves_source) % WRAP,
            destination=segment.step.destination + offset * segment.step.moves_result,
        ))
        for segment in layer.segments
    ))  # fmt: skip


@dataclass(frozen=True, eq=False)
class LayerRun:
    """What a layer or operation did.

    Attributes
    ----------
    words : int16 (batch, tiles, lines, groups, 8), what is written to `Layer.lines`.
    saturated : int64 (batch,), results that did not fit int16.
    masks : for each segment uint8 (batch, height, width, vectors), bit n of a vector: lane n is not zero; zero where
        the window does not read. Empty unless asked for.
    """

    words: NDArray[np.int16]
    saturated: Int
    masks: tuple[NDArray[np.uint8], ...]


def window_addresses(step: Step) -> tuple[Int, NDArray[np.bool_]]:
    """(tiles, positions) of the frame's activation vectors at which a position begins, and whether it is in the map."""
    tile_y, tile_x = (axis.reshape(-1, 1) for axis in np.indices((step.tiles_y, step.tiles_x), np.int64))
    i, j = (axis.reshape(1, -1) for axis in np.indices((step.wy, step.wx), np.int64))
    y = step.y0 + tile_y * step.step_y + i * step.dy
    x = step.x0 + tile_x * step.step_x + j * step.dx
    inside = (y >= 0) & (y < step.height) & (x >= 0) & (x < step.width)
    address = step.source + tile_y * step.tile_pitch_y + tile_x * step.tile_pitch_x
    return (address + i * step.window_pitch + j * step.position_pitch) % WRAP, inside


def word_lines(step: Step, lines: int) -> Int:
    """(tiles, lines) of the frame that the tiles of a layer write, in order."""
    tile_y, tile_x = (axis.reshape(-1, 1) for axis in np.indices((step.tiles_y, step.tiles_x), np.int64))
    row, line = np.divmod(np.arange(lines, dtype=np.int64), max(1, step.row_lines))
    first = step.destination + tile_y * step.tile_lines + tile_x * step.column_lines
    places: Int = first + row * step.row_pitch + line
    return places


def run_layers(
    program: Program, memory: NDArray[np.int16], acc_bits: int, *, masks: bool = False
) -> Iterator[LayerRun]:
    """Run layers and operations, one after the other, as often as loops say.

    Parameters
    ----------
    program : the image, decoded.
    memory : int16 (batch, lines, groups, 8), the frames of a batch with its inputs in place; is written to.
    acc_bits : accumulator width; sums wrap modulo ``2**acc_bits``.
    masks : also tell which activations the segments read are not zero.
    """
    for layer in program.runs:
        seen: tuple[NDArray[np.uint8], ...] = ()
        if isinstance(layer, Operation):
            words, saturated = _operate(layer, memory, acc_bits)
        else:
            vectors = memory.reshape(len(memory), -1, LANES)
            seen = tuple(_masks(segment.step, vectors) for segment in layer.segments) if masks else ()
            words, saturated = _run_layer(layer, vectors, acc_bits)
        lines = layer.lines.reshape(-1)
        memory[:, lines] = words.reshape(len(memory), len(lines), *memory.shape[2:])
        yield LayerRun(words, saturated, seen)


def _operate(operation: Operation, memory: NDArray[np.int16], acc_bits: int) -> tuple[NDArray[np.int16], Int]:
    """Words (batch, 1, lines, groups, 8) and saturations. Lines are read before any is written: each is read first."""
    step = operation.step
    values = {
        name: memory[:, getattr(step, name) : getattr(step, name) + step.lines].astype(np.int64)
        for name in "abce" if name == "a" or getattr(step, f"has_{name}")
    }  # fmt: skip
    total = values["a"] * values.get("b", step.scale_a)
    if step.has_c:
        total = total + values["c"] * values.get("e", step.scale_c)
    exact = shifted(wrap(total + step.offset, acc_bits), step.shift)
    clipped = (exact > HIGH) | ((exact < LOW) & (step.low < 0))
    result = np.clip(exact, step.low, step.high)
    if operation.function is not None:
        result = operation.function(result)
    return result.astype(np.int16)[:, np.newaxis], clipped.reshape(len(memory), -1).sum(axis=1)


def _run_layer(layer: Layer, vectors: NDArray[np.int16], acc_bits: int) -> tuple[NDArray[np.int16], Int]:
    """Words and saturations; a layer reads nothing that it writes itself, so tiles may be computed side by side."""
    batch, tiles, outputs = len(vectors), layer.step.tiles, layer.outputs
    words = np.zeros((batch, tiles, outputs.lines * outputs.groups * LANES), np.int16)
    saturated = np.zeros(batch, np.int64)
    widest = max(segment.weight.shape[1] for segment in layer.segments)
    places = [window_addresses(segment.step) for segment in layer.segments]
    samples = max(1, CHUNK // (tiles * widest))
    together = max(1, CHUNK // (samples * widest))
    for first in range(0, batch, samples):
        part = vectors[first : first + samples]
        for tile in range(0, tiles, together):
            raw: Int = np.zeros((), np.int64)
            for segment, (address, inside) in zip(layer.segments, places, strict=True):
                x = _window(segment.step, part, address[tile : tile + together], inside[tile : tile + together])
                if layer.maximum:
                    raw = np.maximum(raw, _largest(segment.weight, x, bool(segment.step.dense)))
                else:
                    raw = raw + _product(segment.weight, x)
            result, clipped = _finish(outputs, raw, acc_bits)
            shape = (len(result), len(part), -1)
            words[first : first + samples, tile : tile + together, outputs.place] = np.moveaxis(
                result.reshape(shape), 0, 2
            )
            saturated[first : first + samples] += clipped.reshape(shape).sum(axis=(0, 2))
    return words.reshape(batch, tiles, outputs.lines, outputs.groups, LANES), saturated


def _window(
    step: Step, vectors: NDArray[np.int16], address: Int, inside: NDArray[np.bool_]
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """(batch * tiles, columns) activations of windows, zero outside the map, and which columns lie inside."""
    batch, (tiles, positions) = len(vectors), address.shape
    if tiles * positions == 1 and inside.all():  # a fully connected layer: no copy
        first = int(address[0, 0])
        return vectors[:, first : first + step.vectors].reshape(batch, -1), np.ones((1, 1), np.bool_)
    every = np.where(inside, address, 0)[:, :, np.newaxis] + np.arange(step.vectors)
    found = vectors[:, every.reshape(tiles, -1)].reshape(batch, tiles, positions, -1)
    found[:, ~inside] = 0
    shown = np.broadcast_to(inside[:, :, np.newaxis], (tiles, positions, found.shape[3]))
    return found.reshape(batch * tiles, -1), shown.reshape(tiles, -1)


def _product(weight: scipy.sparse.csr_array, x: tuple[NDArray[np.int16], NDArray[np.bool_]]) -> Int:
    """(terms, windows) sums of products, exact modulo 2**64."""
    values = x[0]
    if len(values) == 1:
        return np.asarray(weight @ values[0].astype(np.int64))[:, np.newaxis]
    return np.asarray(weight @ values.T.astype(np.int64, order="C"))


def _largest(
    weight: scipy.sparse.csr_array, x: tuple[NDArray[np.int16], NDArray[np.bool_]], dense: bool
) -> NDArray[np.int64]:
    """(terms, windows) largest activation plus 32768 of those with an entry, 0 if there is none.

    Positions outside the map are not sent, nor are zeros unless the segment is `dense`.
    """
    values, inside = x
    sent = np.tile(inside, (len(values) // len(inside), 1)) if dense else values != 0
    lifted = np.where(sent, values.astype(np.int64) - LOW, 0).T
    result = np.zeros((weight.shape[0], len(values)), np.int64)
    rows = np.flatnonzero(np.diff(weight.indptr))
    if len(rows):
        result[rows] = np.maximum.reduceat(lifted[weight.indices], weight.indptr[rows], axis=0)
    return result


def _finish(outputs: Outputs, raw: Int, acc_bits: int) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """(n, windows) results of terms (terms, windows), and which of them saturated."""
    total = wrap(raw[: len(outputs.bias)] + outputs.bias[:, np.newaxis], acc_bits)
    for step in outputs.rounds:
        part = wrap(raw[step.terms] + step.bias[:, np.newaxis], acc_bits)
        before = total[step.outputs]
        joined = np.where(step.maximum[:, np.newaxis], np.maximum(before, part), wrap(before + part, acc_bits))
        total[step.outputs] = joined
    exact = shifted(total, outputs.shift[:, np.newaxis])
    clipped = exact > HIGH
    if outputs.low < 0:
        clipped |= exact < LOW
    result = np.clip(exact, outputs.low, outputs.high)
    for number, function in enumerate(outputs.functions, 1):
        mine = outputs.function == number
        result[mine] = function(result[mine])
    return result.astype(np.int16), clipped


def _masks(step: Step, vectors: NDArray[np.int16]) -> NDArray[np.uint8]:
    """What of a map a segment's windows read: bit n of a vector says that its lane n is not zero."""
    address, inside = window_addresses(step)
    tile_y, tile_x = np.indices((step.tiles_y, step.tiles_x)).reshape(2, -1, 1)
    i, j = np.indices((step.wy, step.wx)).reshape(2, 1, -1)
    pixel = (step.y0 + tile_y * step.step_y + i * step.dy) * step.width + step.x0 + tile_x * step.step_x + j * step.dx
    pixels, first = np.unique(pixel[inside], return_index=True)
    every = address[inside][first][:, np.newaxis] + np.arange(step.vectors)
    result = np.zeros((len(vectors), step.height * step.width, step.vectors), np.uint8)
    result[:, pixels] = np.packbits(vectors[:, every] != 0, axis=-1, bitorder="little")[..., 0]
    return result.reshape(len(vectors), step.height, step.width, step.vectors)
