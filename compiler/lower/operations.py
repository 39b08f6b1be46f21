"""Nodes outside of loops as elementwise operations, with the copies that they need.

What an operation reads and makes of several pixels are whole maps, none of which a loop walks over: such maps have the
distance of pixels that the loop has. A copy is a layer in which each channel reads itself. A function of a map that is
not so is a function of the copy. Parts of a map that others read in parts of another size are copied as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field

from compiler.graph.ir import Graph, Node, Type, unique
from compiler.lower.draft import Draft, draft, folded, orders
from compiler.lower.elementwise import Elementwise, Ref, elementwise, ref_of
from compiler.lower.loops import Looped
from compiler.lower.program import HIGH, LOW
from compiler.lower.views import Views
from hw.params import Params

__all__ = ["Operations"]

_MOVES = ("Concat", "Pad", "Reshape", "Slice", "Transpose")


@dataclass
class Operations:
    """Makes operations of nodes.

    Parameters
    ----------
    types : of all values; grows by copies. made : axes of what the array makes so far. loops : those of the array.
    units : value → channels of a part, as operations want it; grows.
    """

    graph: Graph
    views: Views
    types: dict[str, Type]
    made: MutableMapping[str, str]
    loops: Mapping[str, Looped]
    params: Params
    units: dict[str, int] = field(default_factory=dict)
    copies: dict[tuple[str, str], Draft] = field(default_factory=dict)

    def __post_init__(self) -> None:
        makers = {name: node for node in self.graph for name in node.outputs}
        left = [name for loop in self.loops.values() for name in (*loop.sequences.values(), *loop.stacked.values())]
        self.walked: set[str] = set()
        while left:
            name = left.pop()
            self.walked.add(name)
            if name in makers and makers[name].op in _MOVES:
                left += [read for read in makers[name].inputs if read not in self.walked]
        for loop in self.loops.values():  # a state is not in parts
            self.units |= {state.final: loop.types[state.new].shape[0] for state in loop.states}

    def of(self, node: Node) -> list[Draft | Elementwise]:
        """What computes a node, in order, the last of it the node's value; empty if the array has nothing for it."""
        if len(node.outputs) != 1:
            return []
        for axes in orders(node, self.views, len(self.types[node.output].shape)):
            each = elementwise(node, self.views, self.types, axes, self.params)
            if each is not None and self._free(each) and each.fits(self.units, self.types):
                return [each]
            if node.op == "Table":
                return self._function(node)
            if node.op == "Multiply" and self.params.elementwise and (found := self._copied(node, axes)):
                return found
        return []

    def _free(self, each: Elementwise) -> bool:
        """Whether no loop walks over what it reads and makes; a vector of one axis is not what it walks over."""
        keys = (each.key, *each.reads)
        return not any(name in self.walked and not (each.single and axes == "C") for name, axes in keys)

    def _function(self, node: Node) -> list[Draft | Elementwise]:
        """A function of a copy."""
        (name,) = node.inputs
        copy = self._copy(name, self.types[name], unique(f"{node.output}.copy", self.types))  # one for each function
        made = None if copy is None else folded(copy, node, self.types, self.params)
        return [] if made is None else [made]

    def _copied(self, node: Node, axes: str) -> list[Draft | Elementwise]:
        """An operation that reads copies, or whose result is copied to where a loop walks over it."""
        reads, copies = [], []
        known = set(self.made)
        sizes = dict(zip(axes, self.types[node.output].shape, strict=True))
        single = sizes.get("H", 1) == sizes.get("W", 1) == 1
        for name in node.inputs:
            ref = ref_of(self.views, name, axes)
            if ref is None or not self._usable(ref, single):
                copy = self.copies.get((name, axes)) or self._copy(name, self.types[name])
                if copy is None or copy.axes != axes:
                    break
                if copy.value not in self.made:
                    copies.append(copy)
                    self.made[copy.value], self.types[copy.value] = axes, self.types[name]
                name = copy.value
            reads.append(name)
        walked = node.output in self.walked
        result = unique(f"{node.output}.whole", self.types) if walked else node.output
        given = node.replace(name=result, inputs=tuple(reads), outputs=(result,))
        each = None
        if len(reads) == len(node.inputs):
            self.types[result] = self.types[node.output]
            each = elementwise(given, self.views, self.types, axes, self.params)
        for name in set(self.made) - known:  # who makes them notes them
            del self.made[name]
        if each is None or not self._free(each) or not each.fits(self.units, self.types):
            return []
        self.copies |= {(copy.nodes[-1].inputs[0], axes): copy for copy in copies}
        if not walked:
            return [*copies, dataclasses.replace(each, nodes=(node,))]
        self.made[result] = axes
        end = self._copy(result, self.types[result], node.output)
        del self.made[result]
        assert end is not None
        return [*copies, each, dataclasses.replace(end, nodes=(node, *end.nodes))]

    def _usable(self, ref: Ref, single: bool) -> bool:
        """Whether an operation can read it where it lies."""
        value, axes = ref.key
        whole = ref.size == self.types[value].shape[axes.index("C")]
        alone = value not in self.walked or (single and axes == "C")
        return (single or whole) and alone and ref.fits(self.units, self.types)

    def _copy(self, name: str, kind: Type, result: str = "") -> Draft | None:
        """A layer that makes a copy of a value."""
        result = result or unique(f"{name}.copy", self.types)
        node = Node(result, "Clamp", (name,), {"low": LOW, "high": HIGH}, outputs=(result,))
        return draft(node, self.views, {**self.types, result: kind}, self.params)
