"""Fixed-point networks that tests make."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from compiler.lower.chain import Chain, QuantizedLayer
from compiler.lower.partition import Partition
from compiler.lower.program import chain_program
from compiler.network import array_graph
from hw.params import Params, preset


def graph(rng: np.random.Generator, widths: tuple[int, ...] = (30, 24, 5), params: Params | None = None) -> Chain:
    """Layers of random codes, a tenth of them nonzero."""
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
                exponent - 12 + shift, number == 0,
            )
        )  # fmt: skip
        exponent = exponent - 12 + shift
    made = Chain(tuple(layers), params)
    made.verify()
    return made


def codes(outputs: int, inputs: int, size: int) -> NDArray[np.uint8]:
    number = np.arange(outputs * inputs)
    return np.where(number % 3 == 0, number % size, 0).astype(np.uint8).reshape(outputs, inputs)


def chain(params: Params) -> Chain:
    """What the files of earlier formats in `data/` hold."""
    size = 1 << params.code_bits
    book = (np.arange(size) * 37 - 200).astype(np.int16)
    book[0] = 0
    first = QuantizedLayer("fc1", codes(12, 20, size), book, -8, np.arange(12) * 1000 - 5000, 9, "relu", -4, -3, True)
    second = QuantizedLayer(
        "fc2", codes(5, 12, size), -book, -7, np.arange(5, dtype=np.int64) - 2, 10, "none", -3, 0, False
    )
    return Chain((first, second), params)


def parts(made: Chain, name: str = "input") -> Partition:
    """A chain as all that there is of a network."""
    program = chain_program(made, name)
    return Partition(array_graph(program.maps[:1], program.maps[-1:]), (program,))
