"""Convolutions that are matrix products become Linear, which the array computes.

One window: the map is one vector, and the weights that fall into the padding go. Kernel 1: the channels of each place
are one vector; a stride leaves places out. Zeros of groups and of places that a window leaves out are written out, but
not stored. A Conv that is added to something stays: it becomes a segment of that sum.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.graph.ir import Graph, Node
from compiler.graph.operators import make
from compiler.graph.passes.editor import Editor, rewrite
from compiler.graph.passes.sums import summand

__all__ = ["full_conv", "pointwise_conv"]

MAX_WEIGHTS = 1 << 24
"""Weights, most of them zeros, beyond which a Conv with groups stays one."""


def full_conv(graph: Graph) -> Graph:
    """Conv with a single window → Reshape(Linear(Reshape))."""
    return rewrite(graph, _full)


def _full(editor: Editor, node: Node) -> bool:
    if node.op != "Conv" or summand(editor, node):
        return False
    shape, made = editor.shape(node.inputs[0]), editor.shape(node.output)
    size, given = math.prod(shape), node.tensors["weight"].size
    if set(made[1:]) != {1} or made[0] * size > max(MAX_WEIGHTS, given):
        return False
    weight = _written_out(node, shape).reshape(made[0], size)
    flat, sums = editor.name(f"{node.name}.flat"), node.output
    value = editor.name(f"{node.name}.map")
    linear = make(
        "Linear", node.name, flat, tensors={**node.tensors, "weight": weight}, source=node.source,
        activation=node["activation"],
    )  # fmt: skip
    new = [
        make("Reshape", flat, *node.inputs, shape=(size,), source=node.source),
        linear,
        make("Reshape", value, node.name, shape=made, source=node.source),
    ]
    editor.replace([node], new, {sums: value})
    return True


def _written_out(node: Node, shape: tuple[int, ...]) -> NDArray[Any]:
    """(out, *shape): the weight of each place of the map, of the one window there is."""
    weight, axes = node.tensors["weight"], len(shape) - 1
    out, each = weight.shape[:2]
    full = np.zeros((out, *shape), weight.dtype)
    group = np.arange(out) // (out // node["groups"])
    channels = group[:, None] * each + np.arange(each)
    for place in itertools.product(*(range(size) for size in weight.shape[2:])):
        where = [place[n] * node["dilation"][n] - node["padding"][n] for n in range(axes)]
        if all(0 <= at < size for at, size in zip(where, shape[1:], strict=True)):
            index: Any = (np.arange(out)[:, None], channels, *where)
            taken: Any = (..., *place)
            full[index] = weight[taken]
    return full


def pointwise_conv(graph: Graph) -> Graph:
    """Conv with kernel 1 → Transpose(Linear(Transpose)), behind a Slice along each axis with a stride."""
    return rewrite(graph, _pointwise)


def _pointwise(editor: Editor, node: Node) -> bool:
    if node.op != "Conv" or node["groups"] != 1 or any(node["padding"]) or summand(editor, node):
        return False
    weight = node.tensors["weight"]
    if set(weight.shape[2:]) != {1}:
        return False
    axes = weight.ndim - 2
    read, taken = node.inputs[0], []
    for axis, (size, step) in enumerate(zip(editor.shape(read)[1:], node["stride"], strict=True), start=1):
        if step > 1:
            name = editor.name(f"{node.name}.every{step}.{axis}")
            taken.append(make("Slice", name, read, axis=axis, end=size, step=step, source=node.source))
            read = name
    last, value = editor.name(f"{node.name}.places"), editor.name(f"{node.name}.map")
    tensors = {**node.tensors, "weight": weight.reshape(weight.shape[:2])}
    new = [
        *taken,
        make("Transpose", last, read, order=(*range(1, axes + 1), 0), source=node.source),
        make("Linear", node.name, last, tensors=tensors, source=node.source, activation=node["activation"]),
        make("Transpose", value, node.name, order=(axes, *range(axes)), source=node.source),
    ]
    editor.replace([node], new, {node.output: value})
    return True
