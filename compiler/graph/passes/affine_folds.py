"""Batch normalization, scale and shift into the weights and bias of the node before them or after them.

Behind a Linear or Conv the rows are scaled, behind a Gather the columns of its table. In front of a Linear its columns
are scaled, and the offset becomes part of the bias. In front of a Conv that holds only where it sees no padding: zeros
around the map have no offset, so that the same offset gives another sum at the border, and a bias is the same
everywhere. There the scale alone goes into the weights, and ``offset / scale`` is still added in front.

Products are kept in float64 where float32 would round them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.graph.ir import Graph, Node
from compiler.graph.operators import make
from compiler.graph.passes.affine_moves import foldable_above, foldable_below
from compiler.graph.passes.editor import Editor, rewrite
from compiler.graph.passes.pointwise import Pointwise, narrow, step_of

__all__ = ["affine_behind", "affine_in_front"]

Array = NDArray[Any]


def affine_behind(graph: Graph) -> Graph:
    """Affine(Linear), Affine(Conv), Affine(Gather) → Linear, Conv, Gather."""
    return rewrite(graph, _behind)


def _behind(editor: Editor, node: Node) -> bool:
    step = step_of(editor, node)
    if step is None:
        return False
    maker = editor.maker(node)
    if maker.op not in ("Linear", "Conv", "Gather") or not editor.feeds_only(maker, node):
        return False
    if (maker.op != "Gather" and node.op != "Affine") or not foldable_above(maker, step):
        return False
    parts = step.along(0 if maker.op == "Conv" else -1)
    assert parts is not None
    scale, offset = parts
    if maker.op == "Gather":
        table = maker.tensors["table"].astype(np.float64) * scale + offset
        table = np.maximum(table, 0.0) if step.activation == "relu" else table
        editor.replace([node, maker], [maker.replace(tensors={"table": narrow(table)})], {node.output: maker.output})
        return True
    weight = maker.tensors["weight"].astype(np.float64)
    scaled = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    new = _with(maker, scaled, maker.tensors.get("bias", np.zeros(len(scale))) * scale + offset)
    new = new.replace(attributes={**new.attributes, "activation": step.activation})
    editor.replace([node, maker], [new], {node.output: maker.output})
    return True


def affine_in_front(graph: Graph) -> Graph:
    """Linear(Affine), Conv(Affine) → Linear, Conv."""
    return rewrite(graph, lambda editor, node: _in_front(editor, node) or _scale_in_front(editor, node))


def _in_front(editor: Editor, node: Node) -> bool:
    found = _reader(editor, node)
    if found is None or not foldable_below(*found):
        return False
    reader, step = found
    parts = step.along(0 if reader.op == "Conv" else -1)
    assert parts is not None
    weight = reader.tensors["weight"].astype(np.float64)
    by_input = _by_input(reader, parts[1])
    shift = (weight * by_input).reshape(len(weight), -1).sum(axis=1)
    new = _with(reader, weight * _by_input(reader, parts[0]), reader.tensors.get("bias", 0.0) + shift)
    editor.replace([node, reader], [new.replace(inputs=node.inputs)])
    return True


def _scale_in_front(editor: Editor, node: Node) -> bool:
    """In front of a Conv with padding: the scale alone."""
    found = _reader(editor, node)
    if found is None or found[0].op != "Conv":
        return False
    reader, step = found
    parts = step.along(0)
    if parts is None or bool((parts[0] == 1).all()) or not bool(parts[0].all()):
        return False
    scale = parts[0]
    with np.errstate(over="ignore"):
        left = Pointwise(np.ones_like(step.scale), np.broadcast_to(step.offset / step.scale, step.scale.shape), "none")
    if not bool(np.isfinite(left.offset).all()):
        return False
    weight = reader.tensors["weight"].astype(np.float64) * _by_input(reader, scale)
    new = _with(reader, weight, reader.tensors.get("bias"))
    editor.replace([node, reader], [left.node(node.name, node.inputs[0], node.source), new])
    return True


def _reader(editor: Editor, node: Node) -> tuple[Node, Pointwise] | None:
    """The Linear or Conv that alone reads an Affine, and what the Affine does."""
    reader = editor.only_reader(node) if node.op == "Affine" and node["activation"] == "none" else None
    step = step_of(editor, node) if reader is not None and reader.op in ("Linear", "Conv") else None
    return None if reader is None or step is None else (reader, step)


def _by_input(reader: Node, parts: Array) -> Array:
    """A number for each input, as one for each weight, ready to broadcast."""
    weight = reader.tensors["weight"]
    if reader.op == "Linear":
        return parts
    groups = reader["groups"]
    each = np.repeat(parts.reshape(groups, -1), len(weight) // groups, axis=0)
    return each.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))


def _with(node: Node, weight: Array, bias: Any) -> Node:
    """A Linear or Conv with other weights; a bias only where it does something."""
    tensors = {"weight": narrow(weight)}
    if bias is not None and ("bias" in node.tensors or np.any(bias)):
        tensors["bias"] = np.asarray(bias, np.float64)
    return make(node.op, node.name, *node.inputs, tensors=tensors, source=node.source, **node.attributes)
