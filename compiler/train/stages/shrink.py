"""Removal of neurons and channels that have no input or no output left, and of blocks that give nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from compiler.errors import ModelError
from compiler.train import dead, removal
from compiler.train.stages.base import Context, Stage

__all__ = ["Shrink"]

_SAMPLES = 16


@dataclass(frozen=True, kw_only=True)
class Shrink(Stage):
    """Remove dead neurons, channels and blocks; the function of the network stays."""

    least_epochs: ClassVar[int | None] = None

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Remove them and report how many: of a chain without tracing it, of anything else by its dependencies."""
        try:
            dead.links(module)
        except ModelError:
            found = removal.remove(module, context.example(_SAMPLES))
            return {"removed": found.channels, "blocks": list(found.blocks), "kept": found.kept}
        return {"removed": dead.remove(module)}
