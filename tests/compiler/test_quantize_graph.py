"""Float graphs in integers: every node within its bound, exponents that agree, ranges, and what the report says."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from compiler.errors import ModelError
from compiler.graph import evaluate
from compiler.graph.functions import FUNCTIONS
from compiler.graph.integer import INTEGER, integer_types, verify_integer
from compiler.graph.ir import Graph, Node
from compiler.graph.operators import OPERATORS, make
from compiler.graph.segments import by_channel, joined, segment
from compiler.lower import quantize as module
from compiler.lower import rules, tables
from compiler.lower.calibrate import quantize_calibrated
from compiler.lower.quantize import Quantized, quantize_graph
from hw.params import Params
from sim import golden
from tests.random_graphs import random_graph

PARAMS = Params(pes=4, rows=256)
WIDE = PARAMS.replace(code_bits=8)


def run(made: Quantized, inputs: list[Any], params: Params = PARAMS) -> dict[str, golden.GoldenValue]:
    raw = [
        golden.quantize_input(x, node["exponent"])[0] if node["kind"] == "real" else x
        for node, x in zip(made.graph.inputs, inputs, strict=True)
    ]
    return golden.run_graph(made.graph, raw, params.acc_bits)


def network(shape: tuple[int, ...], *nodes: Node, kind: str = "real") -> Graph:
    return Graph((make("Input", "x", shape=shape, kind=kind), *nodes, make("Output", "out", nodes[-1].output)))


def quantities(graph: Graph, found: Mapping[str, golden.GoldenValue], prefix: str = "") -> dict[str, Any]:
    """The values of one graph of a run as floats, the steps of a body as samples."""
    made = {}
    for name, kind in (integer_types(graph)).items():
        raw = found[prefix + name].raw
        if prefix:
            raw = raw.reshape(-1, *raw.shape[2:])
        made[name] = raw if kind.exponent is None else np.ldexp(raw.astype(np.float64), kind.exponent)
    return made


def magnitude(node: Node, weight: Any, x: Any) -> Any:
    """Σ |Δw| · |x| of each sum of a Linear or Conv."""
    plain = node.replace(tensors={"weight": np.abs(weight)}, attributes={**node.attributes, "activation": "none"})
    return OPERATORS[node.op].meaning(plain, [np.abs(x)], evaluate.outputs)[0]


def weight_bound(plain: Node, made: Node, units: Any, x: Any) -> Any:
    """What rounded weights of a Linear or Conv contribute; `units` is what a weight of one is worth, in each row."""
    weight, codes = plain.tensors["weight"].astype(np.float64), made.tensors["codes"]
    units = np.broadcast_to(units.reshape(-1, *[1] * (codes.ndim - 1)), codes.shape)
    steps = units / 2
    if len(np.unique(weight[weight != 0])) >= len(made.tensors["codebook"]):
        steps = weight - made.tensors["codebook"].astype(np.float64)[codes] * units  # clustered: no weight has a bound
    return magnitude(plain, steps, x)


def bound(plain: Node, made: Node, exponents: dict[str, int | None], reads: list[Any]) -> Any:
    """How far a node's result may be from what the float node makes of the same inputs.

    Half a unit for the rounding of the result, and what rounded weights, biases and limits contribute; of a table, in
    place of half a unit, a unit and a half (its entries, its interpolation, its rounding) and what straight pieces
    of width h may miss: h²/8 times the largest second derivative.
    """
    exponent = exponents[made.output]
    half = 0.0 if exponent is None else 2.0**exponent / 2
    if plain.op in ("Linear", "Conv"):
        read = exponents[made.inputs[0]] or 0
        shift = np.broadcast_to(
            made["shift"] if plain.op == "Linear" else made.tensors["shift"], len(made.tensors["bias"])
        )
        units = 2.0 ** (made["exponent"] - shift)
        shape = (-1, *[1] * (reads[0].ndim - 2)) if plain.op == "Conv" else (-1,)
        return half + weight_bound(plain, made, units / 2.0**read, reads[0]) + units.reshape(shape) / 2 + 1e-12
    if plain.op == "Accumulate":
        units = 2.0 ** (made["exponent"] - made.tensors["shift"])
        shape = (-1, *[1] * (reads[0].ndim - 2)) if by_channel(plain) else (-1,)
        total = half + units.reshape(shape) / 2 + 1e-12
        for n, x in enumerate(reads):
            part, integers, read = segment(plain, n), segment(made, n), exponents[made.inputs[n]] or 0
            if part is None or integers is None:
                assert set(made["weights"][n] * units) == {2.0**read}  # an identity is exact
            else:
                total = total + weight_bound(part, integers, units / 2.0**read, x)
        return total
    if plain.op == "Affine":
        unit = 2.0 ** (made["exponent"] - (exponents[made.inputs[0]] or 0) - made["shift"])
        steps = np.abs(plain.tensors["scale"] - made.tensors["scale"] * unit)
        return half + np.abs(reads[0]) * steps + unit * 2.0 ** (exponents[made.inputs[0]] or 0) / 2 + 1e-12
    if plain.op == "AveragePool":
        return half + np.abs(reads[0]).max() * 2.0**-15
    if made.op == "Table":
        width = 128 * 2.0 ** ((exponents[made.inputs[0]] or 0) - made["left"] + made["right"])
        curve = {"hardsigmoid": 1 / 3, "hardswish": 1 / 3, "none": 0.0}.get(plain["function"], 1.13)
        kink = width / 4 if plain["function"].startswith("hard") else 0.0  # a corner within a piece
        return 3 * half + width**2 / 8 * curve + kink
    if plain.op in ("Add", "Multiply", "Clamp", "Gather", "Constant"):
        return half + 1e-12
    return 0.0


def wrong_nodes(graph: Graph, made: Graph, found: Mapping[str, golden.GoldenValue], prefix: str = "") -> Iterator[str]:
    """Nodes whose result is further than its bound from what the float node makes of the same inputs."""
    values, integer = quantities(made, found, prefix), {node.name: node for node in made}
    exponents = {name: kind.exponent for name, kind in integer_types(made).items()}
    for plain in graph:
        node = integer.get(plain.name)
        if plain.op == "Scan" and node is not None and plain.body is not None and node.body is not None:
            yield from wrong_nodes(plain.body, node.body, found, f"{prefix}{plain.name}/")
        elif node is not None and plain.op not in ("Input", "Scan"):
            reads = [values[name] for name in node.inputs]
            (wanted,) = OPERATORS[plain.op].meaning(plain, reads, evaluate.outputs)
            result = values[node.output]
            allowed = bound(plain, node, exponents, reads)
            raw = found[prefix + node.output].raw
            clipped = (raw == 32767) | (raw == -32768)  # said by its counter, not here
            off = np.where(clipped.reshape(result.shape), 0, np.abs(result - wanted)) > allowed
            if off.any():
                yield f"{prefix}{plain.name} ({plain.op})"


@pytest.mark.verifies("integer-graph-float-graph-node")
@pytest.mark.parametrize("number", range(60))
def test_every_node_of_a_random_graph_is_within_its_bound(number: int, seed: int) -> None:
    graph, inputs = random_graph(1000 * seed + number)
    made = quantize_graph(graph, WIDE, inputs)
    found = run(made, inputs, WIDE)
    assert list(wrong_nodes(graph, made.graph, found)) == []
    # What the compiler saw is what the golden model says; loops it sees with the float network's states.
    if not any(node.op == "Scan" for node in graph):
        kinds = integer_types(made.graph)
        for output, result in zip(made.graph.outputs, made.results, strict=True):
            raw = found[output.output].raw.astype(np.float64)
            np.testing.assert_array_equal(np.ldexp(raw, kinds[output.output].exponent), result)
        assert sum(int(value.saturated.sum()) for value in found.values()) == sum(r.saturations for r in made.report)


@pytest.mark.verifies("integer-graph-float-graph-node")
def test_random_graphs_have_every_operator_and_are_the_same_again(seed: int) -> None:
    found: set[str] = set()
    for number in range(60):
        graph, inputs = random_graph(1000 * seed + number)
        again, others = random_graph(1000 * seed + number)
        assert [node.op for node in graph] == [node.op for node in again]
        assert all(np.array_equal(a, b) for a, b in zip(inputs, others, strict=True))
        made = quantize_graph(graph, PARAMS, inputs)
        found |= {inner.op for node in made.graph for inner in (node, *(node.body or ()))}
    assert found >= INTEGER.keys() - {
        "Array",
        "Indices",
        "Shift",
    }  # of the partition; a Shift is rare, and has tests of its own


def outputs_error(graph: Graph, made: Quantized, inputs: list[Any]) -> float:
    """Error of the outputs, as a share of their size."""
    found, kinds = run(made, inputs), integer_types(made.graph)
    off = []
    for output, wanted in zip(made.graph.outputs, evaluate.outputs(graph, inputs), strict=True):
        result = np.ldexp(found[output.output].raw.astype(np.float64), kinds[output.output].exponent)
        off.append(np.sqrt(np.mean((result - wanted) ** 2)) / np.sqrt(np.mean(wanted**2)))
    return float(max(off))


def planted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the compiler's own arithmetic or in what it writes into nodes."""
    if name in ("Linear", "Conv", "Affine", "Accumulate"):
        true, key = rules.RULES[name], "offset" if name == "Affine" else "bias"

        def shifted(*arguments: Any) -> Any:
            made = true(*arguments)
            tensors = {**made.node.tensors, key: made.node.tensors[key] + (1 << 20)}
            return type(made)(**{**vars(made), "node": made.node.replace(tensors=tensors)})

        monkeypatch.setattr(rules, "RULES", {**rules.RULES, name: shifted})
        monkeypatch.setattr(module, "RULES", rules.RULES)
    elif name == "Table":
        true_table = tables._table
        monkeypatch.setattr(tables, "_table", lambda function, read, made: true_table(function, read + 1, made))
    elif name == "Shift":
        true_rescale = module.rescale

        def doubled(*arguments: Any) -> Any:
            node, value = true_rescale(*arguments)
            return node.replace(attributes={**node.attributes, "right": 0, "left": node["right"]}), value

        monkeypatch.setattr(module, "rescale", doubled)
    else:
        raise AssertionError(name)


def small(op: str, rng: np.random.Generator) -> Graph:
    tensors = {"weight": rng.normal(size=(3, 4)).astype(np.float32)}
    if op == "Linear":
        return network((4,), make("Linear", "n", "x", tensors=tensors))
    if op == "Conv":
        return network(
            (2, 5, 5), make("Conv", "n", "x", tensors={"weight": rng.normal(size=(3, 2, 3, 3)).astype(np.float32)})
        )
    if op == "Accumulate":
        part = make("Linear", "part", "x", tensors={"weight": rng.normal(size=(4, 4)).astype(np.float32)})
        weight = {"weight0": part.tensors["weight"]}
        return network((4,), make("Accumulate", "n", "x", "x", tensors=weight, **joined([part, None], 0)))
    if op == "Affine":
        return network((4,), make("Affine", "n", "x", tensors={"scale": rng.normal(size=4), "offset": np.ones(4)}))
    return network((4,), make("Activation", "n", "x", function="tanh"))


@pytest.mark.verifies("planted-faults-bias-offset-table")
@pytest.mark.parametrize("op", ["Linear", "Conv", "Accumulate", "Affine", "Table"])
def test_fault_in_a_rule_is_caught(op: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small(op, rng)
    inputs = [rng.normal(size=(20, *graph.inputs[0]["shape"]))]
    made = quantize_graph(graph, WIDE, inputs)
    assert list(wrong_nodes(graph, made.graph, run(made, inputs))) == []
    planted(op, monkeypatch)
    made = quantize_graph(graph, WIDE, inputs)
    assert list(wrong_nodes(graph, made.graph, run(made, inputs))) == [f"n ({'Activation' if op == 'Table' else op})"]


def branches(scale: float) -> Graph:
    """x times a number is added to x: the two have different ranges."""
    wide = make("Affine", "wide", "x", tensors={"scale": np.array(scale), "offset": np.array(0.0)})
    other = make("Affine", "other", "x", tensors={"scale": np.array(1.0), "offset": np.array(0.5)})
    return network((5,), wide, other, make("Add", "sum", "wide", "other"))


@pytest.mark.verifies("values-meet-agree-shift-they")
def test_values_that_are_added_agree_without_a_shift_where_their_makers_are_free(rng: np.random.Generator) -> None:
    inputs = [rng.normal(size=(50, 5))]
    made = quantize_graph(branches(5.0), PARAMS, inputs)
    assert [node.op for node in made.graph] == ["Input", "Affine", "Affine", "Add", "Output"]
    kinds = integer_types(made.graph)
    assert kinds["wide"].exponent == kinds["other"].exponent
    assert outputs_error(branches(5.0), made, inputs) < 1e-3


@pytest.mark.verifies("values-meet-agree-shift-they")
def test_a_value_that_would_lose_many_bits_is_shifted_where_it_is_added(rng: np.random.Generator) -> None:
    inputs = [rng.normal(size=(50, 5))]
    made = quantize_graph(branches(100.0), PARAMS, inputs)
    assert [node.op for node in made.graph] == ["Input", "Affine", "Affine", "Shift", "Add", "Output"]
    kinds = integer_types(made.graph)
    assert kinds["wide"].exponent == kinds["other.shift"].exponent
    assert outputs_error(branches(100.0), made, inputs) < 1e-3


@pytest.mark.verifies("values-meet-agree-shift-they")
def test_a_shift_stands_where_a_maker_is_not_free(rng: np.random.Generator) -> None:
    raw = [rng.integers(-300, 300, (50, 5)).astype(np.int16)]  # raw inputs keep exponent 0
    graph = network(
        (5,), make("Affine", "wide", "x", tensors={"scale": np.array(1000.0), "offset": np.array(0.0)}),
        make("Add", "sum", "wide", "x"),
    )  # fmt: skip
    made = quantize_graph(graph, PARAMS, raw)
    assert [node.op for node in made.graph] == ["Input", "Affine", "Shift", "Add", "Output"]
    verify_integer(made.graph, PARAMS.acc_bits)
    assert outputs_error(graph, made, raw) < 1e-3


@pytest.mark.verifies("planted-faults-bias-offset-table")
def test_fault_a_shift_in_the_wrong_direction_is_caught(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted("Shift", monkeypatch)
    with pytest.raises(ModelError, match="its shifts make"):
        test_a_shift_stands_where_a_maker_is_not_free(rng)


def summed(parts: list[Node | None], reads: list[str], *before: Node, **tensors: Any) -> Graph:
    """One Accumulate over the input and over what is made before."""
    weights = {f"weight{n}": part.tensors["weight"] for n, part in enumerate(parts) if part is not None}
    axes = max(part.tensors["weight"].ndim - 2 for part in parts if part is not None)
    made = make("Accumulate", "sum", *reads, tensors={**weights, **tensors}, **joined(parts, axes))
    return network((4,) if not axes else (4, 5, 5), *before, made)


def matrix(rng: np.random.Generator, size: float, rows: int = 4, columns: int = 4) -> Node:
    weight = (rng.normal(size=(rows, columns)) * size).astype(np.float32)
    return make("Linear", "part", "x", tensors={"weight": weight})


def scaled(name: str, scale: float) -> Node:
    return make("Affine", name, "x", tensors={"scale": np.array(scale), "offset": np.array(0.0)})


@pytest.mark.parametrize("scale", [2.0**-4, 1.0, 2.0**4])
def test_segments_of_a_sum_keep_their_exponents(scale: float, rng: np.random.Generator) -> None:
    inputs = [rng.normal(size=(50, 4))]
    graph = summed([matrix(rng, 0.5), None], ["x", "other"], scaled("other", scale))
    made = quantize_graph(graph, WIDE, inputs)
    assert [node.op for node in made.graph] == ["Input", "Affine", "Accumulate", "Output"]
    kinds, node = integer_types(made.graph), made.graph.producer("sum")
    assert kinds["other"].exponent == kinds["x"].exponent + np.log2(scale)
    left = kinds["other"].exponent - (node["exponent"] - int(node.tensors["shift"].max()))
    assert node["weights"] == (0, 1 << left)
    assert list(wrong_nodes(graph, made.graph, run(made, inputs, WIDE))) == []
    assert outputs_error(graph, made, inputs) < 2e-3


def test_the_segment_of_the_coarsest_products_scales_the_others_down(rng: np.random.Generator) -> None:
    inputs = [rng.normal(size=(50, 4))]
    alone = quantize_graph(network((4,), matrix(rng, 0.004).replace(inputs=("x",))), WIDE, inputs)
    for parts in ([matrix(rng, 0.004), None], [matrix(rng, 0.004), matrix(rng, 4.0)]):
        made = quantize_graph(summed(parts, ["x", "x"]), WIDE, inputs)
        node = made.graph.producer("sum")
        read = made.graph.inputs[0]["exponent"]
        finest = min(node["weight_exponents"])
        assert finest > alone.graph.producer("part")["weight_exponent"] + 5
        assert finest == max(node["weight_exponents"])
        if parts[1] is None:
            assert node["weights"][1] == 1 << 14  # the largest that int16 holds
        assert node["exponent"] == read + finest + int(node.tensors["shift"].max())


def test_an_identity_too_fine_for_the_sum_is_shifted(rng: np.random.Generator) -> None:
    inputs = [rng.integers(-32768, 32768, (50, 4)).astype(np.int16)]  # exponent 0, and the gate's is -15
    gate = make("Activation", "gate", "small", function="sigmoid")
    graph = summed([matrix(rng, 1.0), None], ["x", "gate"], scaled("small", 1e-4), gate)
    made = quantize_graph(graph, WIDE, inputs)
    assert [node.op for node in made.graph] == ["Input", "Affine", "Table", "Shift", "Accumulate", "Output"]
    assert made.graph.producer("sum")["weights"] == (0, 1)
    assert list(wrong_nodes(graph, made.graph, run(made, inputs, WIDE))) == []
    assert outputs_error(graph, made, inputs) < 1e-3


def test_a_coarse_value_with_unused_bits_is_shifted_up(rng: np.random.Generator) -> None:
    inputs = [rng.integers(-300, 300, (50, 4)).astype(np.int16)]
    graph = summed([matrix(rng, 2.0**-8), None], ["small", "x"], scaled("small", 2.0**-6))
    made = quantize_graph(graph, WIDE, inputs)
    assert [node.op for node in made.graph] == ["Input", "Affine", "Shift", "Accumulate", "Output"]
    assert made.graph.producer("x.shift")["left"] == 6
    assert outputs_error(graph, made, inputs) < 1e-3


def test_a_value_that_is_always_zero_decides_nothing(rng: np.random.Generator) -> None:
    inputs = [rng.normal(size=(50, 4)) * 1e-3]
    zero = make("Constant", "zero", tensors={"value": np.zeros(4)})
    graph = summed([matrix(rng, 0.01), matrix(rng, 5.0), None], ["x", "zero", "zero"], zero)
    made = quantize_graph(graph, WIDE, inputs)
    assert outputs_error(graph, made, inputs) < 1e-3


def test_rows_of_a_sum_have_scales_of_their_own_without_an_identity(rng: np.random.Generator) -> None:
    inputs = [rng.normal(size=(50, 4))]
    parts: list[Node | None] = [matrix(rng, 1.0), matrix(rng, 1.0)]
    for part in parts:
        assert part is not None
        part.tensors["weight"][:] *= 2.0 ** -np.arange(0, 8, 2, dtype=np.float32)[:, None]
    made = quantize_graph(summed(parts, ["x", "x"]), PARAMS, inputs, per_channel=True)
    assert made.report[0].per_channel
    assert len(set(made.graph.producer("sum").tensors["shift"].tolist())) > 2
    made = quantize_graph(summed([*parts, None], ["x"] * 3), PARAMS, inputs, per_channel=True)
    assert len(set(made.graph.producer("sum").tensors["shift"].tolist())) == 1


def test_integer_weights_of_a_sum_are_exact(rng: np.random.Generator) -> None:
    inputs = [rng.integers(-300, 300, (50, 4)).astype(np.int16)]
    weight = rng.integers(-7, 8, (4, 4)).astype(np.float32)
    part = make("Linear", "part", "x", tensors={"weight": weight})
    made = quantize_graph(summed([part, None], ["x", "x"], bias=np.arange(4.0)), PARAMS, inputs)
    assert made.report[0].exact
    exponent = made.graph.producer("sum")["exponent"]
    wanted = (inputs[0].astype(np.int64) @ weight.T.astype(np.int64) + inputs[0] + np.arange(4)) * 2.0**-exponent
    np.testing.assert_array_equal(run(made, inputs)["sum"].raw, np.floor(wanted + 0.5))


@pytest.mark.verifies("overflow-proof-operator-accumulates-without")
def test_without_calibration_nothing_can_saturate(seed: int) -> None:
    checked = 0
    for number in itertools.count():
        graph, inputs = random_graph(1000 * seed + number, loops=False)
        if any(node["kind"] == "index" for node in graph.inputs) or any(n.op == "Constant" for n in graph):
            continue
        made = quantize_graph(graph, PARAMS)
        x = np.random.default_rng(number)
        ends = [x.choice([-32768, 32767], value.shape).astype(np.int16) for value in inputs]
        found = golden.run_graph(made.graph, ends, PARAMS.acc_bits)
        fixed = [node.name for node in made.graph if node.op == "Shift"]
        assert {n for n, v in found.items() if n not in fixed and v.saturated.any()} == set(), number
        checked += 1
        if checked == 15:
            return


def lopsided(rng: np.random.Generator) -> tuple[Graph, list[Any]]:
    """A convolution of each channel by itself; where inputs are large, weights are small."""
    size = np.array([1, 0.5, 0.1, 0.03, 0.004, 0.001]).reshape(-1, 1, 1)
    weight = rng.normal(size=(6, 1, 3, 3)) * size[..., None]
    graph = network((6, 6, 6), make("Conv", "conv", "x", groups=6, tensors={"weight": weight.astype(np.float32)}))
    return graph, [rng.normal(size=(30, 6, 6, 6)) / size]


@pytest.mark.verifies("scales-channels-tables-clamps-scales")
def test_channels_of_different_sizes_get_scales_of_their_own(rng: np.random.Generator) -> None:
    graph, inputs = lopsided(rng)
    made = {way: quantize_graph(graph, PARAMS, inputs, per_channel=way) for way in ("auto", True, False)}
    assert made["auto"].report[0].per_channel
    assert not made[False].report[0].per_channel
    conv = made["auto"].graph.producer("conv")
    shift = conv.tensors["shift"]
    assert len(set(shift.tolist())) > 2
    assert conv["weight_exponent"] == conv["exponent"] - made["auto"].graph.inputs[0]["exponent"] - int(shift.max())

    def channels(way: Any) -> Any:
        wanted = evaluate.outputs(graph, inputs)[0]
        return np.sqrt(np.mean((made[way].results[0] - wanted) ** 2, axis=(0, 2, 3)))

    assert channels("auto")[-1] < channels(False)[-1]
    even = network((6, 6, 6), make("Conv", "c", "x", tensors={"weight": np.ones((2, 6, 3, 3), np.float32)}))
    assert not quantize_graph(even, PARAMS, inputs).report[0].per_channel


@pytest.mark.verifies("scales-channels-tables-clamps-scales")
@pytest.mark.parametrize("function", sorted(FUNCTIONS.keys() - {"none", "relu"}))
@pytest.mark.parametrize("size", [0.05, 1.0, 6.0, 80.0])
def test_tables_are_as_close_as_their_pieces_allow(function: str, size: float, rng: np.random.Generator) -> None:
    inputs = [np.append(rng.normal(size=(200, 1)) * size, [[0.0]], axis=0)]
    graph = network((1,), make("Activation", "f", "x", function=function))
    made = quantize_graph(graph, PARAMS, inputs)
    found = run(made, inputs)
    node = made.graph.producer("f")
    assert (node.op, node.tensors["table"].shape) == ("Table", (513,))
    assert list(wrong_nodes(graph, made.graph, found)) == []
    assert not sum(int(value.saturated.sum()) for value in found.values())


@pytest.mark.verifies("scales-channels-tables-clamps-scales")
def test_relu_alone_and_clamps_are_exact(rng: np.random.Generator) -> None:
    inputs = [rng.normal(size=(100, 8)) * 4]
    graph = network(
        (8,), make("Activation", "relu", "x", function="relu"), make("Clamp", "six", "relu", low=0.0, high=6.0)
    )
    made = quantize_graph(graph, PARAMS, inputs)
    relu = made.graph.producer("relu")
    assert (relu.op, relu["low"], relu["high"]) == ("Clamp", 0, 32767)
    assert list(wrong_nodes(graph, made.graph, run(made, inputs))) == []


def cell(steps: int, growth: float) -> Graph:
    """A state that grows from step to step."""
    body = Graph((
        make("Input", "s", shape=(2,)), make("Input", "h", shape=(2,)),
        make("Affine", "more", "h", tensors={"scale": np.array(growth), "offset": np.array(0.0)}),
        make("Add", "sum", "s", "more"), make("Output", "y", "sum"), make("Output", "after", "sum"),
    ))  # fmt: skip
    zero = make("Constant", "zero", tensors={"value": np.zeros(2)})
    return Graph((
        make("Input", "x", shape=(steps, 2)), zero,
        make("Scan", "scan", "x", "zero", body=body, outputs=("scan", "last")),
        make("Output", "out", "scan"), make("Output", "end", "last"),
    ))  # fmt: skip


@pytest.mark.verifies("states-loop-exponent-steps-refused")
def test_states_have_one_exponent_that_holds_for_all_steps(rng: np.random.Generator) -> None:
    graph, inputs = cell(12, 1.4), [rng.normal(size=(40, 12, 2))]
    made = quantize_graph(graph, PARAMS, inputs)
    kinds = integer_types(made.graph)
    assert kinds["zero"].exponent == kinds["last"].exponent
    found = run(made, inputs)
    assert int(found["scan/sum"].saturated.sum()) < 5
    assert outputs_error(graph, made, inputs) < 5e-3
    assert list(wrong_nodes(graph, made.graph, found)) == []


@pytest.mark.verifies("states-loop-exponent-steps-refused")
def test_a_loop_without_calibration_says_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"scan: .* give calibration data"):
        quantize_graph(cell(3, 1.0), PARAMS)


@pytest.mark.verifies("scales-channels-tables-clamps-scales")
def test_fake_quantize_has_the_scale_that_it_was_trained_with(rng: np.random.Generator) -> None:
    graph = network(
        (4,), make("Linear", "n", "x", tensors={"weight": np.eye(4, dtype=np.float32)}),
        make("FakeQuantize", "q", "n", exponent=-5, low=-128, high=127),
        make("Linear", "m", "q", tensors={"weight": np.eye(4, dtype=np.float32)}),
    )  # fmt: skip
    inputs = [rng.normal(size=(60, 4)) * 3]
    made = quantize_graph(graph, PARAMS, inputs)
    kinds = integer_types(made.graph)
    assert [node.op for node in made.graph] == ["Input", "Linear", "Clamp", "Linear", "Output"]
    assert (kinds["n"].exponent, kinds["q"].exponent) == (-5, -5)
    raw = run(made, inputs)["q"].raw
    assert (raw.min(), raw.max()) == (-128, 127)
    wanted = evaluate.values(graph, inputs)["q"]
    assert np.abs(raw * 2.0**-5 - wanted).max() <= 2.0**-5  # halves go up here, to even there


@pytest.mark.verifies("report-exact-halved-clustered-saturations")
def test_the_report_says_what_happened(rng: np.random.Generator) -> None:
    integers = np.array([[1, 2, 3]], np.float32)
    plain = quantize_graph(network((3,), make("Linear", "a", "x", tensors={"weight": integers})), PARAMS)
    assert (plain.report[0].exact, plain.report[0].halved, plain.report[0].clustered) == (True, 0, False)
    many = rng.normal(size=(4, 30)).astype(np.float32)
    clustered = quantize_graph(network((30,), make("Linear", "a", "x", tensors={"weight": many})), PARAMS)
    assert (clustered.report[0].exact, clustered.report[0].halved, clustered.report[0].clustered) == (False, 0, True)
    heavy = np.full((1, 600), 32767, np.float32)
    halved = quantize_graph(network((600,), make("Linear", "a", "x", tensors={"weight": heavy})), PARAMS)
    assert (halved.report[0].exact, halved.report[0].halved, halved.report[0].clustered) == (False, 1, False)


@pytest.mark.verifies("report-exact-halved-clustered-saturations")
def test_saturations_are_counted_as_the_golden_model_counts_them(rng: np.random.Generator) -> None:
    graph = network((4,), make("Linear", "a", "x", tensors={"weight": rng.normal(size=(8, 4)).astype(np.float32)}))
    inputs = [rng.normal(size=(500, 4))]
    made = quantize_graph(graph, PARAMS, inputs, percentile=90.0)
    assert made.report[0].saturations == int(run(made, inputs)["a"].saturated.sum()) > 0


@pytest.mark.verifies("overflow-proof-operator-accumulates-without")
@pytest.mark.parametrize("op", ["Linear", "Conv", "Accumulate", "Affine", "AveragePool"])
@pytest.mark.parametrize("acc_bits", [33, 40])
def test_no_input_can_make_a_sum_leave_the_accumulator(op: str, acc_bits: int, rng: np.random.Generator) -> None:
    params = PARAMS.replace(acc_bits=acc_bits)
    node: Node
    if op == "Linear":
        graph = network(
            (900,), make("Linear", "n", "x", tensors={"weight": rng.normal(size=(3, 900)).astype(np.float32)})
        )
    elif op == "Conv":
        weight = rng.normal(size=(4, 60, 3, 3)) * 2.0 ** -np.arange(4).reshape(-1, 1, 1, 1)
        graph = network((60, 4, 4), make("Conv", "n", "x", tensors={"weight": weight.astype(np.float32)}))
    elif op == "Accumulate":
        parts: list[Node | None] = [matrix(rng, 1.0, 900, 900), matrix(rng, 0.5, 900, 900), None]
        weights = {"weight0": parts[0].tensors["weight"], "weight1": parts[1].tensors["weight"]}  # type: ignore[union-attr]
        graph = network((900,), make("Accumulate", "n", "x", "x", "x", tensors=weights, **joined(parts, 0)))
    elif op == "Affine":
        graph = network((3,), make("Affine", "n", "x", tensors={"scale": np.array(3.0), "offset": np.array(1e11)}))
    else:
        graph = network((2, 40, 40), make("AveragePool", "n", "x", kernel=(40, 40)))
    x = [rng.integers(-32768, 32768, (4, *graph.inputs[0]["shape"])).astype(np.int16)]
    made = quantize_graph(graph, params, x, per_channel=True)
    node = made.graph.producer("n")
    shift = node.tensors.get("shift", node.attributes.get("shift"))
    half = np.where(np.asarray(shift) > 0, 2.0 ** (np.asarray(shift) - 1), 0)
    if op in ("Linear", "Conv"):
        weights = np.abs(node.tensors["codebook"].astype(np.int64))[node.tensors["codes"]]
        total = weights.reshape(len(weights), -1).sum(axis=1) * 32768 + np.abs(node.tensors["bias"])
    elif op == "Accumulate":
        rows = [np.abs(node.tensors[f"codebook{n}"].astype(np.int64))[node.tensors[f"codes{n}"]] for n in (0, 1)]
        total = (sum(row.sum(axis=1) for row in rows) + abs(node["weights"][2])) * 32768 + np.abs(node.tensors["bias"])
    elif op == "Affine":
        total = np.abs(node.tensors["scale"].astype(np.int64)) * 32768 + np.abs(node.tensors["offset"])
    else:
        total = np.array(1600 * 32768 * node["weight"])
    assert (total + half < 2.0 ** (acc_bits - 1)).all()
    assert (made.report[0].halved > 0) == (acc_bits == 33 or op in ("Affine", "AveragePool"))


@pytest.mark.verifies("report-exact-halved-clustered-saturations")
@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ([np.zeros((2, 3))], "all zero"),
        ([np.zeros((2, 3), np.int16)], "all zero"),
        ([np.ones((2, 4))], r"\(2, 4\); expected \(n, 3\)"),
        ([np.ones((0, 3))], r"\(0, 3\); expected \(n, 3\) with n at least 1"),
        ([np.ones((2, 3), np.int32)], "int32; expected int16 or float"),
        ([np.full((2, 3), np.nan)], "not finite"),
        ([np.ones((2, 3))] * 2, "for 2 inputs; the network has 1"),
    ],
)
def test_bad_calibration_data_is_refused(calibration: list[Any], message: str) -> None:
    graph = network((3,), make("Linear", "a", "x", tensors={"weight": np.ones((1, 3), np.float32)}))
    for quantize in (quantize_graph, quantize_calibrated):
        with pytest.raises(ModelError, match=message):
            quantize(graph, PARAMS, calibration)


@pytest.mark.verifies("scales-channels-tables-clamps-scales")
def test_indices_are_never_scaled(rng: np.random.Generator) -> None:
    table = rng.normal(size=(9, 4)).astype(np.float32)
    graph = network((3,), make("Gather", "rows", "x", tensors={"table": table}), kind="index")
    inputs = [rng.integers(0, 9, (20, 3))]
    made = quantize_graph(graph, PARAMS, inputs)
    assert list(wrong_nodes(graph, made.graph, run(made, inputs))) == []
    with pytest.raises(ModelError, match="its table has 9 rows"):
        quantize_graph(graph, PARAMS, [inputs[0] + 8])


def test_one_wild_value_does_not_cost_all_others_their_bits(rng: np.random.Generator) -> None:
    graph = network((30,), make("Linear", "a", "x", tensors={"weight": rng.normal(size=(5, 30)).astype(np.float32)}))
    x = rng.normal(size=(400, 30))
    x[7, 3] = 3e6
    chosen, widest = quantize_calibrated(graph, PARAMS, [x]), quantize_graph(graph, PARAMS, [x])
    assert chosen.graph.inputs[0]["exponent"] < widest.graph.inputs[0]["exponent"] - 5
