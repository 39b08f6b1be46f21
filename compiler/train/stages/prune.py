"""Pruning while training on, at once, in rounds, or gradually.

Sources: iterative pruning: Learning both Weights and Connections (Han et al., NIPS 2015); gradual schedule: To prune,
or not to prune (Zhu and Gupta, 2017), equation 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from compiler.errors import RecipeError
from compiler.train import prune
from compiler.train.layers import Site, density, weights
from compiler.train.loop import Hook
from compiler.train.stages.base import Context, Stage, selection
from compiler.train.table import Table

__all__ = ["METHODS", "Prune", "density_at"]

METHODS = ("gradual", "oneshot", "iterative")
SENSITIVITY = "sensitivity"

_PER_EPOCH = 8
"""Prunings an epoch along a gradual ramp."""


@dataclass(frozen=True, kw_only=True)
class Prune(Stage):
    """Lower the density to `density` while training.

    Attributes
    ----------
    density : share of the weights that is kept: one number, a number for each layer, or "sensitivity" for the
        proposal of the scan before.
    scope : "layer": every layer is pruned to its density; "global": one threshold for all, so that `density` of all
        weights together is left.
    method : "gradual": the density falls along a cubic curve over the first `ramp` of the stage. "oneshot": at the
        start. "iterative": in `rounds` equal steps of the logarithm, each followed by retraining in which the
        learning rate falls anew.
    ramp : 0 … 1.
    rounds : how many.
    only, ignore : patterns of the weights that are pruned (empty: all), or left as they are, see `select.chosen`.
    """

    density: float | str | Mapping[str, float]
    scope: str
    method: str
    ramp: float
    rounds: int
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    @classmethod
    def options(cls, table: Table, layers: list[str] | None) -> dict[str, Any]:
        """Densities and how they are reached."""
        patterns, layers = selection(table, layers)
        density: Any
        if table.content.get("density") == SENSITIVITY:
            density = table.text("density")
        else:
            density = table.per_layer("density", layers, lambda t, key: t.number(key, 0, 1, high_included=True))
        scope = table.choice("scope", ("layer", "global"), default="layer")
        if scope == "global" and not isinstance(density, float):
            raise RecipeError(f"{table.source}: {table.where}.scope is global; then density is one number for all")
        method = table.choice("method", METHODS, default="gradual")
        rounds = table.integer("rounds", 1, 1000, default=1) if method == "iterative" else 1
        ramp = table.number("ramp", 0, 1, default=0.6, low_included=True, high_included=True)
        options: dict[str, Any] = {"density": density, "scope": scope, "method": method, "ramp": ramp, "rounds": rounds}
        options |= patterns
        return {**options, "cycles": rounds}

    def asdict(self) -> dict[str, Any]:
        """As a recipe says it; only the iterative method has rounds."""
        table = super().asdict()
        if self.method != "iterative":
            del table["rounds"]
        return table

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Put every weight under a mask; record the densities at the start and those aimed at."""
        sites = self._sites(module)
        if not sites:
            raise RecipeError(f"stage {self.name}: the network has no layer that can be pruned")
        for site in sites:
            prune.attach(site.module, site.name)
        goal = self._goal(sites, context)
        if isinstance(goal, Mapping):
            return {"start": {site.key: density([site]) for site in sites}, "goal": dict(goal)}
        return {"start": density(sites), "goal": goal}

    def hooks(self, module: nn.Module, context: Context, record: Mapping[str, Any]) -> list[Hook]:
        """Prune before steps."""
        return [_Pruner(self, self._sites(module), record["start"], record["goal"])]

    def _sites(self, module: nn.Module) -> list[Site]:
        return list(weights(module, self.only or None, self.ignore))

    def _goal(self, sites: list[Site], context: Context) -> float | Mapping[str, float]:
        keys = [site.key for site in sites]
        if self.density == SENSITIVITY:
            proposals = [record["proposal"] for record in context.records if "proposal" in record]
            return {key: proposals[-1][key] for key in keys}
        if isinstance(self.density, Mapping):
            if set(self.density) != set(keys):
                raise RecipeError(
                    f"stage {self.name}: density names {', '.join(self.density)}; the layers are {', '.join(keys)}"
                )
            return self.density
        assert isinstance(self.density, float)
        return self.density if self.scope == "global" else dict.fromkeys(keys, self.density)


def density_at(stage: Prune, step: int, total: int, start: float, goal: float) -> float | None:
    """Density to prune to before one of `total` steps; None if this step prunes nothing."""
    if stage.method == "iterative":
        length = -(-total // stage.rounds)
        if step % length:
            return None
        return start * math.pow(goal / start, (step // length + 1) / stage.rounds)
    ramp = 0 if stage.method == "oneshot" else round(stage.ramp * (total - 1))
    assert stage.schedule is not None
    every = max(1, total // stage.schedule.epochs // _PER_EPOCH)
    if step > ramp or (step < ramp and step % every):
        return None
    left = 0.0 if ramp == 0 else 1.0 - step / ramp
    return goal + (start - goal) * left**3


class _Pruner(Hook):
    def __init__(self, stage: Prune, sites: list[Site], start: Any, goal: Any) -> None:
        self.stage, self.sites, self.start, self.goal = stage, sites, start, goal

    def before_step(self, step: int, total: int) -> None:
        if not isinstance(self.goal, Mapping):
            one = density_at(self.stage, step, total, self.start, self.goal)
            if one is not None:
                prune.prune_sites(self.sites, min(one, 1.0))
            return
        each = {key: density_at(self.stage, step, total, self.start[key], goal) for key, goal in self.goal.items()}
        if None not in each.values():
            prune.prune_sites(self.sites, {key: min(value, 1.0) for key, value in each.items() if value is not None})
