"""What layers and operations have in common before they are in a program: nodes, the last of which makes one value."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.graph.ir import Node
from compiler.lower.draft_segments import Key

__all__ = ["Maker"]


@dataclass(frozen=True, eq=False)
class Maker:
    """Makes one value.

    Attributes
    ----------
    nodes : what it computes, in order; the last one makes `value`. axes : of the result.
    """

    nodes: tuple[Node, ...]
    axes: str

    @property
    def value(self) -> str:
        """Name of the result."""
        return self.nodes[-1].output

    @property
    def key(self) -> Key:
        """The result."""
        return self.value, self.axes

    @property
    def made(self) -> tuple[Key, ...]:
        """What it makes."""
        return (self.key,)
