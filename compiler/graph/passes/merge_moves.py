"""Two Reshapes or two Transposes, one behind the other, are one."""

from __future__ import annotations

from compiler.graph.ir import Graph, Node
from compiler.graph.operators import make
from compiler.graph.passes.editor import Editor, rewrite

__all__ = ["merge_reshapes", "merge_transposes"]


def merge_reshapes(graph: Graph) -> Graph:
    """Reshape(Reshape(x)) → Reshape(x)."""
    return rewrite(graph, _reshape)


def _reshape(editor: Editor, node: Node) -> bool:
    if node.op != "Reshape" or editor.maker(node).op != "Reshape":
        return False
    x = editor.maker(node).inputs[0]
    editor.replace([node], [make("Reshape", node.name, x, shape=node["shape"], source=node.source)])
    return True


def merge_transposes(graph: Graph) -> Graph:
    """Transpose(Transpose(x)) → Transpose(x)."""
    return rewrite(graph, _transpose)


def _transpose(editor: Editor, node: Node) -> bool:
    if node.op != "Transpose" or editor.maker(node).op != "Transpose":
        return False
    first = editor.maker(node)
    order = tuple(first["order"][axis] for axis in node["order"])
    editor.replace([node], [make("Transpose", node.name, first.inputs[0], order=order, source=node.source)])
    return True
