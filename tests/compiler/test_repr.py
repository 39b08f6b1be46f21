"""What networks, graphs, nodes and images print as: names, shapes and sizes, and never all numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from compiler.graph.dense import Dense, dense_graph
from compiler.graph.ir import Graph, Node
from compiler.lower.pipeline import compile_graph
from compiler.network import Network
from compiler.short import few
from hw.params import preset

SHORT = 400  # characters


def float_graph(layers: int) -> Graph:
    return dense_graph([Dense(f"block.{n}.fc", np.full((40, 40), 0.5, np.float32)) for n in range(layers)])


def compiled(layers: int) -> Network:
    return compile_graph(float_graph(layers), preset("BALANCED_2"), np.ones((2, 40), np.int16))


def too_long(thing: object) -> bool:
    text = repr(thing)
    return len(text) > SHORT or "array(" in text or "\n" in text


@pytest.mark.verifies("networks-graphs-nodes-images-print")
@pytest.mark.parametrize("layers", [1, 12])
def test_reprs_are_short_and_name_what_is_there(layers: int) -> None:
    network, graph = compiled(layers), float_graph(layers)
    (image,) = network.images
    node = graph.producer("block.0.fc")
    for thing in (network, network.graph, image, graph, *graph, *network.graph):
        assert not too_long(thing), repr(thing)
    assert repr(graph).startswith(f"<Graph: {layers + 2} nodes, ")
    assert "block.0.fc: Linear(input) -> block.0.fc, " in repr(node)
    assert "weight float32 (40, 40)" in repr(node)
    size = sum(
        value.nbytes
        for value in (getattr(image, field.name) for field in dataclasses.fields(image))
        if isinstance(value, np.ndarray)
    )
    assert repr(image).startswith(f"<Image: 2 PEs, {size:,} bytes, layers block.0.fc")
    assert ("and 8 more" in repr(image)) == (layers == 12)
    assert repr(image) in repr(network)
    assert repr(network.graph) in repr(network)


def test_a_long_attribute_and_a_body_are_short() -> None:
    node = Node("n", "Scan", ("x",), {"table": tuple(range(5000))}, body=float_graph(2))
    assert not too_long(node)
    assert "body <Graph: 4 nodes" in repr(node)


def test_few_counts_what_it_leaves_out() -> None:
    assert few([]) == ""
    assert few("abcd") == "a, b, c, d"
    assert few("abcde") == "a, b, c, d and 1 more"


def test_planted_fault_a_repr_of_all_fields_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    node = float_graph(1).producer("block.0.fc")
    monkeypatch.setattr(Node, "__repr__", lambda self: repr(vars(self)))
    assert too_long(node)
