"""Identity removal: nodes that change nothing go, and nodes that are another operator in disguise become that one."""

from __future__ import annotations

import math

from compiler.graph.ir import Graph, Node
from compiler.graph.operators import make
from compiler.graph.passes.editor import Editor, rewrite

__all__ = ["identities"]


def identities(graph: Graph) -> Graph:
    """Affine by 1 and 0, Reshape to the same shape, Pad by nothing, Concat of one, … → nothing."""
    return rewrite(graph, lambda editor, node: _remove(editor, node) or _simplify(editor, node))


def _remove(editor: Editor, node: Node) -> bool:
    if len(node.inputs) != 1 or not _changes_nothing(node, editor.shape(node.inputs[0])):
        return False
    editor.replace([node], [], {node.output: node.inputs[0]})
    return True


def _changes_nothing(node: Node, shape: tuple[int, ...]) -> bool:
    match node.op:
        case "Affine":
            neutral = bool((node.tensors["scale"] == 1).all() and (node.tensors["offset"] == 0).all())
            return neutral and node["activation"] == "none"
        case "Reshape":
            return bool(node["shape"] == shape)
        case "Transpose":
            return bool(node["order"] == tuple(range(len(shape))))
        case "Slice":
            return (node["begin"], node["end"], node["step"]) == (0, shape[node["axis"]], 1) and not node["drop"]
        case "Pad":
            return not any(node["before"]) and not any(node["after"])
        case "Concat":
            return True
        case "Activation":
            return bool(node["function"] == "none")
        case "Clamp":
            return bool(node["low"] == -math.inf and node["high"] == math.inf)
        case "MaxPool" | "AveragePool":
            return set(node["kernel"]) == {1} and set(node["stride"]) == {1}
    return False


def _simplify(editor: Editor, node: Node) -> bool:
    """Another operator that does the same."""
    if node.op == "Clamp" and (node["low"], node["high"]) == (0, math.inf):
        new = make("Activation", node.name, *node.inputs, function="relu", source=node.source)
    elif node.op == "Affine" and _changes_nothing(_without_activation(node), ()):
        new = make("Activation", node.name, *node.inputs, function=node["activation"], source=node.source)
    elif _only_regroups(editor, node):
        shape = editor.shape(node.output)
        new = make("Reshape", node.name, *node.inputs, shape=shape, source=node.source)
    else:
        return False
    editor.replace([node], [new])
    return True


def _without_activation(node: Node) -> Node:
    return node.replace(attributes={**node.attributes, "activation": "none"})


def _only_regroups(editor: Editor, node: Node) -> bool:
    """Whether the numbers keep their row-major order."""
    if node.op == "Slice":
        return math.prod(editor.shape(node.inputs[0])) == math.prod(editor.shape(node.output))
    if node.op != "Transpose":
        return False
    shape = editor.shape(node.inputs[0])
    long = [axis for axis in node["order"] if shape[axis] > 1]
    return long == sorted(long)
