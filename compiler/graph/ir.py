"""The operator graph: what a network is between the frontends and the array.

A `Graph` is a list of `Node`s in an order in which every value is made before it is used. A node applies one
operator of `compiler.graph.operators.OPERATORS` to named values and makes named values. Shapes leave the batch out:
every value has one entry of its `Type` for each sample, but constants, which have one for all.

The same structure carries the network as floats and, after `compiler.lower.quantize`, in integers; there each type
has an exponent, and the attributes are those of `compiler.graph.integer`.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from compiler.short import few

__all__ = ["Graph", "Kind", "Node", "Type", "default_layout", "unique"]

Kind = Literal["real", "index"]
"""What the numbers are: quantities, or positions in a table (`Gather`), which are never scaled."""

_LAYOUTS = {0: "", 1: "C", 2: "TC", 3: "CHW"}


def default_layout(rank: int) -> str:
    """Names of the axes of a value of which only the rank is known: features, steps of features, or a map."""
    return _LAYOUTS.get(rank, "?" * rank)


@dataclass(frozen=True)
class Type:
    """What one sample of a value is.

    Attributes
    ----------
    shape : without the batch.
    layout : a letter for each axis: C channels or features, H rows, W columns, T steps, ? anything.
    kind : see `Kind`.
    exponent : value = raw · 2**exponent; None while the graph computes with floats, and for indices.
    """

    shape: tuple[int, ...]
    layout: str = ""
    kind: Kind = "real"
    exponent: int | None = None

    def __post_init__(self) -> None:
        if len(self.layout) != len(self.shape):
            object.__setattr__(self, "layout", default_layout(len(self.shape)))

    def __str__(self) -> str:
        axes = "x".join(f"{axis}{size}" for axis, size in zip(self.layout, self.shape, strict=True)) or "scalar"
        scale = "" if self.exponent is None else f" ·2^{self.exponent}"
        return f"{'index ' if self.kind == 'index' else ''}{axes}{scale}"


@dataclass(frozen=True, eq=False)
class Node:
    """One operator applied to values.

    Attributes
    ----------
    name : unique in the graph; the module path where there is one ("encoder.fc1").
    op : key of `OPERATORS`.
    inputs : names of the values that it reads.
    attributes : numbers, texts and tuples of them, as the operator's row of the table states.
    tensors : constant arrays, likewise.
    body : the graph that a Scan repeats.
    outputs : names of the values that it makes; usually one, the node's own name.
    source : operation and line of the user's code, for messages.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    body: Graph | None = None
    outputs: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        if not self.outputs:
            object.__setattr__(self, "outputs", (self.name,))

    def __repr__(self) -> str:
        # Of tensors the shapes: all numbers of a large layer would fill pages.
        parts = [f"{name}={reprlib.repr(value)}" for name, value in self.attributes.items()]
        parts += [f"{name} {tensor.dtype} {tensor.shape}" for name, tensor in self.tensors.items()]
        if self.body is not None:
            parts.append(f"body {self.body!r}")
        more = "".join(f", {part}" for part in parts)
        return f"<Node {self.name}: {self.op}({few(self.inputs)}) -> {few(self.outputs)}{more}>"

    @property
    def output(self) -> str:
        """The only value that it makes."""
        (name,) = self.outputs
        return name

    def __getitem__(self, name: str) -> Any:
        """An attribute."""
        return self.attributes[name]

    def replace(self, **changes: Any) -> Node:
        """A copy with fields changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: nodes in order of computation, its Input and Output nodes among them."""

    nodes: tuple[Node, ...]

    def __repr__(self) -> str:
        inputs, outputs = (few(node.name for node in nodes) for nodes in (self.inputs, self.outputs))
        return f"<Graph: {len(self.nodes)} nodes, {inputs} -> {outputs}>"

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The Input nodes, in order."""
        return tuple(node for node in self.nodes if node.op == "Input")

    @property
    def outputs(self) -> tuple[Node, ...]:
        """The Output nodes, in order; each reads one value."""
        return tuple(node for node in self.nodes if node.op == "Output")

    def producer(self, value: str) -> Node:
        """The node that makes a value."""
        return next(node for node in self.nodes if value in node.outputs)

    def users(self, value: str) -> tuple[Node, ...]:
        """The nodes that read a value, once for each time they do."""
        return tuple(node for node in self.nodes for name in node.inputs if name == value)


def unique(name: str, taken: Sequence[str] | set[str] | dict[str, Any]) -> str:
    """`name`, or with "@2", "@3", … behind it if it is taken."""
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}@{number}"
    return candidate
