"""Transposes behind what works number by number, so that they meet the next one and cancel."""

from __future__ import annotations

from compiler.graph.ir import Graph, Node
from compiler.graph.operators import make
from compiler.graph.passes.editor import Editor, rewrite

__all__ = ["cancel_transposes"]

_NUMBER_BY_NUMBER = ("Activation", "Clamp", "Affine")


def cancel_transposes(graph: Graph) -> Graph:
    """Transpose(f(Transpose(x))) → Transpose(Transpose(f(x))); Add of two equal Transposes → Transpose of the Add."""
    return rewrite(graph, lambda editor, node: _through_function(editor, node) or _through_sum(editor, node))


def _through_function(editor: Editor, node: Node) -> bool:
    """`node` works number by number between two Transposes."""
    reader = editor.only_reader(node) if node.op in _NUMBER_BY_NUMBER else None
    first = editor.maker(node) if reader is not None and reader.op == "Transpose" else None
    if first is None or first.op != "Transpose" or not editor.feeds_only(first, node):
        return False
    order = first["order"]
    tensors = {}
    for name, tensor in node.tensors.items():
        full = tensor.reshape((1,) * (len(order) - tensor.ndim) + tensor.shape)
        tensors[name] = full.transpose([order.index(axis) for axis in range(len(order))])
    moved = node.replace(inputs=first.inputs, tensors=tensors)
    editor.replace([first, node], [moved, first.replace(inputs=moved.outputs)], {node.output: first.output})
    return True


def _through_sum(editor: Editor, node: Node) -> bool:
    if node.op not in ("Add", "Multiply"):
        return False
    moves = [editor.maker(node, position) for position in (0, 1)]
    if any(move.op != "Transpose" or not editor.feeds_only(move, node) for move in moves):
        return False
    if moves[0]["order"] != moves[1]["order"]:
        return False
    value = editor.name(f"{node.name}.transposed")
    summed = node.replace(inputs=tuple(move.inputs[0] for move in moves))
    transpose = make("Transpose", value, node.output, order=moves[0]["order"], source=node.source)
    editor.replace([*moves, node], [summed, transpose], {node.output: value})
    return True
