"""Removal of neurons that have no input or no output left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from compiler.train import dead
from compiler.train.stages.base import Context, Stage

__all__ = ["Shrink"]


@dataclass(frozen=True, kw_only=True)
class Shrink(Stage):
    """Remove dead neurons and filters; the function of the network stays."""

    least_epochs: ClassVar[int | None] = None

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Remove them and report how many."""
        return {"removed": dead.remove(module)}
