"""Products and functions of maps of several pixels, outside of loops: against the integer graph and the hardware."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from compiler.errors import ImageError
from compiler.frontend.builder import Builder
from compiler.frontend.cells import Weights, scan
from compiler.graph.ir import Graph
from compiler.graph.passes import run_passes
from compiler.lower import build, descriptors
from compiler.lower.calibrate import quantize_calibrated
from compiler.lower.pipeline import compile_graph
from compiler.network import Network
from hw.params import Params
from sim import golden
from sim.network import run_network
from sim.suites import SUITES

NUMBER = 12


def conv(build: Builder, rng: np.random.Generator, name: str, value: str, outputs: int) -> str:
    """A convolution that leaves the map as large as it is."""
    inputs, *sizes = build.shape(value)
    kernel = tuple(int(rng.choice([1, 3])) for _ in sizes)
    weight = rng.normal(size=(outputs, inputs, *kernel)) * (rng.random((outputs, inputs, *kernel)) < 0.6)
    return build.add(
        "Conv", name, value, tensors={"weight": weight.astype(np.float32), "bias": rng.normal(size=outputs)},
        padding=tuple(k // 2 for k in kernel) * 2, groups=1,
    )  # fmt: skip


def gated(rng: np.random.Generator) -> tuple[Graph, Any]:
    """Layers, and products of what is there: results, halves of one, the input, products and functions."""
    build = Builder()
    channels = int(rng.choice([1, 3, 8, 12]))
    shape = (channels, *(int(n) for n in rng.choice([1, 2, 5, 7, 11], int(rng.choice([1, 2, 2])))))
    x = build.add("Input", "x", shape=shape)
    values = [x]
    for number in range(int(rng.integers(2, 6))):
        value = values[int(rng.integers(len(values)))]
        way = rng.choice(["conv", "product", "product", "halves", "function"])
        if way == "conv":
            values.append(conv(build, rng, f"conv{number}", value, channels))
        elif way == "product":
            other = values[int(rng.integers(len(values)))]
            values.append(build.add("Multiply", f"product{number}", value, other))
        elif way == "halves":
            both = conv(build, rng, f"both{number}", value, 2 * channels)
            parts = [
                build.add("Slice", f"{half}{number}", both, begin=at * channels, end=(at + 1) * channels)
                for at, half in enumerate("ab")
            ]
            gate = build.add("Activation", f"gate{number}", parts[1], function="sigmoid")
            values.append(build.add("Multiply", f"halves{number}", parts[0], gate))
        else:
            values.append(build.add("Activation", f"function{number}", value, function="tanh"))
    last = conv(build, rng, "last", values[-1], 4)
    for number, value in enumerate([last, *values[1:]]):
        if number == 0 or rng.random() < 0.3:
            build.add("Output", f"y{number}", value)
    return build.graph(), rng.normal(size=(8, *shape))


def beside_a_loop(rng: np.random.Generator, kind: str) -> tuple[Graph, Any]:
    """A function or product of what a loop reads, or of what it makes."""
    build = Builder()
    steps, size, units = int(rng.integers(1, 5)), int(rng.integers(2, 12)), int(rng.integers(2, 30))
    x = build.add("Input", "x", shape=(steps, size))
    value = build.add("Linear", "fc", x, tensors={"weight": rng.normal(size=(size, size)).astype(np.float32)})
    build.add("Output", "before", value)
    if kind != "behind":
        value = build.add("Activation", "gate", value, function="tanh")
        if kind == "product":
            value = build.add("Multiply", "gated", value, x)
    weights = Weights(*(rng.normal(size=n) * 0.5 for n in ((4 * units, size), (4 * units, units), (4 * units,))))
    start = [build.add("Constant", name, tensors={"value": np.zeros(units)}) for name in ("h0", "c0")]
    made = scan(build, "lstm", "lstm", value, start, weights, reverse=bool(rng.integers(2)))[0]
    if kind == "behind":
        made = build.add("Multiply", "square", made, made)
    build.add("Output", "y", made)
    return build.graph(), rng.normal(size=(8, steps, size))


def compiled(graph: Graph, data: Any, params: Params) -> tuple[Network, dict[str, Any]]:
    """The network, and its values by the integer graph for two samples."""
    graph = run_passes(graph)
    made = quantize_calibrated(graph, params, [data]).graph
    raw, _ = golden.quantize_input(data[:2], made.inputs[0]["exponent"])
    right = golden.run_graph(made, [raw], params.acc_bits)
    return compile_graph(graph, params, data), {name: value.raw for name, value in right.items()}


def array(rng: np.random.Generator, loop: bool = False) -> Params:
    pes = 1 << int(rng.integers(0, 6))
    few = [16, 256] if pes < 8 else [4, 6]  # tiles do not end where a map does
    return Params(pes=pes, rows=256 if loop else int(rng.choice(few)), queue_depth=8)


def differs(seed: int, kind: str = "") -> list[str]:
    """Values that are not what the integer graph makes."""
    rng = np.random.default_rng(seed)
    graph, data = beside_a_loop(rng, kind) if kind else gated(rng)
    network, right = compiled(graph, data, array(rng, bool(kind)))
    assert {node.op for node in network.host} <= {"Shift", "Multiply", "Table"}  # what no layer is connected with
    found = run_network(network, data[:2]).values
    return [name for name, raw in found.items() if name in right and not np.array_equal(raw, right[name])]


@pytest.mark.verifies("products-functions-maps-several-pixels")
def test_nothing_is_left_to_the_host(seed: int) -> None:
    rng = np.random.default_rng(seed)
    build = Builder()
    x = build.add("Input", "x", shape=(6, 5, 5))
    both = conv(build, rng, "both", x, 12)
    parts = [build.add("Slice", name, both, begin=at, end=at + 6) for name, at in (("a", 0), ("b", 6))]
    gate = build.add("Activation", "gate", parts[1], function="sigmoid")
    product = build.add("Multiply", "glu", parts[0], gate)
    square = build.add("Multiply", "square", product, x)
    build.add("Output", "y", conv(build, rng, "last", build.add("Activation", "f", square, function="tanh"), 3))
    build.add("Output", "z", square)
    network, _ = compiled(build.graph(), rng.normal(size=(8, 6, 5, 5)), Params(pes=16, rows=64))
    assert {node.op for node in network.host} <= {"Shift"}
    assert len(network.images) == 1
    assert len(network.images[0].operations) == 3
    layers = [layer.name for layer in network.images[0].layers]
    assert layers == ["both", "gate.copy", "a.copy", "glu", "square", "f", "last"]


@pytest.mark.verifies("products-functions-maps-several-pixels")
def test_products_and_functions_of_maps(seed: int) -> None:
    assert [n for n in range(NUMBER) if differs(1000 * seed + n)] == []


@pytest.mark.verifies("products-functions-maps-several-pixels")
@pytest.mark.parametrize("kind", ["function", "product", "behind"])
def test_what_a_loop_reads_or_makes(kind: str, seed: int) -> None:
    assert [n for n in range(4) if differs(1000 * seed + n, kind)] == []


@pytest.mark.verifies("products-functions-maps-several-pixels")
@pytest.mark.rtl
@pytest.mark.slow
def test_hardware_computes_them_in_the_cycles_of_the_model(seed: int) -> None:
    """In Verilog on the array of the sample of random networks; the first in many tiles in Amaranth's simulator."""
    arrays = SUITES["networks"].arrays
    for number in range(4):
        rng = np.random.default_rng(1000 * seed + number)
        graph, data = gated(rng)
        params = arrays[seed % len(arrays)] if number else Params(pes=8, rows=4, queue_depth=8)
        assert params is not None
        network, _ = compiled(graph, data, params)
        model = run_network(network, data[:2], engine="cycles")
        found = run_network(network, data[:2], engine="rtl" if number else "amaranth")
        assert all(np.array_equal(found.values[name], raw) for name, raw in model.values.items())
        assert [ran.records for ran in found.runs] == [ran.records for ran in model.runs]


@pytest.mark.verifies("planted-faults-rows-maps-apart")
@pytest.mark.parametrize("fault", ["rows", "lines", "copy"])
def test_faults_are_caught(fault: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "rows":
        monkeypatch.setattr(build, "spread", lambda placement, lines: placement)
    elif fault == "copy":
        from compiler.lower import operations

        copy = operations.Operations._copy

        def wrong(self: Any, *given: Any) -> Any:
            made = copy(self, *given)
            return made and dataclasses.replace(made, layer=dataclasses.replace(made.layer, bias=made.layer.bias + 1))

        monkeypatch.setattr(operations.Operations, "_copy", wrong)
    else:
        fields = descriptors._operation_fields

        def short(*given: Any) -> dict[str, int]:
            made = fields(*given)
            return {**made, "lines": max(1, made["lines"] - 1)}

        monkeypatch.setattr(descriptors, "_operation_fields", short)
    assert any(caught(1000 * seed + n) for n in range(3 * NUMBER))


def caught(seed: int) -> bool:
    """Whether a value is wrong, or the image contradicts itself."""
    try:
        return bool(differs(seed))
    except ImageError:
        return True
