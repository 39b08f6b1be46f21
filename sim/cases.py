"""Random small networks and inputs that reach the corners of the array; every case replays from its seed."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.image.image import Image
from compiler.lower.chain import Chain, QuantizedLayer
from compiler.lower.encode import encode
from compiler.lower.pack import pack
from compiler.options import Options
from hw.params import ROUND_TRIP, Params

__all__ = ["Case", "random_case", "random_input", "random_network", "random_options", "random_params"]


@dataclass(frozen=True)
class Case:
    """One trial: an image and a raw int16 (batch, inputs) input."""

    seed: int
    image: Image
    x: NDArray[np.int16]


def random_params(rng: np.random.Generator, max_pes: int = 16) -> Params:
    """A small array. Queue depths near the minimum come often: only a full queue shows the credit rule."""
    pes = 1 << int(rng.integers(0, max_pes.bit_length()))
    return Params(
        pes=pes,
        index_bits=int(rng.integers(4, 9)),
        code_bits=int(rng.integers(2, 9)),
        rows=int(rng.choice([8, 16, 40, 64])),
        queue_depth=ROUND_TRIP + 1 + int(rng.choice([0, 0, 1, 2, 3, 10, 58])),
        weight_words=1024,
        pointer_blocks=128,
        act_lines=512,
        bias_words=512,
        codebooks=4,
        descriptors=64,
        acc_bits=int(rng.choice([33, 40, 48])),
        fold=int(rng.integers(1, 3)),
        fragments=int(rng.choice([1, 2, 4, 8])),
        refill=bool(rng.integers(0, 2)),
    )


def random_options(rng: np.random.Generator) -> Options:
    """Mostly those that the compiler has of itself."""
    return Options(balanced=bool(rng.random() < 0.7), skip_empty=bool(rng.random() < 0.8))


def random_network(rng: np.random.Generator, params: Params, max_width: int = 96) -> Chain:
    """One to three layers with random widths, densities, shifts, biases; sums may saturate, and with 33 bits wrap."""
    depth = int(rng.integers(1, 4))
    limit = min(max_width, 2 * params.rows * params.pes)  # so that some layers have more rows than accumulators
    widths = [int(rng.integers(1, limit + 1)) if rng.random() < 0.9 else 1 for _ in range(depth + 1)]
    size = 1 << params.code_bits
    layers = []
    exponent = 0
    for n in range(depth):
        density = float(rng.choice([0.0, 0.02, 0.1, 0.3, 1.0], p=[0.04, 0.3, 0.3, 0.3, 0.06]))
        codes = rng.integers(1, size, (widths[n + 1], widths[n])) * (rng.random((widths[n + 1], widths[n])) < density)
        shift = int(rng.choice([0, 1, 8, 14, 16, 20, 31]))
        large = int(rng.choice([1 << 8, 1 << 20, 1 << (params.acc_bits - 2)]))
        codebook = rng.integers(-32768, 32768, size).astype(np.int16)
        codebook[0] = 0
        layers.append(QuantizedLayer(
            name=f"layer{n}", codes=codes.astype(np.uint8), codebook=codebook, weight_exponent=0,
            bias=rng.integers(-large, large, widths[n + 1]), shift=shift,
            activation="relu" if rng.random() < 0.6 else "none",
            input_exponent=exponent, output_exponent=exponent + shift, exact=True, fold=bool(rng.random() < 0.4),
        ))  # fmt: skip
        exponent += shift
    graph = Chain(tuple(layers), params)
    graph.verify()
    return graph


def random_input(rng: np.random.Generator, inputs: int, batch: int) -> NDArray[np.int16]:
    """Vectors of all kinds: sparse, dense, all zero, all equal, a single nonzero, only extremes."""
    x = np.zeros((batch, inputs), np.int16)
    for vector in x:
        kind = rng.choice(["sparse", "dense", "zero", "equal", "single", "extreme"], p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1])
        values = rng.integers(-32768, 32768, inputs)
        if kind == "sparse":
            vector[:] = values * (rng.random(inputs) < 0.35)
        elif kind == "dense":
            vector[:] = values
        elif kind == "equal":
            vector[:] = rng.choice([-32768, -1, 1, 32767])
        elif kind == "single":
            vector[rng.integers(0, inputs)] = rng.choice([-32768, 32767])
        elif kind == "extreme":
            vector[:] = rng.choice([-32768, 32767], inputs)
    return x


def _tiled(graph: Chain, options: Options) -> Image:
    """The network on the smallest memories that still hold a tile of each layer."""
    pointer_blocks = 4 * graph.params.groups + 2
    for weight_words in (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128):
        params = graph.params.replace(weight_words=weight_words, pointer_blocks=pointer_blocks)
        smaller = dataclasses.replace(graph, params=params)
        with contextlib.suppress(ImageError):
            return pack(smaller, encode(smaller, options), options)
    return pack(graph, encode(graph, options), options)


def _fitting(rng: np.random.Generator, params: Params, options: Options) -> Image:
    """The first random network that an array can compute, if need be in tiles."""
    while True:
        graph = random_network(rng, params)
        with contextlib.suppress(ImageError):
            return pack(graph, encode(graph, options), options)


def random_case(seed: int, params: Params | None = None, max_batch: int = 4) -> Case:
    """The case of a seed, on a random array or on a given one.

    Every other random array with a refill port is cut down until the network is computed in tiles, but not below
    what one tile takes; a given array stays as it is.
    """
    rng = np.random.default_rng(seed)
    array = params if params is not None else random_params(rng)
    options = random_options(rng)
    if params is not None:
        image = _fitting(rng, params, options)
    else:
        graph = random_network(rng, array)
        tiled = array.refill and rng.integers(0, 2)
        image = _tiled(graph, options) if tiled else pack(graph, encode(graph, options), options)
    return Case(seed, image, random_input(rng, image.inputs, int(rng.integers(1, max_batch + 1))))
