"""Constant folding: what reads only constants is computed here; adding or multiplying by a constant is an Affine."""

from __future__ import annotations

import numpy as np

from compiler.graph.evaluate import outputs
from compiler.graph.ir import Graph, Node
from compiler.graph.operators import OPERATORS, make
from compiler.graph.passes.editor import Editor, rewrite

__all__ = ["constant_folding", "constant_operands"]


def constant_folding(graph: Graph) -> Graph:
    """f(Constant, …) → Constant."""
    return rewrite(graph, _fold)


def _fold(editor: Editor, node: Node) -> bool:
    if not node.inputs or node.op == "Output" or any(editor.makers[value].op != "Constant" for value in node.inputs):
        return False
    given = [editor.makers[value].tensors["value"][np.newaxis].astype(np.float64) for value in node.inputs]
    made = OPERATORS[node.op].meaning(node, given, outputs)
    if not all(bool(np.isfinite(array).all()) for array in made):
        return False  # an error of the network, which the comparison with the model itself reports
    layouts = [editor.types[value].layout for value in node.outputs]
    constants = [
        make("Constant", value, tensors={"value": array[0]}, source=node.source, layout=layout)
        for value, array, layout in zip(node.outputs, made, layouts, strict=True)
    ]
    editor.replace([node], constants)
    return True


def constant_operands(graph: Graph) -> Graph:
    """Add(x, Constant), Multiply(x, Constant) → Affine(x)."""
    return rewrite(graph, _operand)


def _operand(editor: Editor, node: Node) -> bool:
    if node.op not in ("Add", "Multiply"):
        return False
    constant = [editor.makers[value].op == "Constant" for value in node.inputs]
    if sum(constant) != 1:
        return False
    value = editor.maker(node, constant.index(True)).tensors["value"].astype(np.float64)
    one, zero = np.array(1.0), np.array(0.0)
    tensors = {"scale": one, "offset": value} if node.op == "Add" else {"scale": value, "offset": zero}
    x, activation = node.inputs[constant.index(False)], node["activation"]
    editor.replace([node], [make("Affine", node.name, x, tensors=tensors, source=node.source, activation=activation)])
    return True
