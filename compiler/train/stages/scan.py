"""A scan of how sensitive each layer is to pruning, and densities that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from compiler.train import sensitivity
from compiler.train.layers import weights
from compiler.train.stages.base import Context, Stage
from compiler.train.table import Table

__all__ = ["Scan"]


@dataclass(frozen=True, kw_only=True)
class Scan(Stage):
    """Prune one layer at a time without retraining, measure, and propose densities.

    density : share of all weights that the proposal keeps; a later stage takes it by ``density = "sensitivity"``.
    """

    density: float
    least_epochs: ClassVar[int | None] = None

    @classmethod
    def options(cls, table: Table, layers: list[str] | None) -> dict[str, Any]:
        """The wanted density."""
        return {"density": table.number("density", 0, 1, high_included=True)}

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Scan; the module is left as it was."""
        curves = sensitivity.scan(module, lambda: context.measure(module))
        counts = {site.key: site.value.numel() for site in weights(module)}
        return {"curves": curves, "proposal": sensitivity.propose(curves, counts, self.density)}
