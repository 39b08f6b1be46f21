"""Random fixed-point networks, and what they should compute by the plainest means."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.graph.dense import Dense, dense_graph
from compiler.graph.ir import Graph
from compiler.lower.chain import Chain, QuantizedLayer
from compiler.lower.quantize import quantize_graph
from hw.params import Params

SMALL = Params(pes=4, rows=64, weight_words=256, pointer_blocks=64, act_lines=64, output_words=256, descriptors=16)


def distinct_codebook(rng: np.random.Generator, code_bits: int) -> NDArray[np.int16]:
    """Zero, then nonzero values that all differ: a wrong code cannot hide behind an equal weight."""
    values = rng.choice(np.concatenate([np.arange(-999, 0), np.arange(1, 1000)]), (1 << code_bits) - 1, replace=False)
    return np.concatenate([[0], values]).astype(np.int16)


def layer_of(
    codes: NDArray[np.uint8], codebook: NDArray[np.int16], rng: np.random.Generator, name: str = "a", exponent: int = 0
) -> QuantizedLayer:
    """A layer around given codes, with random bias, shift and activation."""
    shift = int(rng.integers(0, 20))
    return QuantizedLayer(
        name=name,
        codes=codes,
        codebook=codebook,
        weight_exponent=-3,
        bias=rng.integers(-(1 << 20), 1 << 20, len(codes)),
        shift=shift,
        activation="relu" if rng.integers(2) else "none",
        input_exponent=exponent,
        output_exponent=exponent - 3 + shift,
        exact=True,
    )


def network(rng: np.random.Generator, params: Params, widths: list[int], density: float) -> Chain:
    """Layers of the given widths, inputs first, with nonzeros at random places."""
    layers: list[QuantizedLayer] = []
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        codes = rng.integers(1, 1 << params.code_bits, (outputs, inputs)).astype(np.uint8)
        codes[rng.random(codes.shape) >= density] = 0
        exponent = layers[-1].output_exponent if layers else 0
        layers.append(layer_of(codes, distinct_codebook(rng, params.code_bits), rng, f"layer{number}", exponent))
    graph = Chain(tuple(layers), params)
    graph.verify()
    return graph


def expected(graph: Chain, x: NDArray[np.int16]) -> list[NDArray[np.int64]]:
    """Outputs of every layer with Python's unbounded integers; no wrap, so only for sums that fit."""
    results = []
    values = x.astype(object)
    for layer in graph.layers:
        sums = values @ layer.codebook.astype(object)[layer.codes].T + layer.bias.astype(object)
        if layer.activation == "relu":
            sums = np.maximum(sums, 0)
        half = 2 ** (layer.shift - 1) if layer.shift else 0
        values = np.clip((sums + half) // 2**layer.shift, -32768, 32767)
        results.append(values.astype(np.int64))
    return results


def quantized(
    layers: Sequence[Dense], params: Params, calibration: NDArray[Any] | None = None, percentile: float = 100.0
) -> Chain:
    """The chain that fully connected layers become, all of them in one image."""
    given = None if calibration is None else [calibration]
    made = quantize_graph(dense_graph(layers), params, given, percentile=percentile)
    return chain_of(made.graph, params)


def chain_of(graph: Graph, params: Params) -> Chain:
    """An integer graph of nothing but Linear."""
    layers = [
        QuantizedLayer(
            name=node.name,
            codes=node.tensors["codes"],
            codebook=node.tensors["codebook"],
            weight_exponent=node["weight_exponent"],
            bias=node.tensors["bias"],
            shift=node["shift"],
            activation=node["activation"],
            input_exponent=node["exponent"] - node["weight_exponent"] - node["shift"],
            output_exponent=node["exponent"],
            exact=node["exact"],
        )
        for node in graph
        if node.op == "Linear"
    ]
    chain = Chain(tuple(layers), params)
    chain.verify()
    return chain


def overflow_free(layer: QuantizedLayer, acc_bits: int) -> bool:
    """docs/numerics.md, section 4, in Python's unbounded integers."""
    half = (1 << layer.shift) >> 1
    for codes, bias in zip(layer.codes, layer.bias, strict=True):
        total = sum(abs(int(layer.codebook[code])) for code in codes)
        if total * (1 << 15) + abs(int(bias)) + half >= 1 << (acc_bits - 1):
            return False
    return True
