"""Networks that ask the host for more than it has are refused before anything of their size is made."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from compiler.errors import ImageError
from compiler.graph.ir import Graph, Node
from compiler.network import Network
from compiler.network_check import check_network
from sim.describe import describe
from tests.compiler.networks import SMALL

FAR = 1 << 30


def source(*shape: int, name: str = "x") -> Node:
    return Node(name, "Input", (), {"shape": shape, "layout": "", "kind": "real", "exponent": 0})


def output(value: str, name: str = "y") -> Node:
    return Node(name, "Output", (value,), {"then": "", "axis": 0})


def pad(name: str, value: str, *after: int) -> Node:
    return Node(name, "Pad", (value,), {"before": (0,) * len(after), "after": after})


def pool(kernel: int, stride: int, padding: int) -> Node:
    window = {"kernel": (kernel,) * 2, "stride": (stride,) * 2, "padding": (padding,) * 4, "dilation": (1, 1)}
    return Node("pool", "MaxPool", ("map",), window)


def total(**given: Any) -> Node:
    """One place of a map, and once more under a window."""
    attributes = {
        "kinds": ("identity", "conv"), "strides": (1,) * 4, "paddings": (0,) * 8, "dilations": (1,) * 4,
        "group_counts": (1, 1), "weights": (1, 0), "weight_exponents": (0, 0), "exponent": 0, "activation": "none",
        "exact": False,
    }  # fmt: skip
    tensors = {
        "codes1": np.ones((1, 1, 1, 1), np.uint8), "codebook1": np.arange(4, dtype=np.int16),
        "bias": np.zeros(1, np.int64), "shift": np.zeros(1, np.int64),
    }  # fmt: skip
    return Node("sum", "Accumulate", ("map", "map"), {**attributes, **given}, tensors)


def loop(value: str, depth: int, steps: int) -> Node:
    """Scans in one another, of which the innermost limits one number."""
    shape = (steps,) * (depth - 1)
    inner = loop("s", depth - 1, steps) if depth > 1 else Node("loop", "Clamp", ("s",), {"low": -5, "high": 5})
    body = Graph((source(*shape, name="s"), inner, output("loop", "end")))
    return Node("loop", "Scan", (value,), {"sequences": 1, "reverse": False}, body=body)


def network(*nodes: Node) -> Network:
    return Network(SMALL, Graph(nodes), ())


@pytest.mark.verifies("network-file-headers-nested-deeply")
@pytest.mark.parametrize(
    ("nodes", "what"),
    [
        ([source(1), *(pad(f"p{n}", "x", (1 << 26) - 1) for n in range(5)), output("p4")], "numbers"),
        ([source(1, 1, 1), pad("map", "x", 0, 4000, 4000), pool(2000, 1, 0), output("pool")], "operations"),
        ([source(1, 1, 1, name="map"), pool(FAR, FAR, FAR - 1), output("pool")], "numbers"),
        (
            [
                source(1, 1, 1, name="map"),
                total(strides=(1, 1, FAR, FAR), paddings=(0,) * 6 + (FAR - 1,) * 2),
                pool(2, 1, 1),
                output("sum"),
            ],
            "numbers",
        ),
        ([source(1), pad("s", "x", (1 << 23) - 1), loop("s", 1, 1 << 23), output("loop")], "operations"),
        ([source(200, 200, 200), loop("x", 3, 200), output("loop")], "operations"),
    ],
)
def test_what_no_host_can_run_is_refused(nodes: list[Node], what: str) -> None:
    with pytest.raises(ImageError, match=f"one sample takes [0-9,]+ {what} on the host; expected at most"):
        check_network(network(*nodes))


@pytest.mark.verifies("network-file-headers-nested-deeply")
@pytest.mark.parametrize(
    "nodes",
    [
        [source(3, 224, 224, name="map"), pool(7, 1, 3), output("pool")],
        [source(10000), loop("x", 1, 10000), output("loop")],
        [source(1, 1, 1, name="map"), total(), output("sum")],
    ],
)
def test_what_a_host_can_run_is_not(nodes: list[Node]) -> None:
    check_network(network(*nodes))


@pytest.mark.verifies("network-file-headers-nested-deeply")
def test_a_loop_does_not_hold_a_part_for_the_array() -> None:
    attributes: dict[str, Any] = {
        "image": 0, "reads": ("C",), "makes": ("C",), "shape": (4,), "layouts": ("C",), "exponents": (0,),
    }  # fmt: skip
    body = Graph((source(4, name="s"), Node("a", "Array", ("s",), attributes), output("a", "end")))
    node = Node("loop", "Scan", ("x",), {"sequences": 1, "reverse": False}, body=body)
    with pytest.raises(ImageError, match=r"a is in a loop \(loop\)"):
        check_network(network(source(3, 4), node, output("loop")))


@pytest.mark.verifies("network-file-headers-nested-deeply")
def test_a_value_does_not_have_the_name_of_one_in_a_loop() -> None:
    limits = Node("loop/s", "Clamp", ("x",), {"low": -5, "high": 5})
    with pytest.raises(ImageError, match="'loop/s' is a value of the graph and one of a loop"):
        check_network(network(source(4, 4), limits, loop("x", 2, 4), output("loop")))


@pytest.mark.verifies("network-file-headers-nested-deeply")
def test_many_nodes_take_time_in_proportion() -> None:
    count = 20000
    limits = {"low": -5, "high": 5}
    nodes = [Node(f"n{n}", "Clamp", (f"n{n - 1}" if n else "x",), limits) for n in range(count)]
    made = network(source(1), *nodes, output(f"n{count - 1}"))
    begin = time.perf_counter()
    check_network(made)
    describe(made)
    assert time.perf_counter() - begin < 5  # with a comparison for every two nodes: above 20 seconds
