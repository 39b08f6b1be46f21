"""Sums of products in one accumulator: trees of Add over Linear or Conv, and Linear or Conv over a Concat.

A sum is rounded once where its parts would be rounded each for itself, and nothing adds them in a further pass. Other
passes know nothing of an Accumulate, so these two come when all others find nothing more.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from compiler.graph.ir import Graph, Node
from compiler.graph.operators import make
from compiler.graph.passes.editor import Editor, rewrite
from compiler.graph.segments import SEGMENTS, joined

__all__ = ["parts_of_concat", "summand", "sums"]


def parts_of_concat(graph: Graph) -> Graph:
    """Linear | Conv(Concat) → Add of a Linear | Conv of each part."""
    return rewrite(graph, _split)


def _split(editor: Editor, node: Node) -> bool:
    if node.op not in ("Linear", "Conv") or node.attributes.get("groups", 1) != 1:
        return False
    concat = editor.maker(node)
    if concat.op != "Concat" or not 1 < len(concat.inputs) <= SEGMENTS:
        return False
    axis = len(editor.shape(node.inputs[0])) - 1 if node.op == "Linear" else 0
    if concat["axis"] != axis:
        return False
    weight = node.tensors["weight"]
    ends = np.cumsum([0, *(editor.shape(value)[axis] for value in concat.inputs)]).tolist()
    new: list[Node] = []
    total = ""
    for n, (value, (begin, end)) in enumerate(zip(concat.inputs, pairwise(ends), strict=True)):
        tensors = {**(node.tensors if n == 0 else {}), "weight": weight[:, begin:end]}
        attributes = {**node.attributes, "activation": "none"}
        part = make(node.op, editor.name(f"{node.name}.{n}"), value, tensors=tensors, source=node.source, **attributes)
        new.append(part)
        if n == 0:
            total = part.output
            continue
        last = n == len(concat.inputs) - 1
        name = node.name if last else editor.name(f"{node.name}.sum{n}")
        outputs = node.outputs if last else (name,)
        activation = node["activation"] if last else "none"
        new.append(make("Add", name, total, part.output, outputs=outputs, source=node.source, activation=activation))
        total = name
    editor.replace([node], new)
    return True


def summand(editor: Editor, node: Node) -> bool:
    """Whether a Linear or Conv will be a segment of a sum."""
    reader = editor.only_reader(node) if node.op in ("Linear", "Conv") and node["activation"] == "none" else None
    return reader is not None and reader.op == "Add"


def sums(graph: Graph) -> Graph:
    """Add(…) of Linear | Conv and other values → Accumulate, with the activation of the last Add."""
    return rewrite(graph, _sum)


def _sum(editor: Editor, node: Node) -> bool:
    if node.op != "Add":
        return False
    top = node
    while (above := _inner(editor, top)) is not None:
        top = above
    tree, leaves = _tree(editor, top)
    if not _products(editor, leaves) or node not in tree:  # `top` stays, or ends above this node
        top = node
        tree, leaves = _tree(editor, top)
    products = _products(editor, leaves)
    if not products:
        return False
    parts = [products.get(value) for value in leaves]
    conv = any(part.op == "Conv" for part in products.values())
    reads = tuple(value if part is None else part.inputs[0] for value, part in zip(leaves, parts, strict=True))
    tensors = {f"weight{n}": part.tensors["weight"] for n, part in enumerate(parts) if part is not None}
    biases = [part.tensors["bias"] for part in products.values() if "bias" in part.tensors]
    if biases:
        tensors["bias"] = np.sum([bias.astype(np.float64) for bias in biases], axis=0)
    attributes = {**joined(parts, len(editor.shape(top.output)) - 1 if conv else 0), "activation": top["activation"]}
    new = make("Accumulate", top.name, *reads, tensors=tensors, outputs=top.outputs, source=top.source, **attributes)
    editor.replace([*tree, *products.values()], [new])
    return True


def _inner(editor: Editor, node: Node) -> Node | None:
    """The Add that alone, and once, reads an Add without activation."""
    reader = editor.only_reader(node) if node.op == "Add" and node["activation"] == "none" else None
    return reader if reader is not None and reader.op == "Add" else None


def _tree(editor: Editor, top: Node) -> tuple[list[Node], list[str]]:
    """The Adds that are one sum, and the values that it is of, in order: `SEGMENTS` of them at most."""
    tree, leaves = [top], list(top.inputs)
    position = 0
    while position < len(leaves):
        maker = editor.makers[leaves[position]]
        if _inner(editor, maker) is None or len(leaves) == SEGMENTS:
            position += 1
            continue
        tree.append(maker)
        leaves[position : position + 1] = maker.inputs
    return tree, leaves


def _products(editor: Editor, leaves: list[str]) -> dict[str, Node]:
    """Of the leaves, those that become products: Convs, or Linears where there is no Conv."""
    found = {value: editor.makers[value] for value in leaves if summand(editor, editor.makers[value])}
    convs = {value: node for value, node in found.items() if node.op == "Conv"}
    return convs or found
