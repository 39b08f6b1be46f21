"""Densities whose network, as a whole and by the exact model, costs just what it may."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from compiler.errors import InputError
from sim.auto.curves import GRID, Choose, Curve

__all__ = ["Settled", "settle"]

_TURNS = 6
"""Whole networks that are asked for at most, beside the thinnest."""

_NEAR = 0.985
"""Share of the limit from which on a network is near enough to it."""

Exact = Callable[[Mapping[str, float]], float]
"""What the network at these densities costs as a whole; infinite where it does not fit the array."""


@dataclass(frozen=True)
class Settled:
    """What was found.

    Attributes
    ----------
    densities : key of a weight → share that it keeps. cost : of the whole network, at most the limit.
    """

    densities: Mapping[str, float]
    cost: float


def settle(curves: Sequence[Curve], choose: Choose, exact: Exact, limit: float, unit: str) -> Settled:
    """The densities of a chooser that come nearest to the limit from below.

    A sum over blocks is only near to what the whole network costs, whose layers overlap. So the chooser is given other
    limits until the whole network fits and is near.

    Parameters
    ----------
    limit : that the whole network may cost. unit : of costs, for messages.

    Raises
    ------
    InputError
        Even the least densities cost more; the message says how much.
    """
    best: Settled | None = None
    budget, low, high = limit, 0.0, float("inf")
    for _ in range(_TURNS):
        densities = choose(curves, budget)
        taken = exact(densities)
        if taken <= limit:
            low = max(low, budget)
            if best is None or taken > best.cost:
                best = Settled(densities, taken)
            if taken >= _NEAR * limit or all(value >= GRID[-1] for value in densities.values()):
                return best
        else:
            high = min(high, budget)
        wanted = budget * (limit / taken) * (1 + _NEAR) / 2 if taken < float("inf") else budget / 2
        inside = low < wanted < high
        budget = wanted if inside else (low + high) / 2 if high < float("inf") else 2 * budget
    if best is not None:
        return best
    least = dict.fromkeys((key for each in curves for key in each.keys), GRID[0])
    taken = exact(least)
    if taken > limit:
        raise InputError(
            f"the target is {limit:,.0f} {unit}, and with {GRID[0]:.0%} of the weights of each layer the network takes "
            f"{taken:,.0f}, the least that is possible; give a target of that or more, or another array or network"
        )
    return Settled(least, taken)
