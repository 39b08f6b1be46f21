"""Levels of layers that lose least in sum for what they save, where losses and costs add up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from compiler.experiments.policy.problem import Policy

__all__ = ["descend", "envelope"]


def descend(
    costs: Sequence[Sequence[float]],
    losses: Sequence[Sequence[float]],
    budget: float,
    coupled: Callable[[Policy], float] | None = None,
) -> Policy:
    """From the highest level of each layer, the step by one that loses least for what it saves, until the sum fits.

    Where the losses of each layer are convex over its costs (`envelope`), no policy that costs as little as the one
    found, or less, loses less.

    Parameters
    ----------
    costs, losses : of each layer, of each of its levels; costs ascend. budget : that the sum of costs may reach.
    coupled : cost of a policy where those of its layers do not add up (`Problem.coupled`); nothing is optimal then.

    Returns
    -------
    Policy
        Number of the level of each layer; 0 everywhere if even that does not fit.
    """
    levels = [len(each) - 1 for each in costs]

    def total(policy: Sequence[int]) -> float:
        if coupled is not None:
            return coupled(tuple(policy))
        return float(sum(each[level] for each, level in zip(costs, policy, strict=True)))

    def saved(layer: int, level: int) -> float:
        if coupled is not None:
            return total(levels) - total([*levels[:layer], level - 1, *levels[layer + 1 :]])
        return costs[layer][level] - costs[layer][level - 1]

    while any(levels) and total(levels) > budget:
        prices = {
            layer: (losses[layer][level - 1] - losses[layer][level]) / max(saved(layer, level), 1e-12)
            for layer, level in enumerate(levels)
            if level
        }
        levels[min(prices, key=lambda layer: (prices[layer], layer))] -= 1
    return tuple(levels)


def envelope(costs: Sequence[float], losses: Sequence[float]) -> NDArray[np.float64]:
    """The greatest convex function of cost below the losses of one layer's levels, at these costs, which ascend.

    A level above the line between two others is never worth its cost: half a step to each of those is better. So a
    bump that the noise of a measurement made does not keep a descent from what lies behind it.
    """
    corners: list[int] = []
    for level in range(len(costs)):
        while len(corners) > 1 and _above(corners[-2], corners[-1], level, costs, losses):
            corners.pop()
        corners.append(level)
    return np.interp(costs, [costs[n] for n in corners], [losses[n] for n in corners])


def _above(left: int, middle: int, right: int, costs: Sequence[float], losses: Sequence[float]) -> bool:
    """Whether the middle one is on the line between its neighbours, or above it."""
    rise = (losses[right] - losses[left]) * (costs[middle] - costs[left])
    return (losses[middle] - losses[left]) * (costs[right] - costs[left]) >= rise
