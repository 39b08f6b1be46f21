"""Random recurrent networks: loops over LSTM, GRU, RNN and recurrent highway cells, one or two layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.frontend.builder import Builder
from compiler.frontend.cells import CELLS, Weights, scan
from compiler.graph.ir import Graph
from compiler.graph.passes import run_passes
from compiler.lower.calibrate import quantize_calibrated
from compiler.lower.pipeline import compile_graph
from hw.params import Params
from sim import golden
from sim.graph_cases import GraphCase, graph_case

__all__ = ["KINDS", "random_recurrent_case", "recurrent", "recurrent_layer", "small_array"]

Array = NDArray[Any]

KINDS = (*CELLS, "rhn")
_GATES = {"lstm": 4, "gru": 3, "gru_reset_first": 3, "rnn_tanh": 1, "rnn_relu": 1}


def recurrent(rng: np.random.Generator, kind: str, *, steps: int = 10, size: int = 21) -> tuple[Graph, Array]:
    """A float graph with loops and calibration data for it (samples, steps, features).

    Parameters
    ----------
    steps, size : the most steps, and the most features or units.
    """
    build = Builder()
    length, features = int(rng.integers(1, steps + 1)), int(rng.integers(2, size))
    sequence = build.add("Input", "x", shape=(length, features))
    layers = int(rng.integers(1, 3))
    both = rng.random() < 0.25  # both directions side by side
    ends: list[str] = []
    for layer in range(layers):
        units = int(rng.integers(2, size))
        back = bool(rng.integers(2))
        found = [
            recurrent_layer(build, rng, f"loop{layer}{number}", kind, sequence, units, reverse=reverse)
            for number, reverse in enumerate([False, True] if both else [back])
        ]
        sequence = found[0][0]
        if both:
            sequence = build.add("Concat", f"both{layer}", *(outs[0] for outs in found), axis=1)
        ends = found[0][1:]
    if rng.random() < 0.5:  # what comes behind a loop
        read = sequence if rng.random() < 0.5 else ends[int(rng.integers(len(ends)))]
        weight = _sparse(rng, 5, build.shape(read)[-1])
        build.add("Output", "scores", build.add("Linear", "fc", read, tensors={"weight": weight}))
    for number, name in enumerate([sequence, *ends]):
        if number == 0 or rng.random() < 0.5:
            build.add("Output", f"out{number}", name)
    if ends and rng.random() < 0.3:  # halves of what is left of a loop
        _gated(build, rng, ends[int(rng.integers(len(ends)))])
    return build.graph(), rng.normal(size=(8, length, features))


def _gated(build: Builder, rng: np.random.Generator, state: str) -> None:
    """A layer of half of a vector times a function of the other half."""
    half = build.shape(state)[0] // 2
    first = build.add("Slice", "first_half", state, axis=0, begin=0, end=half, step=1, drop=False)
    second = build.add("Slice", "second_half", state, axis=0, begin=half, end=2 * half, step=1, drop=False)
    gate = build.add("Activation", "gate", second, function="tanh")
    product = build.add("Multiply", "product", first, gate)
    build.add("Output", "gated", build.add("Linear", "of_gated", product, tensors={"weight": _sparse(rng, 3, half)}))


def recurrent_layer(
    build: Builder, rng: np.random.Generator, name: str, kind: str, sequence: str, units: int, *, reverse: bool
) -> list[str]:
    """One layer: the names of its steps, and of its states at the end."""
    features = build.shape(sequence)[1]
    states = ("s",) if kind == "rhn" else CELLS[kind][1]
    begin = [
        build.add("Constant", f"{name}.{state}0", tensors={"value": rng.normal(size=units) * bool(rng.integers(2))})
        for state in states
    ]
    if kind == "rhn":
        return _highway(build, rng, name, sequence, begin, units, reverse=reverse)
    gates = _GATES[kind] * units
    bias = rng.normal(size=gates) * 0.3
    weights = Weights(_sparse(rng, gates, features), _sparse(rng, gates, units), bias)
    return scan(build, name, kind, sequence, begin, weights, reverse=reverse)


def _highway(
    build: Builder, rng: np.random.Generator, name: str, sequence: str, begin: Sequence[str], units: int,
    *, reverse: bool,
) -> list[str]:  # fmt: skip
    """``s = s + (h - s) * t``, twice a step; see `compiler.train.rhn`."""
    inside = Builder()
    x = inside.add("Input", "x", shape=build.shape(sequence)[1:])
    state = inside.add("Input", "s0", shape=(units,))
    for depth in range(2):
        read = inside.add("Concat", "beside", x, state) if depth == 0 else state
        tensors = {"weight": _sparse(rng, 2 * units, inside.shape(read)[0]), "bias": rng.normal(size=2 * units)}
        both = inside.add("Linear", f"both{depth}", read, tensors=tensors)
        h = inside.add("Slice", f"h{depth}", both, begin=0, end=units)
        t = inside.add("Slice", f"t{depth}", both, begin=units, end=2 * units)
        h = inside.add("Activation", f"tanh{depth}", h, function="tanh")
        t = inside.add("Activation", f"sigmoid{depth}", t, function="sigmoid")
        less = inside.add("Affine", f"less{depth}", state, tensors={"scale": np.array(-1.0), "offset": np.array(0.0)})
        step = inside.add("Multiply", f"step{depth}", inside.add("Add", f"apart{depth}", h, less), t)
        state = inside.add("Add", f"s{depth + 1}", state, step)
    inside.add("Output", "out0", state)
    inside.add("Output", "out1", state)
    first = build.add("Scan", name, sequence, *begin, body=inside.graph(), results=("s",), reverse=reverse)
    return list(next(node for node in reversed(build.nodes) if node.name == first).outputs)


def _sparse(rng: np.random.Generator, rows: int, columns: int) -> Array:
    weight = rng.normal(size=(rows, columns)) * 0.7
    return np.where(rng.random(weight.shape) < 0.5, weight, 0.0)


def small_array(rng: np.random.Generator) -> Params:
    """An array on which the networks above fit."""
    pes = 1 << int(rng.integers(5))
    return Params(
        pes=pes, rows=128, weight_words=1024, pointer_blocks=512, act_lines=1024, output_words=1024, descriptors=64,
        queue_depth=int(rng.choice([6, 8, 20])), tables=int(rng.choice([4, 8])), index_bits=int(rng.choice([4, 6])),
        codebooks=16,
    )  # fmt: skip


def random_recurrent_case(seed: int, params: Params) -> GraphCase:
    """The case of a seed on an array: a network with loops; what does not fit is drawn again."""
    rng = np.random.default_rng([seed, 17])
    for _ in range(60):
        drawn, data = recurrent(rng, str(rng.choice(KINDS)), steps=4, size=10)
        graph = run_passes(drawn)
        try:
            network = compile_graph(graph, params, data)
        except ImageError:
            continue
        made = quantize_calibrated(graph, params, [data]).graph
        x, _ = golden.quantize_input(data[: int(rng.integers(1, 4))], made.inputs[0]["exponent"])
        return graph_case(seed, made, network, x)
    raise ImageError(f"seed {seed}: none of 60 random recurrent networks fits {params}")
