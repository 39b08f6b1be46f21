"""Permutations and selections around a Linear into its weight: columns for those before it, rows for those behind it.

The weight is scattered to the columns of the value before the moves. Columns of places that a Slice leaves out are
zero, which costs nothing where zeros are not stored; yet the array reads those places, so that a Slice that leaves
almost nothing stays a Slice.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.graph import meaning
from compiler.graph.ir import Graph, Node
from compiler.graph.operators import make
from compiler.graph.passes.editor import Editor, rewrite

__all__ = ["columns", "rows"]

Array = NDArray[Any]

MAX_GROWTH = 8
"""How many times more columns than before are worth a Slice less."""

MAX_WEIGHTS = 1 << 28

_MOVES = ("Reshape", "Transpose", "Slice", "Pad")


def columns(graph: Graph) -> Graph:
    """Linear(Reshape(Transpose | Slice | Pad(x))) → Linear(Reshape(x))."""
    return rewrite(graph, lambda editor, node: _whole_columns(editor, node) or _last_axis_columns(editor, node))


def _whole_columns(editor: Editor, node: Node) -> bool:
    """A Linear that reads one vector: any moves before it."""
    if node.op != "Linear" or len(editor.shape(node.inputs[0])) != 1:
        return False
    moves: list[Node] = []
    while (maker := editor.maker(moves[-1] if moves else node)).op in _MOVES and len(maker.inputs) == 1:
        if not editor.feeds_only(maker, moves[-1] if moves else node):
            break
        moves.append(maker)
    while moves and moves[-1].op == "Reshape":
        moves.pop()  # the last to change anything comes first
    if not moves:
        return False
    x = moves[-1].inputs[0]
    size = math.prod(editor.shape(x))
    if not _worth(size, node):
        return False
    places = _places(editor, x, moves[::-1])
    flat = editor.name(f"{node.name}.flat")
    new = [make("Reshape", flat, x, shape=(size,), source=node.source), _scattered(node, places, size)]
    new[1] = new[1].replace(inputs=(flat,))
    editor.replace([node, *moves], new)
    return True


def _worth(size: int, node: Node) -> bool:
    outputs, inputs = node.tensors["weight"].shape
    return bool(size <= MAX_GROWTH * inputs and size * outputs <= MAX_WEIGHTS)


def _places(editor: Editor, x: str, moves: list[Node]) -> Array:
    """Which number of `x` each number behind the moves is, row-major; −1 for zeros around."""
    numbers = np.arange(1, math.prod(editor.shape(x)) + 1).reshape(1, *editor.shape(x))
    for move in moves:
        match move.op:
            case "Reshape":
                numbers = numbers.reshape(1, *move["shape"])
            case "Transpose":
                numbers = numbers.transpose(0, *(axis + 1 for axis in move["order"]))
            case "Slice":
                (numbers,) = meaning.slice_(move, [numbers])
            case "Pad":
                (numbers,) = meaning.pad(move, [numbers])
    return numbers.reshape(-1) - 1


def _scattered(node: Node, places: Array, size: int) -> Node:
    """A Linear whose column `places[n]` is column `n` of `node`."""
    weight = node.tensors["weight"]
    new = np.zeros((len(weight), size), weight.dtype)
    inside = places >= 0
    new[:, places[inside]] = weight[:, inside]
    return node.replace(tensors={**node.tensors, "weight": new})


def _last_axis_columns(editor: Editor, node: Node) -> bool:
    """A Linear over several places: a Slice or Pad of the axis that it sums over."""
    move = editor.maker(node) if node.op == "Linear" else None
    if move is None or move.op not in ("Slice", "Pad") or not editor.feeds_only(move, node):
        return False
    shape = editor.shape(move.inputs[0])
    last = len(shape) - 1
    if move.op == "Slice" and (move["axis"] != last or move["drop"]):
        return False
    if move.op == "Pad" and (any(move["before"][:-1]) or any(move["after"][:-1])):
        return False
    if not _worth(shape[-1], node):
        return False
    numbers = np.arange(1, shape[-1] + 1).reshape(1, -1)
    along = {"axis": 0} if move.op == "Slice" else {"before": move["before"][-1:], "after": move["after"][-1:]}
    run = meaning.slice_ if move.op == "Slice" else meaning.pad
    places = run(move.replace(attributes={**move.attributes, **along}), [numbers])[0].reshape(-1) - 1
    editor.replace([node, move], [_scattered(node, places, shape[-1]).replace(inputs=move.inputs)])
    return True


def rows(graph: Graph) -> Graph:
    """Transpose | Slice(Reshape(Linear(x))) → Reshape(Linear(x)), where the Linear makes one vector."""
    return rewrite(graph, lambda editor, node: _whole_rows(editor, node) or _last_axis_rows(editor, node))


def _whole_rows(editor: Editor, node: Node) -> bool:
    if node.op != "Linear" or len(editor.shape(node.output)) != 1:
        return False
    moves: list[Node] = []
    while (reader := editor.only_reader(moves[-1] if moves else node)) is not None and reader.op in _MOVES[:3]:
        moves.append(reader)
    while moves and moves[-1].op == "Reshape":
        moves.pop()
    if not moves:
        return False
    places = _places(editor, node.output, moves)
    end = moves[-1]
    shape = editor.shape(end.output)
    reshape = make("Reshape", end.name, node.output, shape=shape, source=end.source)
    editor.replace([node, *moves], [_selected(node, places), reshape.replace(outputs=end.outputs)])
    return True


def _last_axis_rows(editor: Editor, node: Node) -> bool:
    """A Linear over several places: a Slice of the axis that it makes."""
    move = editor.only_reader(node) if node.op == "Linear" else None
    last = len(editor.shape(node.output)) - 1 if move is not None else 0
    if move is None or move.op != "Slice" or move["axis"] != last or move["drop"]:
        return False
    places = np.arange(move["begin"], move["end"], move["step"])
    editor.replace([node, move], [_selected(node, places)], {move.output: node.output})
    return True


def _selected(node: Node, places: Array) -> Node:
    return node.replace(tensors={name: tensor[places] for name, tensor in node.tensors.items()})
