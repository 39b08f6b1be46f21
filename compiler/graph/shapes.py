"""What each operator takes and makes: the rules of types, a function an operator.

A rule gets the node and the types that it reads, and returns the types that it makes; `Wrong` says what it does not
take.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from compiler.graph import windows
from compiler.graph.ir import Node, Type, default_layout
from compiler.graph.segments import KINDS, by_channel, segment

__all__ = [
    "Wrong", "accumulate", "affine", "clamp", "concat", "constant", "conv", "elementwise", "fake_quantize", "filtered", "gather",
    "input_", "last_axis", "linear", "looked_up", "need", "output", "pad", "pool", "reshape", "slice_", "summed",
    "transpose", "unary",
]  # fmt: skip

Types = list[Type]
Reads = Sequence[Type]


class Wrong(Exception):
    """What a node violates, in words."""


def need(good: bool, message: str) -> None:
    """Raise `Wrong` where something does not hold."""
    if not good:
        raise Wrong(message)


def _real(*types: Type) -> None:
    for given in types:
        need(given.kind == "real", "it reads indices; only Gather and operators that move values take them")


def _integers(node: Node, name: str, count: int, least: int) -> tuple[int, ...]:
    value = node[name]
    good = isinstance(value, tuple) and len(value) == count and all(type(n) is int and n >= least for n in value)
    need(good, f"{name} is {value!r}; expected {count} integers of at least {least}")
    return tuple(value)


def _activation(node: Node) -> None:
    need(node["activation"] in ("none", "relu"), f"activation {node['activation']!r}; expected none or relu")


def _float(name: str, tensor: Any, dimensions: int, form: str) -> None:
    good = tensor.dtype.kind == "f" and tensor.ndim == dimensions and 0 not in tensor.shape
    need(good, f"{name} is {tensor.dtype} {tensor.shape}; expected float {form}")


def _bias(node: Node, outputs: int) -> None:
    bias = node.tensors.get("bias")
    good = bias is None or (bias.dtype.kind == "f" and bias.shape == (outputs,))
    need(good, f"bias is {getattr(bias, 'dtype', '')} {getattr(bias, 'shape', '')}; expected float ({outputs},)")


def input_(node: Node, reads: Reads) -> Types:
    """A value from outside."""
    shape = _integers(node, "shape", len(node["shape"]), 1)
    need(node["kind"] in ("real", "index"), f"kind {node['kind']!r}; expected real or index")
    return [Type(shape, node["layout"], node["kind"])]


def output(node: Node, reads: Reads) -> Types:
    """A value that leaves the graph."""
    need(-1 <= node["axis"] < max(1, len(reads[0].shape)), f"axis {node['axis']} of a value of shape {reads[0].shape}")
    return [reads[0]]


def constant(node: Node, reads: Reads) -> Types:
    """The same for every sample."""
    return [Type(node.tensors["value"].shape, node["layout"])]


def linear(node: Node, reads: Reads) -> Types:
    """Over the last axis; the places along the others all get the same weights."""
    weight = node.tensors["weight"]
    _float("weight", weight, 2, "(out, in)")
    _bias(node, weight.shape[0])
    return last_axis(node, reads, weight.shape)


def last_axis(node: Node, reads: Reads, weight: tuple[int, ...]) -> Types:
    """A matrix of shape `weight` applied over the last axis."""
    _real(*reads)
    _activation(node)
    shape = reads[0].shape
    need(shape[-1:] == weight[1:], f"it reads {shape}; its weight {weight} takes (…, {weight[1]})")
    return [Type((*shape[:-1], weight[0]), reads[0].layout)]


def conv(node: Node, reads: Reads) -> Types:
    """Over (channels, width) or (channels, height, width)."""
    weight = node.tensors["weight"]
    _float("weight", weight, len(reads[0].shape) + 1, "(out, in / groups, kernel)")
    _bias(node, weight.shape[0])
    return filtered(node, reads, weight.shape)


def filtered(node: Node, reads: Reads, weight: tuple[int, ...]) -> Types:
    """A map under filters of shape `weight`."""
    _real(*reads)
    _activation(node)
    shape, groups = reads[0].shape, node["groups"]
    need(len(shape) in (2, 3), f"it reads {shape}; expected (channels, width) or (channels, height, width)")
    fits = len(weight) == len(shape) + 1 and groups > 0 and shape[0] == weight[1] * groups and weight[0] % groups == 0
    need(fits, f"it reads {shape[0]} channels in {groups} groups; its weight is {weight}")
    return [Type((weight[0], *_windows(node, shape[1:], weight[2:])), reads[0].layout)]


def accumulate(node: Node, reads: Reads) -> Types:
    """Segments that are summed: each makes a value of the same shape."""
    weights = [node.tensors.get(f"weight{n}") for n in range(len(reads))]
    for n, weight in enumerate(weights):
        if weight is not None:
            _float(f"weight{n}", weight, weight.ndim, "(out, in) or (out, in / groups, kernel)")
    (made,) = summed(node, reads, [None if weight is None else weight.shape for weight in weights])
    _bias(node, made.shape[0 if by_channel(node) else -1])
    return [made]


def summed(node: Node, reads: Reads, weights: Sequence[tuple[int, ...] | None]) -> Types:
    """Segments with weights of these shapes, None where there are none."""
    _real(*reads)
    _activation(node)
    kinds, count = node["kinds"], len(reads)
    need(len(kinds) == count, f"it has {len(kinds)} kinds for {count} values; expected as many")
    need(set(kinds) <= KINDS.keys(), f"kinds are {', '.join(kinds)}; expected {', '.join(KINDS)}")
    need(not {"conv", "linear"} <= set(kinds), "it sums conv and linear; expected one of the two, and identities")
    least = len(reads[0].shape)
    need(least > 0, "it reads a single number; expected channels or features")
    axes = least - 1 if by_channel(node) else 0
    for name, each in (("strides", 1), ("paddings", 2), ("dilations", 1)):
        _integers(node, name, count * axes * each, 0)
    _integers(node, "group_counts", count if axes else 0, 1)
    named = sorted(name for name in node.tensors if name[-1:].isdigit() and int(name[-1:]) >= count)
    need(not named, f"it has {', '.join(named)} and {count} segments")
    shapes = []
    for n, (given, weight) in enumerate(zip(reads, weights, strict=True)):
        part = segment(node, n)
        need((part is None) == (weight is None), f"segment {n} is {kinds[n]}; weights are {weight or 'not there'}")
        if part is None or weight is None:
            shapes.append(given.shape)
            continue
        need(len(given.shape) == least, f"segment {n} reads {given.shape}; segment 0 reads {reads[0].shape}")
        rule = filtered if part.op == "Conv" else last_axis
        shapes.append(rule(part, [given], weight)[0].shape)
    need(len(set(shapes)) == 1, f"its segments make {' and '.join(map(str, shapes))}; expected equal shapes")
    return [Type(shapes[0], reads[0].layout)]


def _windows(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> tuple[int, ...]:
    """Windows along each axis."""
    axes = len(sizes)
    stride, dilation = _integers(node, "stride", axes, 1), _integers(node, "dilation", axes, 1)
    padding = _integers(node, "padding", 2 * axes, 0)
    made = windows.output_shape(sizes, kernel, stride, padding, dilation)
    need(min(made) > 0, f"a kernel of {tuple(kernel)} does not fit {tuple(sizes)} with padding {padding}")
    return made


def pool(node: Node, reads: Reads) -> Types:
    """Over (channels, width) or (channels, height, width), channel by channel."""
    _real(*reads)
    shape = reads[0].shape
    need(len(shape) in (2, 3), f"it reads {shape}; expected (channels, width) or (channels, height, width)")
    kernel = _integers(node, "kernel", len(shape) - 1, 1)
    made = _windows(node, shape[1:], kernel)
    inside = all(max(node["padding"][n], node["padding"][n + len(kernel)]) < size for n, size in enumerate(kernel))
    need(inside, f"padding {node['padding']} of a kernel of {kernel}: a window would lie outside the map")
    return [Type((shape[0], *made), reads[0].layout)]


def elementwise(node: Node, reads: Reads) -> Types:
    """All values that are read have one shape."""
    _real(*reads)
    _activation(node)
    shapes = [given.shape for given in reads]
    need(len(set(shapes)) == 1, f"it reads {' and '.join(map(str, shapes))}; expected equal shapes")
    return [Type(shapes[0], reads[0].layout)]


def unary(node: Node, reads: Reads) -> Types:
    """One number becomes one number."""
    _real(*reads)
    return [Type(reads[0].shape, reads[0].layout)]


def clamp(node: Node, reads: Reads) -> Types:
    """As `unary`."""
    need(node["low"] <= node["high"], f"low {node['low']} is above high {node['high']}")
    return unary(node, reads)


def fake_quantize(node: Node, reads: Reads) -> Types:
    """As `unary`."""
    numbers = [node[name] for name in ("exponent", "low", "high")]
    need(all(type(number) is int for number in numbers), f"exponent, low, high are {numbers}; expected integers")
    need(node["low"] < node["high"], f"low {node['low']} is not below high {node['high']}")
    need(abs(node["exponent"]) <= 126, f"exponent {node['exponent']}; expected -126 to 126")
    return unary(node, reads)


def affine(node: Node, reads: Reads) -> Types:
    """Scale and offset for each number, or for all that they broadcast over."""
    _activation(node)
    shape = reads[0].shape
    for name in ("scale", "offset"):
        given = node.tensors[name].shape
        fits = len(given) <= len(shape) and all(n in (1, m) for n, m in zip(given[::-1], shape[::-1], strict=False))
        need(fits, f"{name} has shape {given}; expected one that broadcasts to {shape}")
    return unary(node, reads)


def concat(node: Node, reads: Reads) -> Types:
    """Side by side along one axis."""
    _real(*reads)
    axis, shapes = node["axis"], [given.shape for given in reads]
    need(all(0 <= axis < len(shape) for shape in shapes), f"axis {axis} of values of shape {shapes}")
    others = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    need(len(others) == 1, f"it reads {' and '.join(map(str, shapes))}; expected equal shapes but along axis {axis}")
    total = sum(shape[axis] for shape in shapes)
    return [Type((*shapes[0][:axis], total, *shapes[0][axis + 1 :]), reads[0].layout)]


def reshape(node: Node, reads: Reads) -> Types:
    """The same numbers in row-major order."""
    shape, given = _integers(node, "shape", len(node["shape"]), 1), reads[0].shape
    need(math.prod(shape) == math.prod(given), f"shape {shape} for a value of shape {given}")
    return [Type(shape, default_layout(len(shape)), reads[0].kind)]


def transpose(node: Node, reads: Reads) -> Types:
    """The same numbers, axes in another order."""
    order, given = node["order"], reads[0]
    need(sorted(order) == list(range(len(given.shape))), f"order {order} of the axes of {given.shape}")
    return [Type(tuple(given.shape[n] for n in order), "".join(given.layout[n] for n in order), given.kind)]


def slice_(node: Node, reads: Reads) -> Types:
    """Places ``begin : end : step`` along one axis; `drop` removes an axis of which one place is left."""
    axis, given, begin, end, step = node["axis"], reads[0], node["begin"], node["end"], node["step"]
    need(0 <= axis < len(given.shape), f"axis {axis} of a value of shape {given.shape}")
    size = given.shape[axis]
    need(0 <= begin < end <= size and step > 0, f"places {begin} to {end} by {step} of {size}")
    left = len(range(begin, end, step))
    need(not node["drop"] or left == 1, f"axis {axis} keeps {left} places and cannot be dropped")
    here = [] if node["drop"] else [left]
    layout = given.layout[:axis] + given.layout[axis : axis + len(here)] + given.layout[axis + 1 :]
    return [Type((*given.shape[:axis], *here, *given.shape[axis + 1 :]), layout, given.kind)]


def pad(node: Node, reads: Reads) -> Types:
    """Zeros around a value."""
    _real(*reads)
    given = reads[0]
    before, after = (_integers(node, name, len(given.shape), 0) for name in ("before", "after"))
    return [Type(tuple(b + n + a for b, n, a in zip(before, given.shape, after, strict=True)), given.layout)]


def gather(node: Node, reads: Reads) -> Types:
    """Rows of a table."""
    table = node.tensors["table"]
    _float("table", table, 2, "(rows, features)")
    return looked_up(reads, table.shape)


def looked_up(reads: Reads, table: tuple[int, ...]) -> Types:
    """A row of a table of shape `table` for each index."""
    need(reads[0].kind == "index", "it reads quantities; expected indices")
    return [Type((*reads[0].shape, table[1]))]
