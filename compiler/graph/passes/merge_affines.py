"""Two Affines, one behind the other, are one."""

from __future__ import annotations

import numpy as np

from compiler.graph.ir import Graph, Node
from compiler.graph.operators import make
from compiler.graph.passes.editor import Editor, rewrite

__all__ = ["merge_affines"]


def merge_affines(graph: Graph) -> Graph:
    """(x·a + b)·c + d → x·(a·c) + (b·c + d)."""
    return rewrite(graph, _merge)


def _merge(editor: Editor, node: Node) -> bool:
    if node.op != "Affine":
        return False
    first = editor.maker(node)
    if first.op != "Affine" or first["activation"] != "none" or not editor.feeds_only(first, node):
        return False
    scale, offset = (node.tensors[name].astype(np.float64) for name in ("scale", "offset"))
    tensors = {"scale": first.tensors["scale"] * scale, "offset": first.tensors["offset"] * scale + offset}
    activation = node["activation"]
    merged = make("Affine", node.name, *first.inputs, tensors=tensors, source=node.source, activation=activation)
    editor.replace([first, node], [merged])
    return True
