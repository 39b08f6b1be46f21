"""Removal of neurons and channels that have no input or no output left, and of blocks that give nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from compiler.errors import ModelError
from compiler.train import dead, removal
from compiler.train.iss_shrink import cut_units
from compiler.train.stages.base import Context, Stage

__all__ = ["Shrink"]

_SAMPLES = 16


@dataclass(frozen=True, kw_only=True)
class Shrink(Stage):
    """Remove dead neurons, channels, blocks, and hidden units that a stage ``iss`` silenced; the function stays."""

    least_epochs: ClassVar[int | None] = None

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Remove them and report how many: of a chain without tracing it, of anything else by its dependencies."""
        units = self._units(module, context)
        try:
            dead.links(module)
        except ModelError:
            found = removal.remove(module, context.example(_SAMPLES))
            return {"removed": found.channels, "blocks": list(found.blocks), "kept": found.kept, **units}
        return {"removed": dead.remove(module), **units}

    def _units(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Hidden units of the layers that earlier stages ``iss`` trained: widths before and after."""
        widths: dict[str, Any] = {}
        for path, names in {k: v for record in context.records for k, v in record.get("readers", {}).items()}.items():
            widths[path] = cut_units(module, path, names, context.example(_SAMPLES))
        return {"units": widths} if widths else {}
