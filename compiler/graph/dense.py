"""Networks of fully connected layers, one after the other, written down in a line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compiler.graph.ir import Graph
from compiler.graph.operators import make, verify

__all__ = ["Dense", "dense_graph"]


@dataclass(frozen=True, eq=False)
class Dense:
    """One fully connected layer, ``activation(weight @ x + bias)``.

    Attributes
    ----------
    name : unique within the network.
    weight : float32 (out, in); zeros are not stored.
    bias : float64 (out,) or None.
    activation : "none" or "relu".
    """

    name: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float64] | None = None
    activation: Literal["none", "relu"] = "none"


def dense_graph(layers: Iterable[Dense]) -> Graph:
    """The graph Input → Linear → … → Output. Raises `ModelError` if it does not verify."""
    listed = tuple(layers)
    first = listed[0].weight
    nodes = [make("Input", "input", shape=(first.shape[1] if first.ndim == 2 else 1,))]
    for layer in listed:
        tensors = {"weight": layer.weight} | ({} if layer.bias is None else {"bias": layer.bias})
        nodes.append(make("Linear", layer.name, nodes[-1].output, tensors=tensors, activation=layer.activation))
    graph = Graph((*nodes, make("Output", "output", nodes[-1].output)))
    verify(graph)
    return graph
