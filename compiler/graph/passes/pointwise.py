"""A scale, an offset and a ReLU at each number, and what becomes of them on the other side of a node that moves values.

Both sides of a move (Reshape, Transpose, Slice, Concat and the pools) can take the same step of this kind, in other
coordinates; that is what lets a batch normalization reach the weights that it folds into.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.graph.ir import Node
from compiler.graph.operators import make
from compiler.graph.passes.editor import Editor

__all__ = ["MOVES", "Pointwise", "after", "before", "narrow", "step_of"]

Array = NDArray[Any]

MOVES = ("Reshape", "Transpose", "Slice", "Concat", "AveragePool", "MaxPool")

MAX_VALUES = 1 << 24
"""Numbers of a value beyond which nothing is moved: scale and offset are written out for each."""


@dataclass(frozen=True)
class Pointwise:
    """``activation(x · scale + offset)``, with a scale and an offset for each number of a value.

    Attributes
    ----------
    scale, offset : float64 of the value's shape.
    activation : "none" or "relu".
    """

    scale: Array
    offset: Array
    activation: str

    def along(self, axis: int) -> tuple[Array, Array] | None:
        """Scale and offset for each place along one axis, where they are the same along all others."""
        places = tuple(slice(None) if n == axis % self.scale.ndim else 0 for n in range(self.scale.ndim))
        shape = tuple(-1 if n == axis % self.scale.ndim else 1 for n in range(self.scale.ndim))
        found = (self.scale[places], self.offset[places])
        same = all(
            bool((whole == part.reshape(shape)).all())
            for whole, part in zip((self.scale, self.offset), found, strict=True)
        )
        return found if same else None

    @property
    def neutral(self) -> bool:
        """Whether it changes nothing."""
        return self.activation == "none" and bool((self.scale == 1).all() and (self.offset == 0).all())

    def node(self, name: str, x: str, source: str) -> Node:
        """The step as a node."""
        if self.activation == "relu" and bool((self.scale == 1).all() and (self.offset == 0).all()):
            return make("Activation", name, x, function="relu", source=source)
        tensors = {"scale": _short(self.scale), "offset": _short(self.offset)}
        return make("Affine", name, x, tensors=tensors, activation=self.activation, source=source)


def _short(full: Array) -> Array:
    """Without the axes along which nothing changes."""
    for axis in range(full.ndim):
        first = full.take([0], axis=axis)
        if bool((full == first).all()):
            full = first
    return full


def narrow(array: Array) -> Array:
    """In float32 where that is exact: weights are given in it."""
    short: Array = array.astype(np.float32)
    return short if bool((short == array).all()) else array


def step_of(editor: Editor, node: Node) -> Pointwise | None:
    """What an Affine or a ReLU does; None for other nodes."""
    shape = editor.shape(node.output) if node.op in ("Affine", "Activation") else ()
    if math.prod(shape) > MAX_VALUES:
        return None
    if node.op == "Affine":
        scale, offset = (np.broadcast_to(node.tensors[name].astype(np.float64), shape) for name in ("scale", "offset"))
        return Pointwise(scale, offset, node["activation"])
    if node.op == "Activation" and node["function"] == "relu":
        return Pointwise(np.broadcast_to(1.0, shape), np.broadcast_to(0.0, shape), "relu")
    return None


def before(editor: Editor, move: Node, step: Pointwise) -> list[Pointwise] | None:
    """For each value that `move` reads the step that, taken before it, does what `step` does after it."""
    shapes = [editor.shape(value) for value in move.inputs]
    made: list[list[Array]] = []
    for full, neutral in ((step.scale, 1.0), (step.offset, 0.0)):
        match move.op:
            case "Reshape":
                made.append([full.reshape(shapes[0])])
            case "Transpose":
                made.append([full.transpose(np.argsort(move["order"]))])
            case "Slice":
                whole = np.full(shapes[0], neutral)
                part = np.expand_dims(full, move["axis"]) if move["drop"] else full
                whole[(slice(None),) * move["axis"] + (_places(move),)] = part
                made.append([whole])
            case "Concat":
                ends = np.cumsum([shape[move["axis"]] for shape in shapes])[:-1]
                made.append(np.split(full, ends, axis=move["axis"]))
            case _:
                made.append([full])
    if move.op in ("AveragePool", "MaxPool"):
        pooled = _pooled(move, step, shapes[0])
        return None if pooled is None else [pooled]
    return [Pointwise(scale, offset, step.activation) for scale, offset in zip(*made, strict=True)]


def after(editor: Editor, move: Node, position: int, step: Pointwise) -> Pointwise | None:
    """The step that, taken after `move`, does what `step` does to its value number `position`."""
    made = []
    for full, neutral in ((step.scale, 1.0), (step.offset, 0.0)):
        match move.op:
            case "Reshape":
                made.append(full.reshape(move["shape"]))
            case "Transpose":
                made.append(full.transpose(move["order"]))
            case "Slice":
                part = full[(slice(None),) * move["axis"] + (_places(move),)]
                made.append(part.squeeze(move["axis"]) if move["drop"] else part)
            case "Concat":
                shapes = [editor.shape(value) for value in move.inputs]
                parts = [full if n == position else np.full(shape, neutral) for n, shape in enumerate(shapes)]
                made.append(np.concatenate(parts, axis=move["axis"]))
            case _:
                return _pooled(move, step, editor.shape(move.output))
    if step.activation != "none" and move.op == "Concat":
        return None  # the other values would get the ReLU as well
    return Pointwise(made[0], made[1], step.activation)


def _places(move: Node) -> slice:
    return slice(move["begin"], move["end"], move["step"])


def _pooled(move: Node, step: Pointwise, shape: tuple[int, ...]) -> Pointwise | None:
    """A step by channel, on the other side of a pool, where the value has `shape`."""
    parts = step.along(0)
    if parts is None:
        return None
    scale, offset = parts
    if move.op == "MaxPool":
        passes = bool((scale >= 0).all())  # the largest stays the largest
    else:
        passes = step.activation == "none" and not (offset.any() and any(move["padding"]))  # zeros around get no offset
    column = (-1, *[1] * (len(shape) - 1))
    if not passes:
        return None
    scale, offset = (np.broadcast_to(part.reshape(column), shape) for part in parts)
    return Pointwise(scale, offset, step.activation)
