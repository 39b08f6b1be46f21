"""A graph under construction: every node is checked where it is added, so that a problem names the user's line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from compiler.graph.ir import Graph, Node, Type, unique
from compiler.graph.operators import made_by, make

__all__ = ["Builder"]


class Builder:
    """Collects nodes and the types of their values.

    Attributes
    ----------
    nodes : so far, in order.
    types : of every value so far.
    shared : what several nodes have in common, by whatever key its maker likes.
    source : operation and line of the user's code that the next nodes come from.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.types: dict[str, Type] = {}
        self.source = ""
        self.shared: dict[Any, Any] = {}

    def add(
        self,
        op: str,
        name: str,
        *reads: str,
        tensors: Mapping[str, NDArray[Any]] | None = None,
        body: Graph | None = None,
        results: tuple[str, ...] = (),
        **attributes: Any,
    ) -> str:
        """Add a node; its first value.

        Parameters
        ----------
        name : made unique by "@2", "@3", …
        results : further values, by what is set behind the name; the first value has the name itself.

        Raises
        ------
        Wrong
            The operator's row of the table does not allow the node.
        """
        name = unique(name, self.types)
        outputs = (name, *(unique(f"{name}.{result}", self.types) for result in results))
        source = self.source
        node = make(op, name, *reads, tensors=tensors, body=body, outputs=outputs, source=source, **attributes)
        self.types.update(zip(outputs, made_by(node, [self.types[read] for read in reads]), strict=True))
        self.nodes.append(node)
        return name

    def placeholder(self, name: str, kind: Type) -> str:
        """A value that no node makes: it stands for one that could not be translated."""
        name = unique(name, self.types)
        self.types[name] = kind
        return name

    def shape(self, value: str) -> tuple[int, ...]:
        """Of one sample of a value."""
        return self.types[value].shape

    def graph(self) -> Graph:
        """The nodes that an output needs, and every input."""
        needed: set[str] = set()
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if node.op in ("Input", "Output") or needed.intersection(node.outputs):
                needed.update(node.inputs)
                kept.append(node)
        return Graph(tuple(reversed(kept)))
