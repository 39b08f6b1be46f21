"""Run a float graph: the meaning of each node in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.graph.functions import TAILS
from compiler.graph.ir import Graph
from compiler.graph.operators import OPERATORS

__all__ = ["outputs", "tails", "values"]

Array = NDArray[Any]


def values(graph: Graph, inputs: Sequence[Array]) -> dict[str, Array]:
    """Every value of a graph, (batch, *shape) float64; of a constant, and what is computed from it, a batch of one.

    Parameters
    ----------
    inputs : an array for each Input, (batch, *shape).
    """
    found: dict[str, Array] = {}
    given = iter(inputs)
    for node in graph:
        if node.op == "Input":
            array = np.asarray(next(given))
            found[node.output] = array if node["kind"] == "index" else array.astype(np.float64)
        else:
            made = OPERATORS[node.op].meaning(node, [found[name] for name in node.inputs], outputs)
            found.update(zip(node.outputs, made, strict=True))
    return found


def outputs(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    """What the Output nodes read: the results before what they leave to the host."""
    found = values(graph, inputs)
    return [found[node.inputs[0]] for node in graph.outputs]


def tails(graph: Graph, results: Sequence[Array]) -> list[Array]:
    """What the host makes of the outputs: softmax, argmax or nothing."""
    return [
        TAILS[node["then"]](value, node["axis"] + 1 if node["axis"] >= 0 else -1)
        for node, value in zip(graph.outputs, results, strict=True)
    ]
