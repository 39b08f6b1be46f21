"""Plain training: of the whole network, or of what earlier stages left of it."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.train.stages.base import Stage

__all__ = ["Train"]


@dataclass(frozen=True, kw_only=True)
class Train(Stage):
    """Train what there is: masks stay on, shared weights move together."""
