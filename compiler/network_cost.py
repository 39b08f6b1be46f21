"""What one sample of a network costs the host: a file of a few bytes can ask for any number of steps and windows."""

from __future__ import annotations

import math
from collections.abc import Mapping

from compiler.errors import ImageError
from compiler.graph.integer import integer_types
from compiler.graph.ir import Graph, Node, Type

__all__ = ["check_cost"]

MAX_NUMBERS = 1 << 28
"""Numbers in all values of one sample, those of a loop once for each step; they are all kept, two bytes each."""

MAX_OPERATIONS = 1 << 38
"""Products, comparisons and moves of one sample: minutes on one core, and far more than any network of today."""

OVERHEAD = 1 << 16
"""Operations in the time that it takes to execute a node on nothing."""


def check_cost(graph: Graph) -> None:
    """Raise `ImageError` for a verified integer graph that no host has the memory or the time for."""
    numbers, operations = _cost(graph)
    for found, limit, what in ((numbers, MAX_NUMBERS, "numbers"), (operations, MAX_OPERATIONS, "operations")):
        if found > limit:
            raise ImageError(f"one sample takes {found:,} {what} on the host; expected at most {limit:,}")


def _cost(graph: Graph) -> tuple[int, int]:
    """Numbers and operations."""
    types = integer_types(graph)
    numbers = operations = 0
    for node in graph:
        made = sum(math.prod(types[name].shape) for name in node.outputs)
        read = _read(node, types)
        numbers += made + read
        operations += OVERHEAD + made * _each(node) + read
        if node.body is not None:
            steps = types[node.inputs[0]].shape[0]
            inner = _cost(node.body)
            numbers, operations = numbers + steps * inner[0], operations + steps * inner[1]
    return numbers, operations


def _read(node: Node, types: Mapping[str, Type]) -> int:
    """Numbers in the maps that it reads with the zeros around them."""
    around = node.attributes.get("padding", ()) or node.attributes.get("paddings", ())
    if not around:
        return 0
    total, each = 0, len(around) // len(node.inputs)
    for number, name in enumerate(node.inputs):
        channels, *sizes = types[name].shape
        padding = around[number * each : (number + 1) * each]
        total += channels * math.prod(size + padding[n] + padding[n + len(sizes)] for n, size in enumerate(sizes))
    return total


def _each(node: Node) -> int:
    """Operations for one number of a result."""
    weights = [tensor for name, tensor in node.tensors.items() if name.startswith("codes")]
    if weights:
        return len(node.inputs) + sum(math.prod(codes.shape[1:]) for codes in weights)
    return math.prod(node.attributes.get("kernel", ()))
