"""Cases made for a situation that drawn ones hardly come to: a layer of one input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compiler.lower.build import build
from compiler.lower.chain import MAX_SHIFT
from compiler.lower.program import HIGH, LOW, Function, MapForm, Program, ProgramLayer, Segment, segment_of
from compiler.options import DEFAULT
from hw.params import FUNCTIONS, LANES, PIECES, Params
from sim.cases import Case

__all__ = ["MADE", "held_case", "shared_case", "shifts_case", "wraps_case"]

_VECTORS = 10
"""Vectors behind the first two: as many as are sent to the deepest queue of the campaign while credit lasts."""
_ROWS = 4
"""Rows of a PE."""
_FAR = 18
"""Shifts of a function by which nothing is left of a number, or all of it is too large, and one more."""


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


def _book(rng: np.random.Generator, params: Params) -> NDArray[np.int16]:
    """A codebook of any weights; the first is zero."""
    return np.concatenate([[0], rng.integers(LOW, HIGH + 1, (1 << params.code_bits) - 1)]).astype(np.int16)


def _case(
    rng: np.random.Generator, seed: int, params: Params, shape: tuple[int, int, int], segments: tuple[Segment, ...],
    pixels: tuple[int, int] = (1, 1),
) -> Case:  # fmt: skip
    """A layer of these segments."""
    outputs = len(segments[0].starts) - 1
    layer = ProgramLayer("made", 1, segments, rng.integers(LOW, HIGH + 1, outputs), np.full(outputs, 20))
    return _built(rng, seed, params, shape, [layer], pixels)


def _built(
    rng: np.random.Generator, seed: int, params: Params, shape: tuple[int, int, int], layers: Sequence[ProgramLayer],
    pixels: tuple[int, int] = (1, 1),
) -> Case:  # fmt: skip
    """Layers that read one input of (channels, height, width), without a zero; two samples."""
    channels, height, width = shape
    results = (MapForm(layer.name, len(layer.bias), *pixels, 0) for layer in layers)
    outputs = tuple(range(1, len(layers) + 1))
    image = build(
        Program((MapForm("x", channels, height, width, 0), *results), tuple(layers), (0,), outputs), params, DEFAULT
    )  # fmt: skip
    size = (2, height, width, channels)
    x = rng.integers(1, HIGH + 1, size) * rng.choice([-1, 1], size)
    return Case(seed, image, {"x": x.astype(np.int16)})


MADE = {"held": held_case, "shared": shared_case, "shifts": shifts_case, "wraps": wraps_case}
"""By the name of the kind."""
