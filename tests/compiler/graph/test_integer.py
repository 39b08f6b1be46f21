"""What an integer graph is checked for: each violation is named, with what was expected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler.errors import ModelError
from compiler.graph.integer import integer_types, verify_integer
from compiler.graph.ir import Graph, Node

WINDOW = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1)}
BOOK = np.array([0, 3, -5, 7], np.int16)


def base() -> dict[str, Node]:
    """A convolution, a branch, and a matrix: every node by name."""
    nodes = [
        Node("x", "Input", (), {"shape": (2, 4, 4), "layout": "CHW", "kind": "real", "exponent": -3}),
        Node("conv", "Conv", ("x",),
             {**WINDOW, "groups": 1, "exponent": -4, "activation": "relu", "weight_exponent": -9, "exact": False},
             {"codes": np.ones((3, 2, 3, 3), np.uint8), "codebook": BOOK, "bias": np.zeros(3, np.int64),
              "shift": np.array([8, 2, 5])}),
        Node("pool", "MaxPool", ("conv",), {**WINDOW, "kernel": (3, 3)}),
        Node("sum", "Add", ("conv", "pool"), {"shift": 1, "exponent": -3, "activation": "none"}),
        Node("down", "Shift", ("sum",), {"left": 0, "right": 2, "exponent": -1}),
        Node("table", "Table", ("down",), {"left": 0, "right": 0, "exponent": -15}, {"table": np.zeros(513, np.int16)}),
        Node("flat", "Reshape", ("table",), {"shape": (48,)}),
        Node("fc", "Linear", ("flat",),
             {"shift": 4, "exponent": -21, "activation": "none", "weight_exponent": -10, "exact": True},
             {"codes": np.ones((5, 48), np.uint8), "codebook": BOOK, "bias": np.zeros(5, np.int64)}),
        Node("out", "Output", ("fc",), {"then": "argmax", "axis": 0}),
    ]  # fmt: skip
    return {node.name: node for node in nodes}


def accumulate(**given: Any) -> Graph:
    """A window over a map at 2^-3 and a map at 2^-5 as it is, summed at 2^-12."""
    maps = {"shape": (2, 4, 4), "layout": "CHW", "kind": "real"}
    node = Node("sum", "Accumulate", ("x", "y"),
        {"kinds": ("conv", "identity"), "strides": (1,) * 4, "paddings": (1, 1, 1, 1, 0, 0, 0, 0),
         "dilations": (1,) * 4, "group_counts": (1, 1), "weights": (0, 128), "weight_exponents": (-9, -7),
         "exponent": -4, "activation": "relu", "exact": False},
        {"codes0": np.ones((2, 2, 3, 3), np.uint8), "codebook0": BOOK, "bias": np.zeros(2, np.int64),
         "shift": np.array([8, 8])})  # fmt: skip
    attributes = {key: value for key, value in given.items() if key in node.attributes}
    tensors = {key: value for key, value in given.items() if key not in attributes}
    node = node.replace(attributes=node.attributes | attributes, tensors=node.tensors | tensors)
    return Graph((
        Node("x", "Input", (), {**maps, "exponent": -3}), Node("y", "Input", (), {**maps, "exponent": -5}),
        node.replace(tensors={key: tensor for key, tensor in node.tensors.items() if tensor is not None}),
        Node("out", "Output", ("sum",), {"then": "", "axis": 0}),
    ))  # fmt: skip


def test_segments_need_no_common_exponent() -> None:
    verify_integer(accumulate(), 40)
    kind = integer_types(accumulate())["sum"]
    assert (kind.shape, kind.exponent) == ((2, 4, 4), -4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weight_exponents": (-9, -8)}, r"exponent is -4; its segments and shift make \[-4, -5\]"),
        ({"weight_exponents": (-9,)}, r"weight_exponents are \(-9,\); expected 2"),
        ({"weights": (5, 128)}, "weight 0 is 5; expected int16, 0 with codes"),
        ({"weights": (0, 1 << 15)}, "weight 1 is 32768"),
        ({"kinds": ("conv", "linear")}, "it sums conv and linear"),
        ({"kinds": ("conv", "copy")}, "kinds are conv, copy; expected conv, linear, identity"),
        ({"kinds": ("conv",)}, "it has 1 kinds for 2 values"),
        ({"kinds": "conv"}, "kinds is 'conv'; expected texts"),
        ({"kinds": ("identity", "identity")}, "codes are .*; expected 2 axes"),
        ({"strides": (1, 1)}, "strides is"),
        ({"strides": (2, 1, 1, 1)}, "its segments make"),
        ({"paddings": (1,) * 4}, "paddings is"),
        ({"group_counts": (3, 1)}, "it reads 2 channels in 3 groups"),
        ({"group_counts": (0, 1)}, "group_counts is"),
        ({"shift": np.array([8, 40])}, "expected 0 to 31"),
        ({"shift": np.array([8])}, "shift is int64"),
        ({"bias": np.zeros(3, np.int64)}, "bias is int64|its weight"),
        ({"bias": np.full(2, 1 << 39)}, "bias does not fit 40 bits"),
        ({"codebook0": None}, "of segment 0; expected codes and codebook, or none"),
        ({"codes0": None, "codebook0": None}, "segment 0 is conv; weights are not there"),
        ({"codes1": np.ones((2, 2, 1, 1), np.uint8), "codebook1": BOOK}, "weight 1 is 128"),
        ({"codes5": np.ones((2, 2, 1, 1), np.uint8)}, "it has codes5 and 2 segments"),
        ({"activation": "tanh"}, "activation 'tanh'"),
    ],
)
def test_violations_of_a_sum_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        verify_integer(accumulate(**given), 40)


@pytest.mark.verifies("integer-graphs-checked-formats-exponents")
def test_types_have_exponents() -> None:
    kinds = integer_types(Graph(tuple(base().values())))
    assert [kinds[name].exponent for name in ("x", "conv", "pool", "sum", "down", "flat", "out")] == [
        -3, -4, -4, -3, -1, -15, -21,
    ]  # fmt: skip
    assert kinds["conv"].shape == (3, 4, 4)
    verify_integer(Graph(tuple(base().values())), 40)


@pytest.mark.verifies("integer-graphs-checked-formats-exponents")
@pytest.mark.parametrize(
    ("name", "attributes", "tensors", "message"),
    [
        ("fc", {"exponent": -20}, {}, "fc: exponent is -20; what it reads and its shift make -21"),
        ("fc", {"shift": 32}, {}, "fc: shift is 32; expected an integer 0 to 31"),
        ("fc", {"activation": "tanh"}, {}, "fc: activation 'tanh'; expected none or relu"),
        ("fc", {}, {"codes": np.full((5, 48), 4, np.uint8)}, "fc: code 4; expected less than 4"),
        ("fc", {}, {"codes": np.ones((5, 47), np.uint8)}, r"its weight \(5, 47\) takes"),
        ("fc", {}, {"codebook": np.array([1, 2, 3, 4], np.int16)}, "fc: code 0 is 1; expected 0"),
        ("fc", {}, {"codebook": BOOK[:3]}, "expected a power of two from 4 to 256"),
        ("fc", {}, {"bias": np.zeros(5)}, "bias is float64"),
        ("fc", {}, {"bias": np.full(5, 1 << 39)}, "fc: bias does not fit 40 bits"),
        ("conv", {}, {"shift": np.array([8, 2, 40])}, "expected 0 to 31"),
        ("conv", {"weight_exponent": -8}, {}, "conv: exponent is -4; input, weights and largest shift make -3"),
        ("conv", {"groups": 3}, {}, "conv: it reads 2 channels in 3 groups"),
        ("sum", {"exponent": 0}, {}, "sum: exponent is 0; what it reads and its shift make -3"),
        ("down", {"right": 3}, {}, "down: exponent is -1; what it reads and its shifts make 0"),
        ("table", {}, {"table": np.zeros(512, np.int16)}, r"table: table is int16 \(512,\); expected int16 \(513,\)"),
        ("out", {"then": "exp"}, {}, "out: then is 'exp'"),
        ("pool", {"surprise": 1}, {}, "unknown attributes surprise"),
    ],
)
def test_violations_are_named(name: str, attributes: dict[str, Any], tensors: dict[str, Any], message: str) -> None:
    nodes = base()
    nodes[name] = nodes[name].replace(
        attributes={**nodes[name].attributes, **attributes}, tensors={**nodes[name].tensors, **tensors}
    )
    with pytest.raises(ModelError, match=message):
        verify_integer(Graph(tuple(nodes.values())), 40)


@pytest.mark.verifies("integer-graphs-checked-formats-exponents")
def test_values_that_meet_must_agree() -> None:
    nodes = base()
    nodes["pool"] = Node("pool", "Shift", ("conv",), {"left": 0, "right": 1, "exponent": -3})
    with pytest.raises(ModelError, match=r"sum: it reads values at exponents \[-4, -3\]; expected equal ones"):
        verify_integer(Graph(tuple(nodes.values())), 40)


def loop(exponent: int) -> Graph:
    """A state that leaves a step at an exponent of its own."""
    state = {"shape": (2,), "layout": "C", "kind": "real", "exponent": -3}
    body = Graph((
        Node("s", "Input", (), state), Node("h", "Input", (), state),
        Node("sum", "Add", ("s", "h"), {"shift": exponent + 3, "exponent": exponent, "activation": "none"}),
        Node("y", "Output", ("sum",), {"then": "", "axis": 0}), Node("e", "Output", ("sum",), {"then": "", "axis": 0}),
    ))  # fmt: skip
    return Graph((
        Node("x", "Input", (), {**state, "shape": (4, 2), "layout": "TC"}),
        Node("zero", "Constant", (), {"layout": "C", "exponent": -3}, {"value": np.zeros(2, np.int16)}),
        Node("scan", "Scan", ("x", "zero"), {"sequences": 1, "reverse": False}, {}, body, ("scan", "end")),
        Node("out", "Output", ("scan",), {"then": "", "axis": 0}),
    ))  # fmt: skip


@pytest.mark.verifies("integer-graphs-checked-formats-exponents")
def test_states_keep_their_exponent() -> None:
    kinds = integer_types(loop(-3))
    assert (kinds["scan"].shape, kinds["scan"].exponent, kinds["end"].exponent) == ((4, 2), -3, -3)
    with pytest.raises(ModelError, match=r"scan: its states are .* after a step"):
        verify_integer(loop(-2), 40)
