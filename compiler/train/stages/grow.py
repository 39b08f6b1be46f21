"""Sparse from the first step: see `compiler.train.growth`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from compiler.errors import RecipeError
from compiler.train import growth
from compiler.train.layers import Site, weights
from compiler.train.loop import Hook
from compiler.train.stages.base import Context, Stage, selection
from compiler.train.table import Table

__all__ = ["Grow"]

_MASKS = 1 << 21
"""Beside seed and number of a stage: what its random masks and growth are seeded by."""


@dataclass(frozen=True, kw_only=True)
class Grow(Stage):
    """Train under masks of a given density whose weights move, by the method that the kind names.

    Attributes
    ----------
    density : share of all chosen weights together.
    distribution : of it over the layers, one of `growth.DISTRIBUTIONS`.
    every, alpha, end : see `growth.Growth`; without a meaning for kind "static".
    only, ignore : patterns of the weights that are sparse (empty: all), or left as they are, see `select.chosen`.
    """

    density: float
    distribution: str
    every: int = growth.EVERY
    alpha: float = growth.ALPHA
    end: float = growth.END
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    @classmethod
    def options(cls, table: Table, layers: list[str] | None) -> dict[str, Any]:
        """Density, its distribution, and when weights move."""
        patterns, _ = selection(table, layers)
        found = {
            "density": table.number("density", 0, 1, high_included=True),
            "distribution": table.choice("distribution", growth.DISTRIBUTIONS, default="erk"),
            **patterns,
        }
        if table.content.get("kind") != "static":
            found["every"] = table.integer("every", 1, 1 << 30, default=growth.EVERY)
            found["alpha"] = table.number("alpha", 0, 1, default=growth.ALPHA)
            found["end"] = table.number("end", 0, 1, default=growth.END, high_included=True)
        return found

    def asdict(self) -> dict[str, Any]:
        """As a recipe says it; a static mask has no moves."""
        table = super().asdict()
        if self.kind == "static":
            for key in ("every", "alpha", "end"):
                del table[key]
        return table

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Random masks; their densities by layer are recorded."""
        sites = self._sites(module)
        if not sites:
            raise RecipeError(f"stage {self.name}: the network has no layer that can be sparse")
        goal = growth.densities(sites, self.density, self.distribution)
        growth.start(sites, goal, (context.seed, context.number, _MASKS))
        return {"goal": goal}

    def hooks(self, module: nn.Module, context: Context, record: Mapping[str, Any]) -> list[Hook]:
        """Moves after steps."""
        seed = (context.seed, context.number, _MASKS + 1)
        sites = self._sites(module)
        return [growth.Growth(sites, self.kind, seed, every=self.every, alpha=self.alpha, end=self.end)]

    def _sites(self, module: nn.Module) -> list[Site]:
        return list(weights(module, self.only or None, self.ignore))
