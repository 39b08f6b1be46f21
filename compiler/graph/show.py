"""A graph as text, a line a node."""

from __future__ import annotations

from typing import Any

from compiler.graph.ir import Graph
from compiler.graph.operators import OPERATORS, types

__all__ = ["show"]


def show(graph: Graph) -> str:
    """Each node: its name, operator, what it reads, attributes that are not at their default, and what it makes."""
    found = types(graph)
    width = min(40, max(len(node.name) for node in graph))
    lines = []
    for node in graph:
        made = ", ".join(str(found[name]) for name in node.outputs)
        usual = OPERATORS[node.op].attributes
        words = [f"{key}={_short(value)}" for key, value in node.attributes.items() if value != usual.get(key)]
        words += [f"{key} {'x'.join(map(str, tensor.shape))}" for key, tensor in node.tensors.items()]
        lines.append(
            f"{node.name:{width}}  {node.op}({', '.join(node.inputs)}) {' '.join(words)}".rstrip() + f" -> {made}"
        )
        if node.body is not None:
            lines += ["    " + line for line in show(node.body).splitlines()]
    return "\n".join(lines)


def _short(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."
