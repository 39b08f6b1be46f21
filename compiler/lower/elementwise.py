"""Nodes of an integer graph as elementwise operations of the array, and tables as functions of what is before them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.graph.ir import Node, Type
from compiler.lower.draft_segments import Key
from compiler.lower.maker import Maker
from compiler.lower.program import HIGH, LOW, Function
from compiler.lower.views import Views
from hw.params import Params

__all__ = ["Elementwise", "Ref", "elementwise", "function_of", "ref_of", "renamed"]


@dataclass(frozen=True)
class Ref:
    """Channels ``begin`` to ``begin + size`` of a value."""

    key: Key
    begin: int
    size: int

    def fits(self, units: Mapping[str, int], types: Mapping[str, Type]) -> bool:
        """Whether it is a whole part of its map, if this is in parts of as many units as here.

        units : value → channels of a part, as others want it.
        """
        value, axes = self.key
        channels = types[value].shape[axes.index("C")]
        return not (channels % self.size or self.begin % self.size) and units.get(value, self.size) == self.size


@dataclass(frozen=True, eq=False)
class Elementwise(Maker):
    """An operation whose maps have no numbers yet.

    Attributes
    ----------
    operands : by their names in `Operation`. fields : its other fields.
    single : what it reads and makes is one pixel.
    """

    operands: Mapping[str, Ref]
    fields: Mapping[str, Any]
    single: bool

    @property
    def reads(self) -> tuple[Key, ...]:
        """What it reads."""
        return tuple(each.key for each in self.operands.values())

    @property
    def weighted(self) -> bool:
        """It has no weights."""
        return False

    def fits(self, units: dict[str, int], types: Mapping[str, Type]) -> bool:
        """Whether the maps can be in parts of as many units as each has here.

        units : value → channels of a part, as others want it; grows if it fits.
        """
        size = types[self.value].shape[self.axes.index("C")]
        if units.get(self.value, size) != size or not all(ref.fits(units, types) for ref in self.operands.values()):
            return False
        units[self.value] = size
        units.update({ref.key[0]: ref.size for ref in self.operands.values()})
        return True

    def folded(self, node: Node, params: Params) -> Elementwise | None:
        """The operation with a node behind it that reads nothing else; None if it cannot take it in."""
        if self.fields.get("function") is not None:
            return None
        if node.op == "Table" and params.tables:
            more: dict[str, Any] = {"function": function_of(node)}
        elif node.op == "Clamp":
            ends = self.fields.get("low", LOW), self.fields.get("high", HIGH)
            low, high = (min(max(end, node["low"]), node["high"]) for end in ends)
            more = {"low": low, "high": high}
        else:
            return None
        return dataclasses.replace(self, nodes=(*self.nodes, node), fields={**self.fields, **more})


def renamed(units: dict[str, int], before: str, after: str) -> None:
    """A map has another name now that its maker has a node folded in: its parts are as they were."""
    if before in units:
        units[after] = units.pop(before)


def function_of(node: Node) -> Function:
    """The function of a Table."""
    return Function(tuple(node.tensors["table"].tolist()), node["left"], node["right"])


def elementwise(node: Node, views: Views, types: Mapping[str, Type], axes: str, params: Params) -> Elementwise | None:
    """The operation of a node by itself; None if the array has none."""
    rule = _RULES.get(node.op)
    if rule is None or not params.elementwise or (node.op == "Table" and not params.tables):
        return None
    found = rule(node, params)
    shape = types[node.output].shape
    if found is None or any(types[name].kind != "real" or types[name].shape != shape for name in node.inputs):
        return None
    names, fields = found
    operands = {}
    for name, value in zip(names, node.inputs, strict=True):
        ref = ref_of(views, value, axes)
        if ref is None:
            return None
        operands[name] = ref
    sizes = dict(zip(axes, shape, strict=True))
    single = sizes.get("H", 1) == sizes.get("W", 1) == 1
    if node.attributes.get("activation") == "relu":
        fields["low"] = 0
    if not single and any(ref.size != views.shape(ref.key[0])[ref.key[1].index("C")] for ref in operands.values()):
        return None  # a part of each pixel does not lie as whole ones do
    return Elementwise((node,), axes, operands, fields, single)


def ref_of(views: Views, name: str, axes: str) -> Ref | None:
    """Where a value is read: channels that follow one another in one value of the array or of the host; or None."""
    view = views.view(name, axes)
    if view is None or view.flat or len(view.parts) != 1:
        return None
    (part,) = view.parts
    begin, size = int(part.channels[0]), len(part.channels)
    sizes = dict(zip(part.axes, views.shape(part.value), strict=True))
    if (view.height, view.width) != (sizes.get("H", 1), sizes.get("W", 1)):  # with a border, or a pixel of several
        return None
    if part.offset != (0, 0) or not np.array_equal(part.channels, np.arange(begin, begin + size)):
        return None
    return Ref((part.value, part.axes), begin, size)


Found = tuple[tuple[str, ...], dict[str, Any]] | None


def _affine(node: Node, params: Params) -> Found:
    """One product and one sum for all numbers."""
    scale, offset = (np.unique(node.tensors[name]) for name in ("scale", "offset"))
    if len(scale) > 1 or len(offset) > 1:
        return None
    bound = (abs(int(scale[0])) << 15) + abs(int(offset[0])) + (1 << node["shift"])
    if bound >= 1 << (params.acc_bits - 1):  # its sums do not wrap
        return None
    return ("a",), {"scale_a": int(scale[0]), "offset": int(offset[0]), "shift": node["shift"]}


def _shift(node: Node, params: Params) -> Found:
    if 1 << node["left"] > HIGH:
        return None
    return ("a",), {"scale_a": 1 << node["left"], "shift": node["right"]}


_RULES: Mapping[str, Callable[[Node, Params], Found]] = {
    "Add": lambda node, params: (("a", "c"), {"scale_a": 1, "scale_c": 1, "shift": node["shift"]}),
    "Affine": _affine,
    "Clamp": lambda node, params: (("a",), {"scale_a": 1, "low": node["low"], "high": node["high"]}),
    "Multiply": lambda node, params: (("a", "b"), {"shift": node["shift"]}),
    "Shift": _shift,
    "Table": lambda node, params: (("a",), {"scale_a": 1, "function": function_of(node)}),
}
