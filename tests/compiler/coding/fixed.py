"""Fixed-point networks that tests make."""

from __future__ import annotations

import itertools

import numpy as np

from compiler.lower.chain import Chain, QuantizedLayer
from hw.params import Params, preset


def graph(rng: np.random.Generator, widths: tuple[int, ...] = (30, 24, 5), params: Params | None = None) -> Chain:
    """Layers of random codes, a tenth of them nonzero, the first of them folded."""
    params = params or preset("BALANCED_4")
    size, exponent = 1 << params.code_bits, -3
    layers = []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        codes = rng.integers(1, size, (outputs, inputs)).astype(np.uint8)
        codes[rng.random(codes.shape) < 0.9] = 0
        codebook = np.sort(rng.integers(-3000, 3000, size)).astype(np.int16)
        codebook[0] = 0
        bias, shift = rng.integers(-100000, 100000, outputs), int(rng.integers(8, 15))
        last = number == len(widths) - 2
        layers.append(
            QuantizedLayer(
                f"fc{number + 1}", codes, codebook, -12, bias, shift, "none" if last else "relu", exponent,
                exponent - 12 + shift, number == 0, fold=number == 0,
            )
        )  # fmt: skip
        exponent = exponent - 12 + shift
    made = Chain(tuple(layers), params)
    made.verify()
    return made
