"""What each layer costs and loses at each density, and densities that follow from it under a limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.experiments.policy.descent import descend, envelope

__all__ = ["GRID", "Choose", "Curve", "by_layer", "curves_of", "same"]

GRID = (0.03, 0.06, 0.1, 0.17, 0.3, 0.55, 1.0)
"""Densities at which every layer is measured, ascending; the first one is the least that a layer gets."""

_STEPS = 72
"""Densities between the ends of the grid that a choice is made among: each is 5 % more than the one before."""

Choose = Callable[[Sequence["Curve"], float], dict[str, float]]
"""From the curves and a limit on the sum of their costs to a density for each weight."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Weights that are one block of the array, at each density of `GRID`.

    Attributes
    ----------
    name : of the block. keys : of the weights, which get one density.
    costs : of the block, ascending. losses : what the network loses if these weights alone are pruned, 0 at the end.
    """

    name: str
    keys: tuple[str, ...]
    costs: NDArray[np.float64]
    losses: NDArray[np.float64]

    def cost(self, density: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """At any density, on straight lines: a weight more is an entry more."""
        return np.asarray(np.interp(density, GRID, self.costs))

    def loss(self, density: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """At any density, on straight lines over its logarithm."""
        return np.asarray(np.interp(np.log(density), np.log(GRID), self.losses))


def curves_of(
    members: Mapping[str, Sequence[str]],
    costs: Mapping[float, Mapping[str, float]],
    losses: Mapping[str, Sequence[tuple[float, float]]],
) -> tuple[Curve, ...]:
    """Curves of the weights that the array multiplies by.

    Parameters
    ----------
    members : block of the array → keys of the weights in it that may be pruned.
    costs : density → block → its cost with all weights at that density. Those of `GRID`, two at least; below the
        least that is there a layer costs what it costs there, above the greatest it goes on straight.
    losses : key → (density, what is good about the network) as `sensitivity.scan` gives them.
    """
    found = []
    for name, own in members.items():
        lost = np.sum([[losses[key][-1][1] - good for _, good in losses[key]] for key in own], axis=0)
        # Fewer weights are never better but by chance.
        down = np.maximum.accumulate(np.maximum(lost, 0.0)[::-1])[::-1]
        up = _everywhere(list(costs), [each[name] for each in costs.values()])
        if up[-1] > up[0]:  # else the host computes it
            found.append(Curve(name, tuple(own), up, down))
    return tuple(found)


def _everywhere(densities: Sequence[float], costs: Sequence[float]) -> NDArray[np.float64]:
    """Costs at all densities of `GRID`, ascending."""
    known = np.maximum.accumulate(costs)
    slope = (known[-1] - known[-2]) / (densities[-1] - densities[-2])
    beyond = slope * np.maximum(np.array(GRID) - densities[-1], 0.0)
    return np.asarray(np.interp(GRID, densities, known) + beyond)


def by_layer(curves: Sequence[Curve], budget: float) -> dict[str, float]:
    """A density for each layer: from dense on, the layer is thinned that loses least for what it saves."""
    grid = np.geomspace(GRID[0], GRID[-1], _STEPS)
    costs = [each.cost(grid).tolist() for each in curves]
    losses = [envelope(cost, each.loss(grid).tolist()).tolist() for cost, each in zip(costs, curves, strict=True)]
    levels = descend(costs, losses, budget)
    return {key: float(grid[level]) for each, level in zip(curves, levels, strict=True) for key in each.keys}


def same(curves: Sequence[Curve], budget: float) -> dict[str, float]:
    """One density for all layers, the greatest that fits."""
    low, high = GRID[0], GRID[-1]
    for _ in range(40):
        middle = (low + high) / 2
        taken = float(sum(each.cost(middle) for each in curves))
        low, high = (middle, high) if taken <= budget else (low, middle)
    return {key: low for each in curves for key in each.keys}
