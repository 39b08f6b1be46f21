"""Dead code: a node goes when no output needs what it makes. Inputs stay, used or not."""

from __future__ import annotations

from compiler.graph.ir import Graph

__all__ = ["dead_code"]


def dead_code(graph: Graph) -> Graph:
    """Nodes that an output needs, and every input."""
    needed: set[str] = set()
    kept = []
    for node in reversed(graph.nodes):
        if node.op in ("Input", "Output") or needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    return graph if len(kept) == len(graph.nodes) else Graph(tuple(reversed(kept)))
