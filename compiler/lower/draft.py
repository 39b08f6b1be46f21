"""Nodes of an integer graph as layers of the array: what each operator is in segments, what a layer takes in."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.graph.integer import ARRAY_AXES
from compiler.graph.ir import Node, Type
from compiler.graph.segments import segment as part_of
from compiler.lower.draft_segments import Key, Segments, conv_part, linear_part, pair, same
from compiler.lower.elementwise import function_of
from compiler.lower.maker import Maker
from compiler.lower.program import HIGH, LOW, Function, ProgramLayer, Segment
from compiler.lower.views import View, Views
from hw.params import LANES, Params

__all__ = ["Draft", "Key", "draft", "folded", "orders"]

Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Draft(Maker):
    """A layer whose maps have no numbers yet.

    Attributes
    ----------
    layer : `result` and the segments' `source` are -1. reads : what each segment reads.
    height, width : of the result.
    """

    layer: ProgramLayer
    reads: tuple[Key, ...]
    height: int
    width: int

    @property
    def weighted(self) -> bool:
        """Whether it has trained weights: only then a part of a network is worth its way to the array."""
        return self.nodes[0].op in ("Linear", "Conv", "Accumulate")


def draft(node: Node, views: Views, types: Mapping[str, Type], params: Params) -> Draft | None:
    """The layer of a node by itself; None if the array has none."""
    rule = _RULES.get(node.op)
    if rule is None:
        return None
    made = types[node.output]
    if not made.shape or any(types[name].kind != "real" for name in node.inputs):
        return None
    for axes in orders(node, views, len(made.shape)):
        found = rule(node, views, axes, params)
        if found is None:
            continue
        segments, rest = found
        sizes = dict(zip(axes, made.shape, strict=True))
        channels, height, width = sizes["C"], sizes.get("H", 1), sizes.get("W", 1)
        shift = np.broadcast_to(np.asarray(rest.pop("shift"), np.int64), (channels,)).copy()
        bias = np.broadcast_to(np.asarray(rest.pop("bias", 0), np.int64), (channels,)).copy()
        if node.attributes.get("activation") == "relu":
            rest["low"] = 0
        if "functions" in node.attributes:
            rest["functions"], rest["which"] = _functions(node, channels)
        products = _products(node, segments, channels)
        layer = ProgramLayer(
            node.name, -1, tuple(each for _, each in segments), bias, shift,
            exact=bool(node.attributes.get("exact", True)), products=products * height * width, **rest,
        )  # fmt: skip
        good = len(segments) <= 1 << 8 and max(height, width) < 1 << 15 and all(map(_legal, layer.segments))
        return Draft((node,), axes, layer, tuple(key for key, _ in segments), height, width) if good else None
    return None


def folded(before: Draft, node: Node, types: Mapping[str, Type], params: Params) -> Draft | None:
    """The layer with a node behind it that reads nothing else; None if it cannot take it in."""
    layer, nodes = before.layer, (*before.nodes, node)
    if layer.functions:
        return None
    if node.op == "Table" and params.tables:
        which = np.ones(len(layer.bias), np.int64)
        layer = dataclasses.replace(layer, functions=(function_of(node),), which=which)
        return dataclasses.replace(before, nodes=nodes, layer=layer)
    if node.op == "Clamp":
        low, high = (min(max(end, node["low"]), node["high"]) for end in (layer.low, layer.high))
        return dataclasses.replace(before, nodes=nodes, layer=dataclasses.replace(layer, low=low, high=high))
    if node.op != "MaxPool" or layer.maximum or layer.pool != (1, 1) or before.axes not in ("CW", "CHW"):
        return None
    kernel, stride = pair(node["kernel"]), pair(node["stride"])
    apart = all(step >= size for step, size in zip(stride, kernel, strict=True))
    if not apart or any(node["padding"]) or any(n > 1 for n in node["dilation"]):
        return None
    # A pixel of the result needs all of its pixels at once; beyond half of the accumulators it is a layer of its own.
    rows = -(-len(layer.bias) // (LANES * params.groups)) * LANES * math.prod(kernel)
    if -(-rows // params.group) > params.rows // 2:
        return None
    sizes = dict(zip(before.axes, types[node.output].shape, strict=True))
    layer = dataclasses.replace(layer, pool=kernel, pool_stride=stride)
    return dataclasses.replace(before, nodes=nodes, layer=layer, height=sizes.get("H", 1), width=sizes["W"])


def _functions(node: Node, channels: int) -> tuple[tuple[Function, ...], Int]:
    """The functions of a layer in a loop, and which one each channel has."""
    different = tuple(dict.fromkeys(function for _, _, function in node["functions"]))
    which = np.zeros(channels, np.int64)
    for begin, end, function in node["functions"]:
        which[begin:end] = 1 + different.index(function)
    return different, which


def orders(node: Node, views: Views, rank: int) -> Sequence[str]:
    """Orders of axes that the node's result can have, the best first."""
    if not 0 < rank <= 3:
        return ()
    first, last = {1: ("C", "C"), 2: ("CW", "WC"), 3: ("CHW", "HWC")}[rank]
    if node.op in ("Conv", "AveragePool", "MaxPool") or (node.op == "Accumulate" and "conv" in node["kinds"]):
        return (first,) if rank > 1 else ()
    if node.op == "Linear" or (node.op == "Accumulate" and "linear" in node["kinds"]):
        return (last,)
    known = [order for order in ARRAY_AXES if len(order) == rank]
    # Element by element: as the array has made it.
    return sorted(known, key=lambda order: not any(_made(views, name, order) for name in node.inputs))


def _made(views: Views, name: str, order: str) -> bool:
    found = views.view(name, order)
    return found is not None and any(views.natural(part.value) is not None for part in found.parts)


def _legal(segment: Segment) -> bool:
    """Whether the fields of a descriptor hold its window."""
    small = max(*segment.dilation, *segment.stride) <= 255
    return bool(small and max(map(abs, segment.origin)) < 1 << 15)


def _products(node: Node, segments: Segments, channels: int) -> int:
    """Multiplications for a pixel, zeros among the weights counted as well."""
    dense = [tensor.size for name, tensor in node.tensors.items() if name.startswith("codes")]
    if not dense:
        return sum(len(segment.code) for _, segment in segments)
    identities = [kind for kind in node.attributes.get("kinds", ()) if kind == "identity"]
    return int(sum(dense)) + channels * len(identities)


Found = tuple[Segments, dict[str, Any]]
"""Segments, and other fields of the layer; `shift` and `bias` for each channel or one for all."""


def _linear(node: Node, views: Views, axes: str, params: Params) -> Found | None:
    segments = linear_part(node, node.inputs[0], views, axes, params)
    return None if segments is None else (segments, {"shift": node["shift"], "bias": node.tensors["bias"]})


def _conv(node: Node, views: Views, axes: str, params: Params) -> Found | None:
    segments = conv_part(node, node.inputs[0], views, axes, params)
    return None if segments is None else (segments, {"shift": node.tensors["shift"], "bias": node.tensors["bias"]})


def _accumulate(node: Node, views: Views, axes: str, params: Params) -> Found | None:
    segments: Segments = []
    for number, name in enumerate(node.inputs):
        part = part_of(node, number)
        if part is None:
            view = views.view(name, axes)
            found = None if view is None or view.flat else same(view, node["weights"][number], params)
        else:
            found = (conv_part if part.op == "Conv" else linear_part)(part, name, views, axes, params)
        if found is None:
            return None
        segments += found
    return segments, {"shift": node.tensors["shift"], "bias": node.tensors["bias"]}


def _add(node: Node, views: Views, axes: str, params: Params) -> Found | None:
    segments: Segments = []
    for name in node.inputs:
        view = views.view(name, axes)
        if view is None or view.flat or views.shape(name) != views.shape(node.output):
            return None
        segments += same(view, 1, params) or []
    return segments, {"shift": node["shift"]}


def _affine(node: Node, views: Views, axes: str, params: Params) -> Found | None:
    """A product and a sum for each channel."""
    view = views.view(node.inputs[0], axes)
    if view is None or view.flat or views.shape(node.inputs[0]) != views.shape(node.output):
        return None
    shape = views.shape(node.output)
    scale, offset = (_by_channel(node.tensors[name], shape, axes) for name in ("scale", "offset"))
    if scale is None or offset is None:
        return None
    bound = int((np.abs(scale.astype(np.int64)) << 15).max()) + max(abs(int(offset.min())), abs(int(offset.max())))
    segments = same(view, scale, params)
    if segments is None or bound + (1 << node["shift"]) >= 1 << (params.acc_bits - 1):  # its sums do not wrap
        return None
    return segments, {"shift": node["shift"], "bias": offset}


def _by_channel(tensor: NDArray[np.generic], shape: tuple[int, ...], axes: str) -> Int | None:
    """One number a channel, of a tensor that is broadcast over a value; None if other axes matter."""
    whole = np.moveaxis(np.broadcast_to(tensor, shape), axes.index("C"), 0).reshape(shape[axes.index("C")], -1)
    return whole[:, 0].astype(np.int64) if bool((whole == whole[:, :1]).all()) else None


def _shift(node: Node, views: Views, axes: str, params: Params) -> Found | None:
    view = views.view(node.inputs[0], axes)
    if view is None or view.flat or 1 << node["left"] > HIGH:
        return None
    return same(view, 1 << node["left"], params) or [], {"shift": node["right"]}


def _clamp(node: Node, views: Views, axes: str, params: Params) -> Found | None:
    view = views.view(node.inputs[0], axes)
    if view is None or view.flat:
        return None
    return same(view, 1, params) or [], {"shift": 0, "low": node["low"], "high": node["high"]}


def _pool_part(node: Node, views: Views, axes: str, params: Params, weight: int) -> tuple[Segments, View] | None:
    view = views.view(node.inputs[0], axes)
    if view is None or view.flat:
        return None
    count = len(node["kernel"])
    before = (0,) * (2 - count) + tuple(node["padding"][:count])
    made = same(
        view, weight, params, pair(node["kernel"]), pair(node["stride"]), pair(node["dilation"]),
        (-before[0], -before[1]),
    )  # fmt: skip
    return made or [], view


def _average(node: Node, views: Views, axes: str, params: Params) -> Found | None:
    bound = math.prod(node["kernel"]) * abs(node["weight"]) << 15
    found = _pool_part(node, views, axes, params, node["weight"])
    if found is None or bound + (1 << node["shift"]) >= 1 << (params.acc_bits - 1):  # sums of the operator do not wrap
        return None
    return found[0], {"shift": node["shift"]}


def _maximum(node: Node, views: Views, axes: str, params: Params) -> Found | None:
    found = _pool_part(node, views, axes, params, 1)
    # Outside of a map is less than every activation; the zeros of a Pad are not.
    if found is None or any(part.offset != (0, 0) for part in found[1].parts) or not _whole(found[1], views):
        return None
    return found[0], {"shift": 0, "bias": LOW, "maximum": True}


def _whole(view: View, views: Views) -> bool:
    """Whether each part is as large as the view."""
    sizes = [dict(zip(part.axes, views.shape(part.value), strict=True)) for part in view.parts]
    return all((size.get("H", 1), size.get("W", 1)) == (view.height, view.width) for size in sizes)


_RULES: Mapping[str, Callable[[Node, Views, str, Params], Found | None]] = {
    "Accumulate": _accumulate,
    "Add": _add,
    "Affine": _affine,
    "AveragePool": _average,
    "Clamp": _clamp,
    "Conv": _conv,
    "Linear": _linear,
    "MaxPool": _maximum,
    "Shift": _shift,
}
