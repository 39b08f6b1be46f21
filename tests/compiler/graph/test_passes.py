"""Every pass computes the same as before, makes the operators that it states, and a fault in it is caught."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.errors import EieError, ModelError
from compiler.graph import passes
from compiler.graph.ir import Graph, Node
from compiler.graph.operators import verify
from compiler.graph.passes import PASSES, affine_moves, pointwise, run_passes
from compiler.graph.passes.editor import Editor, rewrite
from compiler.graph.shapes import Wrong
from tests.compiler.graph.graphs import Net, differ, ops, random_graph, random_inputs

Make = Callable[[Net], str]


def build(rng: np.random.Generator, form: Make) -> Graph:
    net = Net(rng)
    net.output(form(net))
    return net.graph()


def some(net: Net, low: int = 2, high: int = 6) -> int:
    return int(net.rng.integers(low, high))


def constant(net: Net, *shape: int) -> str:
    return net.add("Constant", tensors={"value": net.numbers(*shape)})


def image(net: Net) -> str:
    """A map of random size."""
    return net.input(some(net), some(net, 4, 7), some(net, 4, 7))


def each(net: Net, value: str, axis: int = 0) -> tuple[int, ...]:
    """A shape with a number for each place along one axis."""
    shape = net.shape(value)
    return tuple(size if n == axis % len(shape) else 1 for n, size in enumerate(shape))


def batch_norm(net: Net, x: str, axis: int = 0) -> str:
    return net.affine(x, *each(net, x, axis))


def positive_norm(net: Net, x: str) -> str:
    tensors = {"scale": np.abs(net.numbers(*each(net, x))), "offset": net.numbers(*each(net, x))}
    return net.add("Affine", x, tensors=tensors)


def swap(net: Net, x: str) -> str:
    return net.add("Transpose", x, order=tuple(reversed(range(len(net.shape(x))))))


def part(net: Net, x: str, axis: int = 0, step: int = 2) -> str:
    return net.add("Slice", x, axis=axis, begin=1, end=net.shape(x)[axis], step=step)


def two_convs(net: Net) -> str:
    x = image(net)
    return net.add("Concat", net.conv(x, 2, 3, 3, padding=1), net.conv(x, 3, 1, 3, padding=(0, 1, 0, 1)), axis=0)


def grouped(net: Net, **given: Any) -> str:
    return net.conv(net.affine(net.input(4, 5, 6), 4, 1, 1), 6, 2, 3, groups=2, **given)


def residual(net: Net) -> str:
    x = net.input(3, 4, 5)
    first, second = (net.linear(net.add("Transpose", x, order=(1, 2, 0)), 4) for _ in range(2))
    return net.add("Add", *(net.add("Transpose", value, order=(2, 0, 1)) for value in (first, second)))


def lookup(net: Net) -> str:
    index = net.input(5, kind="index")
    return net.add("Gather", index, tensors={"table": net.numbers(7, 4)})


def block(net: Net, norm: bool = False) -> str:
    """A residual block: the second convolution and the map itself."""
    x = image(net)
    channels = net.shape(x)[0]
    second = net.conv(net.conv(x, 3, 3, 3, padding=1, activation="relu"), channels, 3, 3, padding=1)
    return net.add("Add", batch_norm(net, second) if norm else second, x)


def projection(net: Net) -> str:
    """A residual block whose shortcut is a convolution of kernel 1, with a stride."""
    x = net.input(3, 7, 6)
    second = net.conv(net.conv(x, 4, 3, 3, padding=1, stride=2, activation="relu"), 5, 3, 3, padding=1)
    return net.relu(net.add("Add", net.conv(x, 5, 1, 1, stride=2), second))


def chain(net: Net, *values: str) -> str:
    total = values[0]
    for value in values[1:]:
        total = net.add("Add", total, value)
    return total


def read_twice(net: Net) -> str:
    x = net.linear(net.input(3), 4)
    return net.add("Multiply", net.add("Add", x, net.input(4)), x)


LAST = ["Reshape", "Linear", "Reshape"]
PATTERNS: dict[str, tuple[Make, list[str]]] = {
    "dead code": (lambda n: (n.linear(n.input(4), 3), n.relu(n.nodes[0].name))[1], ["Activation"]),
    "constants": (lambda n: n.add("Add", n.input(4), n.linear(constant(n, 3), 4)), ["Affine"]),
    "x + constant": (lambda n: n.add("Add", constant(n, 4), n.input(4), activation="relu"), ["Affine+relu"]),
    "x * constant": (lambda n: n.add("Multiply", n.input(4), constant(n, 4)), ["Affine"]),
    "affine 1, 0": (
        lambda n: n.add("Affine", n.input(4), tensors={"scale": np.ones(4), "offset": np.zeros(1)}),
        [],
    ),
    "no-ops": (
        lambda n: n.add(
            "Activation",
            n.add("Concat", n.add("Pad", n.add("Reshape", n.input(4, 3), shape=(4, 3)), before=(0, 0), after=(0, 0))),
            function="none",
        ),
        [],
    ),
    "full slice": (lambda n: n.add("Slice", n.input(4, 3), axis=1, end=3), []),
    "same order": (lambda n: n.add("Transpose", n.input(4, 3), order=(0, 1)), []),
    "pool of one": (lambda n: n.add("AveragePool", image(n), kernel=(1, 1)), []),
    "unbounded clamp": (lambda n: n.add("Clamp", n.input(4), low=-math.inf, high=math.inf), []),
    "clamp is relu": (lambda n: n.add("Clamp", n.input(4), low=0.0, high=math.inf), ["Activation"]),
    "clamp stays": (lambda n: n.add("Clamp", n.input(4), low=0.0, high=6.0), ["Clamp"]),
    "reshape reshape": (
        lambda n: n.add("Reshape", n.add("Reshape", n.input(4, 3), shape=(12,)), shape=(3, 4)),
        ["Reshape"],
    ),
    "transpose transpose": (
        lambda n: n.add("Transpose", n.add("Transpose", image(n), order=(1, 2, 0)), order=(1, 0, 2)),
        ["Transpose"],
    ),
    "transpose and back": (lambda n: swap(n, swap(n, image(n))), []),
    "affine affine": (lambda n: n.affine(n.affine(image(n), 1), 1, activation="relu"), ["Affine+relu"]),
    "linear, norm, relu": (lambda n: n.relu(batch_norm(n, n.linear(n.input(some(n)), some(n)))), ["Linear+relu"]),
    "linear over steps, norm": (lambda n: batch_norm(n, n.linear(n.input(5, 3), 4), -1), ["Linear"]),
    "conv, norm, relu": (
        lambda n: n.relu(batch_norm(n, n.conv(image(n), 3, 2, 2, bias=False, padding=1))),
        ["Conv+relu"],
    ),
    "norm, linear": (lambda n: n.linear(n.affine(n.input(5), 5), 3), ["Linear"]),
    "norm, conv": (grouped, ["Conv"]),
    "norm, padded conv": (lambda n: grouped(n, padding=1), ["Affine", "Conv"]),
    "scale, padded conv": (lambda n: n.conv(n.affine(image(n), 1, offset=False), 4, 3, 3, padding=1), ["Conv"]),
    "norm, flatten, linear": (lambda n: n.linear(n.flat(batch_norm(n, image(n))), 3), ["Reshape", "Linear"]),
    "norm of each place, flatten, linear": (
        lambda n: n.linear(n.flat(n.affine(n.input(2, 3, 4), 2, 3, 4)), 3),
        ["Reshape", "Linear"],
    ),
    "norm, pool, linear": (
        lambda n: n.linear(n.flat(n.add("AveragePool", batch_norm(n, n.input(3, 4, 4)), kernel=(4, 4))), 3),
        ["AveragePool", "Reshape", "Linear"],
    ),
    "norm, concat, linear": (
        lambda n: n.linear(n.add("Concat", n.affine(n.input(4), 4), n.input(3)), 3),
        ["Accumulate"],
    ),
    "concat, norm, relu": (lambda n: n.relu(batch_norm(n, two_convs(n))), ["Conv+relu", "Conv+relu", "Concat"]),
    "conv, max pool, norm": (
        lambda n: positive_norm(n, n.add("MaxPool", n.conv(image(n), 3, 2, 2), kernel=(2, 2), padding=1)),
        ["Conv", "MaxPool"],
    ),
    "conv, max pool, relu": (
        lambda n: n.relu(n.add("MaxPool", n.conv(image(n), 3, 2, 2), kernel=(2, 2))),
        ["Conv+relu", "MaxPool"],
    ),
    "conv, average pool, norm": (
        lambda n: batch_norm(n, n.add("AveragePool", n.conv(image(n), 3, 2, 2), kernel=(2, 2))),
        ["Conv", "AveragePool"],
    ),
    "linear, transpose, norm": (
        lambda n: n.relu(batch_norm(n, n.add("Transpose", n.linear(n.input(5, 3), 4), order=(1, 0)))),
        ["Linear+relu", "Transpose"],
    ),
    "conv, slice, norm": (lambda n: batch_norm(n, part(n, n.conv(image(n), 4, 2, 2), 0)), ["Conv", "Slice"]),
    "gather, norm": (lambda n: n.relu(batch_norm(n, lookup(n), -1)), ["Gather"]),
    "add, relu": (lambda n: n.relu(n.add("Add", n.input(4), n.input(4))), ["Add+relu"]),
    "multiply, relu": (lambda n: n.relu(n.add("Multiply", n.input(4), n.input(4))), ["Multiply+relu"]),
    "relu relu": (lambda n: n.relu(n.relu(n.linear(n.input(4), 3))), ["Linear+relu"]),
    "sigmoid stays": (
        lambda n: n.add("Activation", n.linear(n.input(4), 3), function="sigmoid"),
        ["Linear", "Activation"],
    ),
    "linear, linear": (lambda n: n.linear(n.linear(n.input(4), 3), 2), ["Linear", "Linear"]),
    "pad, conv": (
        lambda n: n.conv(n.add("Pad", image(n), before=(0, 1, 0), after=(0, 2, 1)), 3, 3, 3, padding=1),
        ["Conv"],
    ),
    "pad, average pool": (
        lambda n: n.add("AveragePool", n.add("Pad", image(n), before=(0, 1, 0), after=(0, 0, 1)), kernel=(2, 2)),
        ["AveragePool"],
    ),
    "pad, max pool": (
        lambda n: n.add("MaxPool", n.add("Pad", image(n), before=(0, 1, 1), after=(0, 1, 1)), kernel=(2, 2)),
        ["Pad", "MaxPool"],
    ),
    "pad of channels": (
        lambda n: n.conv(n.add("Pad", image(n), before=(1, 0, 0), after=(0, 0, 0)), 3, 2, 2),
        ["Pad", "Conv"],
    ),
    "full conv": (
        lambda n: n.conv(n.input(4, 3, 5), 6, 3, 5, groups=2, activation="relu"),
        ["Reshape", "Linear+relu", "Reshape"],
    ),
    "full conv with padding": (lambda n: n.conv(n.input(3, 2, 3), 4, 4, 5, padding=1), LAST),
    "one window, dilated": (lambda n: n.conv(n.input(3, 5), 4, 2, dilation=3, stride=2), LAST),
    "conv of one place": (lambda n: n.conv(n.input(3, 1, 1), 4, 3, 3, padding=1), LAST),
    "depthwise": (lambda n: n.conv(n.input(3, 4, 4), 3, 4, 4, groups=3), LAST),
    "full conv behind linear": (
        lambda n: n.linear(n.flat(n.conv(n.input(3, 4, 4), 5, 4, 4)), 2),
        ["Reshape", "Linear", "Linear"],
    ),
    "pointwise conv": (
        lambda n: n.conv(image(n), 4, 1, 1, activation="relu"),
        ["Transpose", "Linear+relu", "Transpose"],
    ),
    "pointwise conv with strides": (
        lambda n: n.conv(n.input(3, 7, 6), 4, 1, 1, stride=(2, 3)),
        ["Slice", "Slice", "Transpose", "Linear", "Transpose"],
    ),
    "pointwise conv along a line": (lambda n: n.conv(n.input(3, 5), 4, 1), ["Transpose", "Linear", "Transpose"]),
    "two pointwise convs": (
        lambda n: n.conv(n.add("Clamp", n.conv(image(n), 4, 1, 1), low=0.0, high=6.0), 3, 1, 1),
        ["Transpose", "Linear", "Clamp", "Linear", "Transpose"],
    ),
    "sum of pointwise convs": (residual, ["Transpose", "Transpose", "Accumulate", "Transpose"]),
    "affine between transposes": (
        lambda n: swap(n, n.affine(swap(n, n.input(4, 3)), 3, 4)),
        ["Affine"],
    ),
    "permute, flatten, linear": (lambda n: n.linear(n.flat(swap(n, image(n))), 3), ["Reshape", "Linear"]),
    "every second, linear": (lambda n: n.linear(part(n, n.input(8)), 3), ["Linear"]),
    "select, linear": (
        lambda n: n.linear(n.add("Slice", n.input(3, 4), axis=0, begin=1, end=2, drop=True), 3),
        ["Reshape", "Linear"],
    ),
    "one step of many, linear": (
        lambda n: n.linear(n.add("Slice", n.input(20, 4), axis=0, begin=19, end=20, drop=True), 3),
        ["Slice", "Linear"],
    ),
    "pad, flatten, linear": (
        lambda n: n.linear(n.flat(n.add("Pad", image(n), before=(0, 1, 0), after=(1, 0, 2))), 3),
        ["Reshape", "Linear"],
    ),
    "slice of features, linear over steps": (lambda n: n.linear(part(n, n.input(3, 6), 1), 2), ["Linear"]),
    "pad of features, linear over steps": (
        lambda n: n.linear(n.add("Pad", n.input(3, 6), before=(0, 1), after=(0, 2)), 2),
        ["Linear"],
    ),
    "linear, slice": (lambda n: part(n, n.linear(n.input(4), 6, activation="relu")), ["Linear+relu"]),
    "linear, unflatten, permute": (
        lambda n: n.flat(swap(n, n.add("Reshape", n.linear(n.input(4), 12), shape=(3, 4)))),
        ["Linear"],
    ),
    "linear over steps, slice of features": (lambda n: part(n, n.linear(n.input(3, 4), 6), 1), ["Linear"]),
    "residual block": (lambda n: n.relu(block(n)), ["Conv+relu", "Accumulate+relu"]),
    "residual block with a norm": (lambda n: n.relu(block(n, norm=True)), ["Conv+relu", "Accumulate+relu"]),
    "projection": (projection, ["Conv+relu", "Accumulate+relu"]),
    "three products": (lambda n: chain(n, *(n.linear(n.input(3), 4) for _ in range(3))), ["Accumulate"]),
    "values among products": (
        lambda n: chain(n, n.input(4), n.linear(n.input(3), 4), n.input(4), n.linear(n.input(2), 4)),
        ["Accumulate"],
    ),
    "sum of sums": (
        lambda n: n.relu(n.add("Add", *(n.add("Add", n.linear(n.input(3), 4), n.input(4)) for _ in range(2)))),
        ["Accumulate+relu"],
    ),
    "relu inside of a sum": (
        lambda n: n.add("Add", n.relu(n.add("Add", n.linear(n.input(3), 4), n.input(4))), n.linear(n.input(3), 4)),
        ["Accumulate+relu", "Accumulate"],
    ),
    "product with a relu": (
        lambda n: n.add("Add", n.linear(n.input(3), 4, activation="relu"), n.input(4)),
        ["Linear+relu", "Add"],
    ),
    "sum of values": (lambda n: chain(n, n.input(4), n.input(4), n.input(4)), ["Add", "Add"]),
    "more than an accumulator takes": (
        lambda n: chain(n, *(n.linear(n.input(3), 2) for _ in range(10))),
        ["Accumulate", "Accumulate"],
    ),
    "product read twice": (read_twice, ["Linear", "Add", "Multiply"]),
    "linear of a map in a sum of convs": (
        lambda n: n.add("Add", n.linear(n.input(3, 4, 5), 5), n.conv(n.input(2, 4, 5), 3, 1, 3, padding=(0, 1, 0, 1))),
        ["Linear", "Accumulate"],
    ),
    "conv of joined maps": (
        lambda n: n.conv(n.add("Concat", n.input(2, 5, 4), n.input(1, 5, 4)), 3, 3, 3, padding=1, activation="relu"),
        ["Accumulate+relu"],
    ),
    "linear of a joined constant": (
        lambda n: n.linear(n.add("Concat", constant(n, 2), n.input(3)), 4),
        ["Linear"],
    ),
    "joined along another axis": (
        lambda n: n.linear(n.add("Concat", n.input(2, 3), n.input(1, 3)), 4),
        ["Concat", "Linear"],
    ),
    "groups of joined maps": (
        lambda n: n.conv(n.add("Concat", n.input(2, 5, 4), n.input(2, 5, 4)), 4, 3, 3, groups=2),
        ["Concat", "Conv"],
    ),
}  # fmt: skip


@pytest.mark.verifies("passes-pattern-becomes-stated-operators")
@pytest.mark.parametrize("name", PATTERNS)
def test_pattern_becomes_the_stated_operators_and_computes_the_same(name: str, rng: np.random.Generator) -> None:
    form, expected = PATTERNS[name]
    graph = build(rng, form)
    rewritten = run_passes(graph)
    assert not differ(graph, rewritten, random_inputs(graph, rng))
    assert ops(rewritten) == expected
    assert run_passes(rewritten) is rewritten


@pytest.mark.verifies("passes-used-pattern")
def test_every_pass_is_used_by_a_pattern(rng: np.random.Generator) -> None:
    used: set[str] = set()
    for form, _ in PATTERNS.values():
        run_passes(build(rng, form), lambda name, graph: used.add(name))
    assert used == {step.name for step in PASSES}


@pytest.mark.verifies("passes-names-layers-survive-weights")
def test_names_of_layers_survive(rng: np.random.Generator) -> None:
    net = Net(rng)
    x = net.add("Linear", net.input(4), name="encoder.fc1", tensors={"weight": net.numbers(3, 4)})
    net.output(net.relu(net.affine(x, 3)))
    (node,) = (node for node in run_passes(net.graph()) if node.op == "Linear")
    assert node.name == "encoder.fc1"
    assert node.output == "encoder.fc1"


@pytest.mark.verifies("passes-names-layers-survive-weights")
def test_weights_that_float32_holds_stay_float32(rng: np.random.Generator) -> None:
    net = Net(rng)
    x = net.linear(net.input(4), 3)
    net.output(net.add("Affine", x, tensors={"scale": np.full(3, 0.5), "offset": np.zeros(3)}))
    (node,) = (node for node in run_passes(net.graph()) if node.op == "Linear")
    assert node.tensors["weight"].dtype == np.float32


@pytest.mark.verifies("passes-others-read-folded-bodies")
def test_a_value_that_others_read_is_not_folded_into(rng: np.random.Generator) -> None:
    net = Net(rng)
    x = net.linear(net.input(4), 3)
    net.output(net.relu(net.affine(x, 3)))
    net.output(x)
    graph = net.graph()
    rewritten = run_passes(graph)
    assert ops(rewritten) == ["Linear", "Affine+relu"]
    assert not differ(graph, rewritten, random_inputs(graph, rng))


@pytest.mark.verifies("passes-others-read-folded-bodies")
def test_the_body_of_a_scan_is_rewritten(rng: np.random.Generator) -> None:
    body = Net(rng)
    x, state = body.input(3), body.input(4)
    after = body.affine(body.linear(body.affine(body.add("Concat", x, state), 1), 4), 4)
    body.output(after)
    body.output(after)
    net = Net(rng)
    x, state = net.input(5, 3), net.input(4)
    net.output(net.add("Scan", x, state, name="scan", body=body.graph(), outputs=("scan", "scan.h")))
    graph = net.graph()
    rewritten = run_passes(graph)
    assert not differ(graph, rewritten, random_inputs(graph, rng))
    (scan,) = (node for node in rewritten if node.op == "Scan")
    assert scan.body is not None
    assert ops(scan.body) == ["Accumulate"]


@pytest.mark.verifies("passes-others-read-folded-bodies")
def test_inputs_and_outputs_stay_in_order(rng: np.random.Generator) -> None:
    net = Net(rng)
    first, _unused, third = net.input(3), net.input(2), net.input(4)
    net.output(net.affine(third, 4))
    net.output(first)
    rewritten = run_passes(net.graph())
    assert [node.name for node in rewritten.inputs] == [node.name for node in net.graph().inputs]
    assert [node.name for node in rewritten.outputs] == [node.name for node in net.graph().outputs]


@pytest.mark.verifies("passes-60-random-graphs-keep")
@pytest.mark.parametrize("number", range(60))
def test_random_graphs_keep_their_outputs(number: int, seed: int) -> None:
    rng = np.random.default_rng([seed, number])
    graph = random_graph(rng)
    rewritten = run_passes(graph)
    assert not differ(graph, rewritten, random_inputs(graph, rng))
    assert len(rewritten.nodes) <= 3 * len(graph.nodes)


FAULTS: list[tuple[str, str, str, str, str]] = [
    # module, what stands there, the fault, a pass that it harms, a pattern that shows it
    ("dead_code", "needed.update(node.inputs)", "needed.update(node.inputs[1:])", "dead_code", "linear, norm, relu"),
    ("constants", '"value": array[0]', '"value": array[0] * 2', "constant_folding", "constants"),
    ("constants", 'if node.op == "Add" else', 'if node.op == "Multiply" else', "constant_operands", "x * constant"),
    ("identities", '== (0, math.inf)', '== (0, 6.0)', "identities", "clamp stays"),
    ("identities", "long == sorted(long)", "True", "identities", "transpose transpose"),
    ("merge_moves", 'shape=node["shape"]', 'shape=node["shape"][::-1]', "merge_reshapes", "reshape reshape"),
    ("merge_moves", 'first["order"][axis] for axis in node["order"]', 'node["order"][axis] for axis in first["order"]',
     "merge_transposes", "transpose transpose"),
    ("merge_affines", '* scale + offset}', '+ offset}', "merge_affines", "affine affine"),
    ("affine_folds", "np.zeros(len(scale))) * scale", "np.zeros(len(scale)))", "affine_behind", "linear, norm, relu"),
    ("affine_folds", 'astype(np.float64) * scale + offset', 'astype(np.float64) * scale',
     "affine_behind", "gather, norm"),
    ("affine_folds", "parts.reshape(groups, -1)", "parts.reshape(-1, groups).T", "affine_in_front", "norm, conv"),
    ("affine_folds", 'reader.tensors.get("bias", 0.0) + shift', 'reader.tensors.get("bias", 0.0)',
     "affine_in_front", "norm, linear"),
    ("affine_folds", "not foldable_below(*found)", "False", "affine_in_front", "norm, padded conv"),
    ("affine_folds", "step.offset / step.scale", "step.offset", "affine_in_front", "norm, padded conv"),
    ("relu_fusion", "not editor.feeds_only(maker, node)", "False", "relu_fusion", "linear read twice, relu"),
    ("relu_fusion", 'get("activation") == "relu"', 'get("activation") != "relu"', "relu_fusion", "linear, norm, relu"),
    ("pad_folding", 'node["before"][1:], *node["after"][1:]', 'node["after"][1:], *node["before"][1:]',
     "pad_folding", "pad, conv"),
    ("pad_folding", '"AveragePool")', '"AveragePool", "MaxPool")', "pad_folding", "negative, pad, max pool"),
    ("conv_to_linear", 'place[n] * node["dilation"][n]', "place[n]", "full_conv", "one window, dilated"),
    ("conv_to_linear", '- node["padding"][n]', "", "full_conv", "full conv with padding"),
    ("conv_to_linear", "group[:, None] * each", "0 * group[:, None]", "full_conv", "depthwise"),
    ("conv_to_linear", "(*range(1, axes + 1), 0)", "(*range(axes, 0, -1), 0)",
     "pointwise_conv", "square pointwise conv"),
    ("conv_to_linear", "end=size, step=step", "end=size, step=step + 1",
     "pointwise_conv", "pointwise conv with strides"),
    ("transposes", "order.index(axis)", "order[axis]", "cancel_transposes", "affine between turns"),
    ("transposes", 'moves[0]["order"] != moves[1]["order"]', "False", "cancel_transposes", "sum of different turns"),
    ("linear_columns", "reshape(-1) - 1\n\n\ndef", "reshape(-1)[::-1] - 1\n\n\ndef", "columns", "every second, linear"),
    ("linear_columns", "weight[:, inside]", "weight[:, : inside.sum()]", "columns", "pad, flatten, linear"),
    ("linear_columns", 'np.arange(move["begin"]', 'np.arange(1 - move["begin"]', "rows",
     "linear over steps, slice of features"),
    ("linear_columns", 'len(editor.shape(node.output)) != 1', "False", "rows", "linear over steps, turned"),
    ("sums", "weight[:, begin:end]", "weight[:, : end - begin]", "parts_of_concat", "norm, concat, linear"),
    ("sums", "if n == 0 else {}", "", "parts_of_concat", "norm, concat, linear"),
    ("sums", 'node["activation"] if last else "none"', '"none"', "parts_of_concat", "conv of joined maps"),
    ("sums", 'get("groups", 1) != 1', 'get("groups", 1) > 9', "parts_of_concat", "groups of joined maps"),
    ("sums", 'and node["activation"] == "none"', "", "sums", "product with a relu"),
    ("sums", 'op == "Add" and node["activation"] == "none"', 'op == "Add"', "sums", "sum with a relu in a sum"),
    ("sums", "reader = editor.only_reader(node) if node.op in", "reader = editor.readers[node.output][0] if node.op in",
     "sums", "product read twice"),
    ("sums", "for bias in biases]", "for bias in biases[:1]]", "sums", "three products"),
    ("sums", 'activation": top["activation"]', 'activation": "none"', "sums", "sum with a relu"),
    ("sums", "return convs or found", "return found", "sums", "linear of a map in a sum of convs"),
]  # fmt: skip

SHOWN_BY_FAULTS_ONLY: dict[str, Make] = {
    "sum with a relu": lambda n: n.add("Add", n.linear(n.input(3), 4), n.input(4), activation="relu"),
    "sum with a relu in a sum": lambda n: n.add(
        "Add", n.add("Add", n.linear(n.input(3), 4), n.input(4), activation="relu"), n.input(4)
    ),
    "linear read twice, relu": lambda n: n.add("Add", n.linear(n.input(4), 3), n.relu(n.nodes[1].name)),
    "negative, pad, max pool": lambda n: n.add(
        "MaxPool",
        n.add(
            "Pad",
            n.add("Affine", n.relu(image(n)), tensors={"scale": np.array(-1.0), "offset": np.array(-1.0)}),
            before=(0, 1, 1),
            after=(0, 0, 0),
        ),
        kernel=(2, 2),
    ),
    "square pointwise conv": lambda n: n.conv(n.input(3, 4, 4), 2, 1, 1),
    "affine between turns": lambda n: n.add(
        "Transpose", n.affine(n.add("Transpose", n.input(3, 3, 3), order=(1, 2, 0)), 3, 3, 3), order=(0, 2, 1)
    ),
    "sum of different turns": lambda n: n.add(
        "Add", *(n.add("Transpose", n.input(3, 3, 3), order=order) for order in ((1, 2, 0), (2, 0, 1)))
    ),
    "linear over steps, turned": lambda n: n.add("Transpose", n.linear(n.input(4, 4), 4), order=(1, 0)),
}


@pytest.mark.verifies("planted-faults-pass")
@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[f"{fault[3]}:{fault[4]}" for fault in FAULTS])
def test_planted_fault_in_a_pass_is_caught(number: int, rng: np.random.Generator) -> None:
    module, right, wrong, name, pattern = FAULTS[number]
    source = Path(passes.__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    assert source.count(right) >= 1, "the fault cannot be planted any more"
    planted = types.ModuleType("planted")
    exec(compile(source.replace(right, wrong), f"{module}.py with a fault", "exec"), planted.__dict__)
    graph = build(rng, SHOWN_BY_FAULTS_ONLY.get(pattern) or PATTERNS[pattern][0])
    assert caught(getattr(passes, name), graph, rng) is False
    assert caught(getattr(planted, name), graph, rng)


def caught(step: Callable[[Graph], Graph], graph: Graph, rng: np.random.Generator) -> bool:
    """Whether the checks around a pass object to it."""
    try:
        rewritten = step(graph)
        verify(rewritten)
        return differ(graph, rewritten, random_inputs(graph, rng))
    except (EieError, Wrong, KeyError, IndexError, ValueError):
        return True


@pytest.mark.verifies("planted-faults-pass")
@pytest.mark.parametrize(
    ("wrong", "pattern"),
    [
        (lambda editor, move, step: [step], "conv, slice, norm"),
        (lambda editor, move, step: [step] * len(move.inputs), "concat, norm, relu"),
    ],
)
def test_planted_fault_in_a_step_past_a_move_is_caught(
    wrong: Any, pattern: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affine_moves, "before", wrong)
    assert caught(passes.lift_pointwise, build(rng, PATTERNS[pattern][0]), rng)


@pytest.mark.verifies("planted-faults-pass")
def test_planted_fault_in_a_step_behind_a_move_is_caught(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = affine_moves.after

    def wrong(editor: Editor, move: Node, position: int, step: pointwise.Pointwise) -> pointwise.Pointwise | None:
        made = right(editor, move, position, step)
        return None if made is None else pointwise.Pointwise(made.scale[::-1], made.offset, made.activation)

    graph = build(rng, PATTERNS["norm of each place, flatten, linear"][0])
    assert not caught(passes.sink_affines, graph, rng)
    monkeypatch.setattr(affine_moves, "after", wrong)
    assert caught(passes.sink_affines, graph, rng)


@pytest.mark.verifies("passes-negative-scale-past-maxpool")
def test_max_pool_lets_no_negative_scale_past(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(rng)
    x = net.add("MaxPool", net.conv(net.input(3, 6, 6), 4, 3, 3), kernel=(2, 2))
    net.output(net.add("Affine", x, tensors={"scale": np.array(-1.0), "offset": np.array(0.5)}))
    graph = net.graph()
    assert ops(run_passes(graph)) == ["Conv", "MaxPool", "Affine"]
    monkeypatch.setattr(pointwise, "_pooled", lambda move, step, shape: pointwise.Pointwise(
        np.broadcast_to(-1.0, shape), np.broadcast_to(0.5, shape), "none"
    ))  # fmt: skip
    assert caught(run_passes, graph, rng)


@pytest.mark.verifies("passes-negative-scale-past-maxpool")
def test_offset_does_not_pass_zeros_that_a_pool_counts(rng: np.random.Generator) -> None:
    net = Net(rng)
    x = net.add("AveragePool", net.conv(net.input(3, 6, 6), 4, 3, 3), kernel=(2, 2), padding=1)
    net.output(net.affine(x, 4, 1, 1))
    graph = net.graph()
    assert ops(run_passes(graph)) == ["Conv", "AveragePool", "Affine"]


@pytest.mark.verifies("rules-undo-end-error")
def test_rules_that_undo_each_other_end_with_an_error(rng: np.random.Generator) -> None:
    def turn(editor: Editor, node: Node) -> bool:
        if node.op != "Activation":
            return False
        editor.replace([node], [node.replace()])
        return True

    with pytest.raises(ModelError, match="rewriting does not end after 1000 sweeps"):
        rewrite(build(rng, lambda n: n.relu(n.input(3))), turn)
