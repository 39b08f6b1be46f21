"""Zeros around a map into the padding of the Conv or AveragePool that alone reads it.

Not into a MaxPool: there a zero can be the largest, and what its own padding adds cannot.
"""

from __future__ import annotations

from compiler.graph.ir import Graph, Node
from compiler.graph.passes.editor import Editor, rewrite

__all__ = ["pad_folding"]


def pad_folding(graph: Graph) -> Graph:
    """Conv(Pad), AveragePool(Pad) → Conv, AveragePool."""
    return rewrite(graph, _fold)


def _fold(editor: Editor, node: Node) -> bool:
    reader = editor.only_reader(node) if node.op == "Pad" else None
    if reader is None or reader.op not in ("Conv", "AveragePool") or node["before"][0] or node["after"][0]:
        return False
    added = (*node["before"][1:], *node["after"][1:])
    padding = tuple(own + more for own, more in zip(reader["padding"], added, strict=True))
    kernel = reader.attributes.get("kernel", ())
    if any(most >= size for n, size in enumerate(kernel) for most in padding[n :: len(kernel)]):
        return False  # a pool's window must not lie outside the map
    new = reader.replace(inputs=node.inputs, attributes={**reader.attributes, "padding": padding})
    editor.replace([node, reader], [new])
    return True
