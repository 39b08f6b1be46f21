"""Training that takes single weights to zero by what they cost: L1 (`train.l1`) or L0 (`train.gates`).

How many are left follows from the strength; ``prune`` takes away what is above a density that is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compiler.errors import RecipeError
from compiler.train import gates, prune
from compiler.train.l1 import Proximal
from compiler.train.layers import Site, weights
from compiler.train.loop import Hook
from compiler.train.stages.base import Context, Stage, selection
from compiler.train.table import Table

__all__ = ["L0Stage", "L1Stage"]


@dataclass(frozen=True, kw_only=True)
class _Penalized(Stage):
    """What both have: chosen weights, and what one of them costs.

    Attributes
    ----------
    strength : see `l1.Proximal` and `gates.L0`.
    only, ignore : patterns of the weights that may become zero (empty: all), or are left, see `select.chosen`.
    """

    strength: float
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    @classmethod
    def options(cls, table: Table, layers: list[str] | None) -> dict[str, Any]:
        """Strength, and which weights."""
        patterns, _ = selection(table, layers)
        return {"strength": table.number("strength", 0, 1e6, low_included=True), **patterns}

    def _sites(self, module: nn.Module) -> list[Site]:
        sites = list(weights(module, self.only or None, self.ignore))
        if not sites:
            raise RecipeError(f"stage {self.name}: the network has no layer whose weights could become zero")
        return sites


@dataclass(frozen=True, kw_only=True)
class L1Stage(_Penalized):
    """Magnitudes shrink in every step; in the end zeros are kept by masks."""

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Masks, open until the end of the stage where none has been shut before."""
        for site in self._sites(module):
            prune.attach(site.module, site.name)
        return {}

    def hooks(self, module: nn.Module, context: Context, record: Mapping[str, Any]) -> list[Hook]:
        """Shrinking after steps."""
        trained = [prune.trained(site.module, site.name) for site in self._sites(module)]
        return [Proximal(trained, self.strength)]

    def finish(self, module: nn.Module, context: Context) -> None:
        """Shut the masks of zeros."""
        with torch.no_grad():
            for site in self._sites(module):
                prune.attach(site.module, site.name).mask.copy_(site.value != 0)


@dataclass(frozen=True, kw_only=True)
class L0Stage(_Penalized):
    """Gates are drawn in every step; in the end masks take their place.

    Attributes
    ----------
    keep, pace : see `gates.Gate`.
    """

    keep: float = gates.KEEP
    pace: float = gates.PACE

    @classmethod
    def options(cls, table: Table, layers: list[str] | None) -> dict[str, Any]:
        """Also how gates begin and how fast they move."""
        keep = table.number("keep", 0, 1, default=gates.KEEP)
        pace = table.number("pace", 0, 1e6, default=gates.PACE)
        return {**super().options(table, layers), "keep": keep, "pace": pace}

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Gates in front of all chosen weights."""
        gates.attach(self._sites(module), self.keep, self.pace)
        return {}

    def hooks(self, module: nn.Module, context: Context, record: Mapping[str, Any]) -> list[Hook]:
        """The penalty."""
        return [gates.L0(self._sites(module), self.strength)]

    def finish(self, module: nn.Module, context: Context) -> None:
        """Masks where gates were."""
        gates.close(self._sites(module))
