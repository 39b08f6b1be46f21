"""Affine and ReLU past nodes that only move values, towards the weights that they fold into.

`lift_pointwise` goes up, to a Linear, Conv, Gather or Affine whose result only it needs; past a Concat it is split
onto the values along the axis. `sink_affines` goes down, to a Linear, Conv or Affine that alone reads it. Neither
starts where no such node is at the end, and what can be lifted is never sunk, so that none undoes the other.
"""

from __future__ import annotations

from compiler.graph.ir import Graph, Node
from compiler.graph.passes.editor import Editor, rewrite
from compiler.graph.passes.pointwise import MOVES, Pointwise, after, before, step_of

__all__ = ["foldable_above", "foldable_below", "lift_pointwise", "sink_affines"]


def foldable_above(maker: Node, step: Pointwise) -> bool:
    """Whether a step right behind `maker` becomes part of it."""
    if maker.op == "Constant":
        return True
    if maker.op == "Gather":
        return step.along(-1) is not None
    if maker.attributes.get("activation") != "none":
        return False
    if maker.op in ("Linear", "Conv"):
        return step.along(0 if maker.op == "Conv" else -1) is not None
    only_relu = bool((step.scale == 1).all() and (step.offset == 0).all())
    return maker.op == "Affine" or (maker.op in ("Add", "Multiply") and only_relu)


def foldable_below(reader: Node, step: Pointwise) -> bool:
    """Whether a step right before `reader` becomes part of it."""
    if step.activation != "none":
        return False
    if reader.op == "Linear":
        return step.along(-1) is not None
    if reader.op == "Conv":
        return step.along(0) is not None and not (step.offset.any() and any(reader["padding"]))
    return reader.op == "Affine"


def lift_pointwise(graph: Graph) -> Graph:
    """Affine(move(Linear)) → move(Affine(Linear)); likewise ReLU, Conv and Gather."""
    return rewrite(graph, _lift)


def _lift(editor: Editor, node: Node) -> bool:
    step = step_of(editor, node)
    if step is None:
        return False
    move = editor.maker(node)
    if move.op not in MOVES or not _home_above(editor, node, 0, step):
        return False
    steps = before(editor, move, step)
    assert steps is not None
    new, reads, name = [], [], node.name
    for value, part in zip(move.inputs, steps, strict=True):
        if part.neutral:
            reads.append(value)
            continue
        new.append(part.node(name, value, node.source))
        reads.append(name)
        name = editor.name(node.name)
        while name in {other.name for other in new}:
            name += "'"
    new.append(move.replace(inputs=tuple(reads)))
    editor.replace([node, move], new, {node.output: move.output})
    return True


def _home_above(editor: Editor, reader: Node, position: int, step: Pointwise) -> bool:
    """Whether the step, taken where `reader` reads, can be lifted to something that it folds into."""
    maker = editor.maker(reader, position)
    if not editor.feeds_only(maker, reader):
        return False
    if maker.op not in MOVES:
        return foldable_above(maker, step)
    steps = before(editor, maker, step)
    if steps is None:
        return False
    return any(not part.neutral and _home_above(editor, maker, n, part) for n, part in enumerate(steps))


def sink_affines(graph: Graph) -> Graph:
    """Linear(move(Affine)) → Linear(Affine(move)); likewise Conv."""
    return rewrite(graph, _sink)


def _sink(editor: Editor, node: Node) -> bool:
    step = step_of(editor, node) if node.op == "Affine" else None
    move = editor.only_reader(node)
    if step is None or move is None or move.op not in MOVES or not _home_below(editor, node, step):
        return False
    if _home_above(editor, node, 0, step):
        return False
    position = move.inputs.index(node.output)
    behind = after(editor, move, position, step)
    assert behind is not None
    reads = tuple(node.inputs[0] if n == position else value for n, value in enumerate(move.inputs))
    new = [move.replace(inputs=reads), behind.node(node.name, move.output, node.source)]
    editor.replace([node, move], new, {move.output: node.output})
    return True


def _home_below(editor: Editor, maker: Node, step: Pointwise) -> bool:
    """Whether the step, taken behind `maker`, can be sunk to something that it folds into."""
    reader = editor.only_reader(maker)
    if reader is None:
        return False
    if reader.op not in MOVES:
        return foldable_below(reader, step)
    behind = after(editor, reader, reader.inputs.index(maker.output), step)
    return behind is not None and _home_below(editor, reader, behind)
