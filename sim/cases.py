"""Random small networks and inputs that reach the corners of the array; every case replays from its seed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.image.image import Image
from compiler.lower.build import build
from compiler.lower.program import HIGH, LOW, MapForm, Program, ProgramLayer, Segment, segment_of
from compiler.options import Options
from hw.params import ROUND_TRIP, Params

__all__ = ["Case", "random_case", "random_input", "random_network", "random_options", "random_params"]

KINDS = ("full", "window", "pooled", "maximum")
"""Layers: of one pixel, of windows, of windows with the maximum of neighbouring pixels, the maximum of a window."""


@dataclass(frozen=True)
class Case:
    """One trial: an image, and for each of its inputs raw int16 (batch, H, W, C) by name."""

    seed: int
    image: Image
    x: Mapping[str, NDArray[np.int16]]


def random_params(rng: np.random.Generator, max_pes: int = 16) -> Params:
    """A small array. Queue depths near the minimum come often: only a full queue shows the credit rule."""
    pes = 1 << int(rng.integers(0, max_pes.bit_length()))
    params = Params(
        pes=pes,
        index_bits=int(rng.integers(4, 9)),
        code_bits=int(rng.integers(2, 9)),
        rows=int(rng.choice([8, 16, 40, 64])),
        queue_depth=ROUND_TRIP + 1 + int(rng.choice([0, 0, 1, 2, 3, 10, 58])),
        weight_words=1024,
        pointer_blocks=1024,
        act_lines=1024,
        output_words=1024,
        codebooks=4,
        descriptors=64,
        acc_bits=int(rng.choice([33, 40, 48])),
        refill=bool(rng.integers(0, 2)),
    )
    hops = int(rng.choice([0, 0, 1, 2]))
    return params.replace(hops=hops, queue_depth=params.queue_depth + 2 * hops)


def random_options(rng: np.random.Generator) -> Options:
    """Mostly those that the compiler has of itself."""
    return Options(
        balanced=bool(rng.random() < 0.7),
        skip_empty=bool(rng.random() < 0.8),
        fragments=int(rng.choice([1, 2, 4, 8, 8])),
    )


def random_network(rng: np.random.Generator, params: Params) -> Program:
    """One to three layers with random shapes, densities, shifts, biases; sums may saturate, and with 33 bits wrap."""
    maps = [_random_map(rng, "input", int(rng.choice(["vector", "sequence", "map"], p=[0.5, 0.1, 0.4]) != "vector"))]
    if rng.random() < 0.15:
        maps.append(replace(_random_map(rng, "other", 1), exponent=0))
    inputs = tuple(range(len(maps)))
    books = [_codebook(rng, params) for _ in range(min(params.codebooks, 2))]
    layers = []
    for n in range(int(rng.integers(1, 4))):
        maximum_fits = n > 0 or maps[0].height * maps[0].width > 1
        kind = str(rng.choice(KINDS, p=[0.4, 0.3, 0.15, 0.15] if maximum_fits else [0.5, 0.3, 0.2, 0.0]))
        small = kind == "full"
        channels = int(rng.integers(1, 97 if small else 13))
        size = (1, 1) if small else (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
        sources = [len(maps) - 1, *([int(rng.integers(0, len(maps)))] if rng.random() < 0.25 else [])]
        if kind == "maximum":
            sources, channels = sources[:1], min(channels, maps[sources[0]].channels)
        maps.append(MapForm(f"layer{n}", channels, *size, 0))
        segments = tuple(_random_segment(rng, source, maps[source], channels, small, books) for source in sources)
        layers.append(_random_layer(rng, f"layer{n}", len(maps) - 1, segments, channels, kind, params))
    return Program(tuple(maps), tuple(layers), inputs, (len(maps) - 1,))


def _random_map(rng: np.random.Generator, name: str, wide: int) -> MapForm:
    if not wide:
        return MapForm(name, int(rng.integers(1, 97)) if rng.random() < 0.9 else 1, 1, 1, 0)
    height = int(rng.integers(1, 7)) if rng.random() < 0.8 else 1
    return MapForm(name, int(rng.integers(1, 20)), height, int(rng.integers(1, 8)), 0)


def _codebook(rng: np.random.Generator, params: Params) -> NDArray[np.int16]:
    book = rng.integers(-32768, 32768, 1 << params.code_bits).astype(np.int16)
    book[0] = 0
    return book


def _random_segment(
    rng: np.random.Generator, source: int, form: MapForm, channels: int, whole: bool, books: list[NDArray[np.int16]]
) -> Segment:
    """A window of at most 3 x 3 positions, or the whole map."""
    book = books[int(rng.integers(0, len(books)))]
    kernel = (form.height, form.width) if whole else (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    density = float(rng.choice([0.0, 0.02, 0.1, 0.3, 1.0], p=[0.04, 0.26, 0.3, 0.3, 0.1]))
    shape = (channels, *kernel, form.channels)
    codes = rng.integers(1, len(book), shape) * (rng.random(shape) < density)

    def pair(low: int, high: int) -> tuple[int, int]:
        return int(rng.integers(low, high)), int(rng.integers(low, high))

    return segment_of(
        source, codes.astype(np.uint8), book, stride=(1, 1) if whole else pair(1, 3),
        dilation=pair(1, 3) if not whole and rng.random() < 0.3 else (1, 1), origin=(0, 0) if whole else pair(-2, 2),
    )  # fmt: skip


def _random_layer(
    rng: np.random.Generator, name: str, result: int, segments: tuple[Segment, ...], channels: int, kind: str,
    params: Params,
) -> ProgramLayer:  # fmt: skip
    low = 0 if rng.random() < 0.5 else int(rng.choice([LOW, LOW, -1000]))
    high = HIGH if rng.random() < 0.8 else 500
    if kind == "maximum":
        bias, shift = np.full(channels, LOW, np.int64), np.zeros(channels, np.int64)
        return ProgramLayer(name, result, segments, bias, shift, low, high, maximum=True)
    large = int(rng.choice([1 << 8, 1 << 20, 1 << (params.acc_bits - 2)]))
    shift = np.full(channels, int(rng.choice([0, 1, 8, 14, 16, 20, 31])))
    if rng.random() < 0.3:
        shift = np.clip(shift + rng.integers(-2, 3, channels), 0, 31)
    pool = (int(rng.integers(1, 3)), int(rng.integers(1, 3))) if kind == "pooled" else (1, 1)
    return ProgramLayer(
        name, result, segments, rng.integers(-large, large, channels), shift.astype(np.int64), low, high,
        pool=pool, pool_stride=tuple(size + int(rng.random() < 0.2) for size in pool),  # type: ignore[arg-type]
    )  # fmt: skip


def random_input(rng: np.random.Generator, shape: tuple[int, ...], batch: int) -> NDArray[np.int16]:
    """Samples of all kinds: sparse, dense, all zero, all equal, a single nonzero, only extremes."""
    size = int(np.prod(shape))
    x = np.zeros((batch, size), np.int16)
    for vector in x:
        kind = rng.choice(["sparse", "dense", "zero", "equal", "single", "extreme"], p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1])
        values = rng.integers(-32768, 32768, size)
        if kind == "sparse":
            vector[:] = values * (rng.random(size) < 0.35)
        elif kind == "dense":
            vector[:] = values
        elif kind == "equal":
            vector[:] = rng.choice([-32768, -1, 1, 32767])
        elif kind == "single":
            vector[rng.integers(0, size)] = rng.choice([-32768, 32767])
        elif kind == "extreme":
            vector[:] = rng.choice([-32768, 32767], size)
    return x.reshape(batch, *shape)


def _tiled(program: Program, params: Params, options: Options) -> Image:
    """The network on the smallest weight memories that still hold a tile of each layer."""
    for weight_words in (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128):
        smaller = params.replace(weight_words=weight_words, pointer_blocks=4 * params.groups + 2)
        with contextlib.suppress(ImageError):
            return build(program, smaller, options)
    return build(program, params, options)


def random_case(seed: int, params: Params | None = None, max_batch: int = 4) -> Case:
    """The case of a seed, on a random array or on a given one.

    Every other random array with a refill port is cut down until weights are streamed in tiles, but not below what one
    tile takes; a given array stays as it is. Networks that do not fit are drawn again.
    """
    rng = np.random.default_rng(seed)
    array = params if params is not None else random_params(rng)
    options = random_options(rng)
    tiled = params is None and array.refill and bool(rng.integers(0, 2))
    while True:
        program = random_network(rng, array)
        with contextlib.suppress(ImageError):
            image = _tiled(program, array, options) if tiled else build(program, array, options)
            break
    batch = int(rng.integers(1, max_batch + 1))
    maps = [image.maps[number] for number in image.inputs]
    x = {info.name: random_input(rng, (info.height, info.width, info.channels), batch) for info in maps}
    return Case(seed, image, x)
