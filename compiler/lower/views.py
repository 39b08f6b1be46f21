"""Values as the array reads them: maps whose channels are joined, selected, moved or seen as one vector.

Operators that only move numbers take no time where a reader can absorb them: Concat of channels (a segment for each
part), Slice of channels (other columns), Pad (another origin of the window), Transpose (other names of the axes) and
Reshape to a vector (a window over the whole map).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compiler.graph.integer import ARRAY_AXES
from compiler.graph.ir import Graph, Node, Type

__all__ = ["Part", "View", "Views"]


@dataclass(frozen=True, eq=False)
class Part:
    """Channels of one value, whose axes are in the given order: `channels[n]` of the value is channel n of the part.

    `offset`: pixel of the view at which pixel (0, 0) of the value lies.
    """

    value: str
    axes: str
    channels: NDArray[np.int64]
    offset: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class View:
    """A value as parts, whose channels follow one another.

    Attributes
    ----------
    axes : order of the axes of the value. If `flat`, these are the axes that were joined to one.
    """

    parts: tuple[Part, ...]
    axes: str
    height: int
    width: int
    flat: bool = False

    @property
    def channels(self) -> int:
        """Channels of all parts."""
        return sum(len(part.channels) for part in self.parts)


class Views:
    """The views of the values of a graph.

    Parameters
    ----------
    types : of all values.
    made : axes of each value that the array makes so far; grows. Other values come from the host, with any axes.
    """

    def __init__(self, graph: Graph, types: Mapping[str, Type], made: Mapping[str, str]) -> None:
        self._types, self._made = types, made
        self._makers = {name: node for node in graph for name in node.outputs}
        self._maps = {name for node in graph if not self._flattens(node) for name in node.inputs}

    def view(self, name: str, axes: str) -> View | None:
        """A value with the given order of axes, or, where that is "C", perhaps a flat one; None if there is none.

        A value that cannot be seen through its maker is read as it is, from the host.
        """
        if self._types[name].kind != "real":
            return None
        if name in self._made:
            return self._plain(name, axes) if self._made[name] == axes else None
        node = self._makers[name]
        absorb = _ABSORB.get(node.op)
        found = absorb(self, node, axes) if absorb is not None else None
        return found if found is not None else self._plain(name, axes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a value."""
        return self._types[name].shape

    def from_array(self, name: str) -> bool:
        """Whether a value is, after all moves, one of the array's for some part."""
        if name in self._made:
            return True
        node = self._makers[name]
        return node.op in _ABSORB and any(self.from_array(read) for read in node.inputs)

    def only_flattened(self, name: str) -> bool:
        """Whether a value of the host is read as a vector alone: the host brings it as one, which fills all lanes."""
        return name not in self._maps and not self.from_array(name)

    def natural(self, name: str) -> str | None:
        """The order of axes that the array gave a value, through Clamp and the like; None for values of the host."""
        return self._made.get(name)

    def _flattens(self, node: Node) -> bool:
        return node.op == "Reshape" and len(self._types[node.output].shape) == 1

    def _plain(self, name: str, axes: str) -> View | None:
        shape = self._types[name].shape
        if axes not in ARRAY_AXES or len(axes) != len(shape):
            return None
        sizes = dict(zip(axes, shape, strict=True))
        part = Part(name, axes, np.arange(sizes["C"]))
        return View((part,), axes, sizes.get("H", 1), sizes.get("W", 1))


def _concat(views: Views, node: Node, axes: str) -> View | None:
    if node["axis"] != axes.find("C"):
        return None
    found = [views.view(name, axes) for name in node.inputs]
    parts = [each for each in found if each is not None and not each.flat]
    if len(parts) < len(found):
        return None
    return replace(parts[0], parts=tuple(part for each in parts for part in each.parts))


def _slice(views: Views, node: Node, axes: str) -> View | None:
    if node["drop"]:
        return _pixel(views, node) if axes == "C" else None
    if node["axis"] != axes.find("C"):
        return None
    found = views.view(node.inputs[0], axes)
    if found is None or found.flat:
        return None
    wanted = np.arange(node["begin"], node["end"], node["step"])
    parts, first = [], 0
    for part in found.parts:  # a step of at least one keeps the order
        here = wanted[(wanted >= first) & (wanted < first + len(part.channels))] - first
        if len(here):
            parts.append(replace(part, channels=part.channels[here]))
        first += len(part.channels)
    return replace(found, parts=tuple(parts))


def _pixel(views: Views, node: Node) -> View | None:
    """One pixel of a sequence."""
    (name,) = node.inputs
    given = "WC" if node["axis"] == 0 else "CW"
    found = views.view(name, given) if len(views.shape(name)) == 2 else None
    if found is None or found.flat:
        return None
    parts = tuple(replace(part, offset=(part.offset[0], part.offset[1] - node["begin"])) for part in found.parts)
    return View(parts, "C", 1, 1)


def _pad(views: Views, node: Node, axes: str) -> View | None:
    if len(node["before"]) != len(axes):  # read together with a value of other axes
        return None
    before, after = (dict(zip(axes, node[name], strict=True)) for name in ("before", "after"))
    found = views.view(node.inputs[0], axes) if before.get("C", 0) == after.get("C", 0) == 0 else None
    if found is None or found.flat:
        return None
    by = before.get("H", 0), before.get("W", 0)
    parts = tuple(replace(p, offset=(p.offset[0] + by[0], p.offset[1] + by[1])) for p in found.parts)
    height, width = (found.height + by[0] + after.get("H", 0), found.width + by[1] + after.get("W", 0))
    return replace(found, parts=parts, height=height, width=width)


def _transpose(views: Views, node: Node, axes: str) -> View | None:
    if len(node["order"]) != len(axes):  # read together with a value of more axes
        return None
    before = [""] * len(axes)
    for axis, source in zip(axes, node["order"], strict=True):
        before[source] = axis
    given = "".join(before)
    found = views.view(node.inputs[0], given) if given in ARRAY_AXES else None
    return replace(found, axes=axes) if found is not None and not found.flat else None


def _reshape(views: Views, node: Node, axes: str) -> View | None:
    """To a vector, or between a vector and a map of one pixel."""
    (name,) = node.inputs
    shape, made = views.shape(name), views.shape(node.output)
    if len(made) == 1 and len(shape) > 1:
        if views.only_flattened(name):
            return None
        natural = _source_axes(views, name)
        order = (natural,) if natural is not None else ("CW",) if len(shape) == 2 else ("CHW",)
        found = views.view(name, order[0]) if len(shape) <= 3 else None
        if found is None or found.flat:
            return None
        one = found.height == found.width == 1
        return replace(found, axes="C" if one else found.axes, flat=not one)
    if len(shape) == 1 and axes in ARRAY_AXES and made[axes.find("C")] == math.prod(made):
        found = views.view(name, "C")
        return None if found is None or found.flat else replace(found, axes=axes)
    if shape == made:
        return views.view(name, axes)
    return None


def _source_axes(views: Views, name: str) -> str | None:
    """The order of axes with which a value can be read, if the array makes it."""
    for axes in ARRAY_AXES:
        if len(axes) == len(views.shape(name)) and views.from_array(name):
            found = views.view(name, axes)
            if found is not None and all(views.natural(part.value) is not None for part in found.parts):
                return axes
    return None


_ABSORB: Mapping[str, Callable[[Views, Node, str], View | None]] = {
    "Concat": _concat,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Transpose": _transpose,
}
