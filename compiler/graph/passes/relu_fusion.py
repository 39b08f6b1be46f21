"""ReLU into the node before it, where that value is needed nowhere else; one behind a ReLU changes nothing."""

from __future__ import annotations

from compiler.graph.ir import Graph, Node
from compiler.graph.passes.editor import Editor, rewrite

__all__ = ["relu_fusion"]

_TAKES_RELU = ("Linear", "Conv", "Affine", "Add", "Multiply")


def relu_fusion(graph: Graph) -> Graph:
    """ReLU(Linear), ReLU(Conv), ReLU(Affine), ReLU(Add), ReLU(Multiply) → the same with activation="relu"."""
    return rewrite(graph, _fuse)


def _fuse(editor: Editor, node: Node) -> bool:
    if node.op != "Activation" or node["function"] != "relu":
        return False
    maker = editor.maker(node)
    if maker.attributes.get("activation") == "relu" or maker.attributes.get("function") == "relu":
        editor.replace([node], [], {node.output: node.inputs[0]})
        return True
    if maker.op not in _TAKES_RELU or not editor.feeds_only(maker, node):
        return False
    fused = maker.replace(attributes={**maker.attributes, "activation": "relu"})
    editor.replace([node, maker], [fused], {node.output: maker.output})
    return True
