"""Cases made for situations that drawn ones hardly come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compiler.lower.build import build
from compiler.lower.chain import MAX_SHIFT
from compiler.lower.program import (
    HIGH,
    LOW,
    Function,
    MapForm,
    Operand,
    Operation,
    Program,
    ProgramLayer,
    Segment,
    segment_of,
)  # fmt: skip
from compiler.options import DEFAULT, Options
from hw.params import FUNCTIONS, LANES, PIECES, Params
from sim.cases import Case

__all__ = [
    "MADE", "apart_case", "barriers_case", "held_case", "lengths_case", "rows_case", "shared_case", "shifts_case",
    "wraps_case",
]  # fmt: skip

_VECTORS = 10
"""Vectors behind the first two: as many as are sent to the deepest queue of the campaign while credit lasts."""
_ROWS = 4
"""Rows of a PE."""
_FAR = 18
"""Shifts of a function by which nothing is left of a number, or all of it is too large, and one more."""
_LINES = 34
"""Lines of an operation: more than the row of a tile has on the arrays of the campaign."""
_SPARSE = 60
"""Vectors of which only some lanes are ever active."""


def held_case(seed: int, params: Params) -> Case:
    """A layer that holds queues up: a vector of many entries, and behind it as many vectors as credit lets.

    Fully connected, of inputs without a zero; it fits the memories of a given array, so that nothing streams. The first
    vector has entries for longer than all others take to come, and each of these has some in every PE, so queues go
    from one vector to as many as credit lets through.
    """
    rng = np.random.default_rng([seed, 23])
    width, height = LANES * (2 + _VECTORS), _ROWS * params.pes
    codes = rng.integers(1, 1 << params.code_bits, (height, 1, 1, width)).astype(np.uint8)
    rest = np.arange(width) >= LANES
    codes[..., rest & (np.arange(width) % LANES != 0)] = 0
    return _case(rng, seed, params, (width, 1, 1), (segment_of(0, codes, _book(rng, params)),))


def shared_case(seed: int, params: Params) -> Case:
    """A layer of three averages of windows: each of its segments has the same weights at all places."""
    rng = np.random.default_rng([seed, 31])
    channels, height = int(rng.integers(2, 6)), 2 * params.pes
    segments = []
    for kernel in rng.permutation([2, 3, 2]):
        codes = np.zeros((height, kernel, kernel, channels), np.uint8)
        codes[...] = rng.integers(1, 1 << params.code_bits, (height, 1, 1, channels))
        segments.append(segment_of(0, codes, _book(rng, params)))
    return _case(rng, seed, params, (channels, 5, 5), tuple(segments), (3, 3))


def wraps_case(seed: int, params: Params) -> Case:
    """The largest products there are, one after the other, so many that each accumulator comes to all of its values."""
    rng = np.random.default_rng([seed, 43])
    channels, kernel = 2 * LANES, 8
    book = np.where(np.arange(1 << params.code_bits) > 0, HIGH, 0).astype(np.int16)
    codes = np.ones((params.pes, kernel, kernel, channels), np.uint8)  # the same at all places: few entries
    case = _case(rng, seed, params, (channels, kernel, kernel), (segment_of(0, codes, book),))
    x = np.full((2, kernel, kernel, channels), HIGH, np.int16)
    x[1] = LOW
    return replace(case, x={"x": x})


def shifts_case(seed: int, params: Params) -> Case:
    """Layers whose outputs are shifted by every number of bits, and go through functions of every shift."""
    rng = np.random.default_rng([seed, 41])
    outputs = 3 * LANES
    codes = rng.integers(1, 1 << params.code_bits, (outputs, 1, 1, LANES)).astype(np.uint8)
    segments = (segment_of(0, codes, _book(rng, params)),)
    table = tuple(int(value) for value in rng.integers(LOW, HIGH + 1, PIECES + 1))
    layers: list[ProgramLayer] = []
    for first in range(-_FAR, _FAR + 1, FUNCTIONS):
        functions = [Function(table, max(-n, 0), max(n, 0)) for n in range(first, first + FUNCTIONS)]
        layers.append(
            ProgramLayer(
                f"by {first}", 1 + len(layers), segments, rng.integers(-(1 << 31), 1 << 31, outputs),
                (first + np.arange(outputs)) % (MAX_SHIFT + 1), functions=tuple(functions),
                which=1 + np.arange(outputs) % FUNCTIONS,
            )
        )  # fmt: skip
    return _built(rng, seed, params, (LANES, 1, 1), layers)


def barriers_case(seed: int, params: Params) -> Case:
    """Layers of three segments that wait for operations, the first in its second segment and the other in its first.

    Before them an operation writes more lines than a tile has in a row.
    """
    rng = np.random.default_rng([seed, 53])
    groups = params.groups

    def form(name: str, channels: int, layout: int) -> MapForm:
        return MapForm(name, channels, 1, 1, 0, layout=layout, vectors=channels // LANES)

    long, short = _LINES * groups * LANES, 2 * groups * LANES
    maps = [form("x", long, 0), form("y", short, 1), form("products", long, 0)]
    operations = [Operation("long", Operand(2), Operand(0), b=Operand(0), shift=15)]
    layers: list[ProgramLayer] = []
    for n in range(2):
        made, result = len(maps), len(maps) + 1
        maps += [form(f"made{n}", short, 1), MapForm(f"layer{n}", LANES, 1, 1, 0)]
        operations.append(Operation(f"operation{n}", Operand(made), Operand(1), b=Operand(1), shift=12 + n))
        segments = tuple(_dense(rng, params, source, LANES, short) for source in (made if n else 1, made, made))
        layers.append(_layer(rng, f"layer{n}", result, segments))
    program = Program(tuple(maps), tuple(layers), (0, 1), (2, 4, 6), tuple(operations), (-1, -2, 0, -3, 1))
    x = {each.name: _nonzero(rng, (2, 1, 1, each.channels)) for each in maps[:2]}
    return Case(seed, build(program, params, DEFAULT), x)


def rows_case(seed: int, params: Params) -> Case:
    """A layer of three windows of a map that streams in, and whose result streams out."""
    rng = np.random.default_rng([seed, 59])
    channels, height, width = 3, 12, 5
    segments = []
    for size in (3, 2, 3):
        codes = rng.integers(1, 1 << params.code_bits, (LANES, size, size, channels)).astype(np.uint8)
        segments.append(segment_of(0, codes, _book(rng, params), origin=(-1, -1)))
    layer = _layer(rng, "made", 1, tuple(segments))
    return _built(rng, seed, params, (channels, height, width), [layer], (height, width), Options(stream_io=True))


def apart_case(seed: int, params: Params) -> Case:
    """Streamed layers: one whose last rows are reached by padding entries, a maximum, and a small one.

    The smallest layer stays. Where the seed is odd, it is the first one, so that the counters of the others change
    places. The last layer reads what the one before it is writing.
    """
    rng = np.random.default_rng([seed, 61])
    channels, book = 8 * LANES, _book(rng, params)

    def dense(rows: int) -> NDArray[np.uint8]:
        """Weights of so many rows of each PE, none of them zero."""
        return rng.integers(1, 1 << params.code_bits, (rows * params.pes, 1, 1, channels)).astype(np.uint8)

    far = dense((1 << params.index_bits) + 1)  # one more than an index alone reaches
    far[: -params.pes, ..., : 2 * LANES] = 0  # for two vectors the last row of each PE alone, in all and in some PEs
    far[-params.pes :, ..., LANES : 2 * LANES] *= rng.random((params.pes, 1, 1, LANES)) < 0.7
    named = {"far": far, "maximum": dense(8), "one": dense(3), "stays": dense(1)}
    layers: list[ProgramLayer] = []
    for name in sorted(named, key=lambda name: (name != "stays") if seed % 2 else 0):
        layer = _layer(rng, name, 1 + len(layers), (segment_of(0, named[name], book),))
        if name == "maximum":
            still = np.zeros(len(layer.bias), np.int64)
            layer = replace(layer, bias=still + LOW, shift=still, maximum=True)
        layers.append(layer)
    written = layers[-1]
    reads = _dense(rng, params, written.result, params.pes, len(written.bias))
    layers.append(_layer(rng, "reads", 1 + len(layers), (replace(reads, codebook=book),)))
    return _built(rng, seed, params, (channels, 1, 1), layers, options=DEFAULT.replace(balanced=False))


def lengths_case(seed: int, params: Params) -> Case:
    """A layer of vectors of which a few lanes side by side are active, and only these have weights.

    What the pointer memory says of the other lanes does not matter, see `sim.coverage.disturbed.lengths_told`.
    """
    rng = np.random.default_rng([seed, 67])
    first = rng.integers(0, LANES, _SPARSE) * rng.integers(0, 2, _SPARSE)
    last = first + rng.integers(0, LANES - 2, _SPARSE)
    lanes = np.arange(LANES)
    active = (first[:, None] <= lanes) & (lanes <= last[:, None])
    outputs = min(params.rows, 16) * params.pes
    codes = rng.integers(1, 1 << params.code_bits, (outputs, 1, 1, active.size))
    codes = codes * active.reshape(-1) * (rng.random(codes.shape) < 0.27)
    case = _case(rng, seed, params, (active.size, 1, 1), (segment_of(0, codes.astype(np.uint8), _book(rng, params)),))
    turn = np.cumsum(active, axis=0)  # each nibble of a lane comes to all of its values
    some = rng.integers(0, 1 << 16, active.shape) * (rng.random(active.shape) < 0.5)
    x = np.stack([turn % 16 * 0x1111, (turn + 8) % 16 * 0x1111, some]).astype(np.uint16).view(np.int16) * active
    return replace(case, x={"x": x.reshape(len(x), 1, 1, active.size)})


def _book(rng: np.random.Generator, params: Params) -> NDArray[np.int16]:
    """A codebook of any weights; the first is zero."""
    return np.concatenate([[0], rng.integers(LOW, HIGH + 1, (1 << params.code_bits) - 1)]).astype(np.int16)


def _case(
    rng: np.random.Generator, seed: int, params: Params, shape: tuple[int, int, int], segments: tuple[Segment, ...],
    pixels: tuple[int, int] = (1, 1),
) -> Case:  # fmt: skip
    """A layer of these segments."""
    return _built(rng, seed, params, shape, [_layer(rng, "made", 1, segments)], pixels)


def _layer(rng: np.random.Generator, name: str, result: int, segments: tuple[Segment, ...]) -> ProgramLayer:
    outputs = len(segments[0].starts) - 1
    return ProgramLayer(name, result, segments, rng.integers(LOW, HIGH + 1, outputs), np.full(outputs, 20))


def _dense(rng: np.random.Generator, params: Params, source: int, outputs: int, channels: int) -> Segment:
    """Weights of a window of one pixel, none of them zero."""
    codes = rng.integers(1, 1 << params.code_bits, (outputs, 1, 1, channels)).astype(np.uint8)
    return segment_of(source, codes, _book(rng, params))


def _nonzero(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int16]:
    found: NDArray[np.int16] = (rng.integers(1, HIGH + 1, shape) * rng.choice([-1, 1], shape)).astype(np.int16)
    return found


def _built(
    rng: np.random.Generator, seed: int, params: Params, shape: tuple[int, int, int], layers: Sequence[ProgramLayer],
    pixels: tuple[int, int] = (1, 1), options: Options = DEFAULT,
) -> Case:  # fmt: skip
    """Layers that read one input of (channels, height, width), without a zero; two samples."""
    channels, height, width = shape
    results = (MapForm(layer.name, len(layer.bias), *pixels, 0) for layer in layers)
    outputs = tuple(range(1, len(layers) + 1))
    image = build(
        Program((MapForm("x", channels, height, width, 0), *results), tuple(layers), (0,), outputs), params, options
    )  # fmt: skip
    return Case(seed, image, {"x": _nonzero(rng, (2, height, width, channels))})


MADE = {
    "apart": apart_case, "barriers": barriers_case, "held": held_case, "rows": rows_case, "shared": shared_case,
    "shifts": shifts_case, "wraps": wraps_case,
}  # fmt: skip
"""By the name of the kind."""
