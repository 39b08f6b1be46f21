"""A level for each layer, under a limit on the sum of their costs that no policy can break.

Sources: HAQ (Wang et al., CVPR 2019), section 3; AMC (He et al., ECCV 2018), algorithm 1.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError

__all__ = ["LIMITS", "Policy", "Problem"]

LIMITS = ("backwards", "ahead")
"""How a policy is held below the limit. "backwards" (HAQ): when all layers have a level, these fall by one from the
last layer to the first, again and again, until the policy fits. "ahead" (AMC): a layer gets no more than is left if all
layers behind it get the least."""

Policy = tuple[int, ...]
"""Number of the level of each layer, from 0."""

Floats = NDArray[np.float64]
Choose = Callable[[int, Floats], float]
"""From the number of a layer and its state to an action, 0 … 1."""


@dataclass(eq=False)
class Problem:
    """What an agent solves.

    Attributes
    ----------
    costs : of each layer, of each of its levels, ascending; a layer with one level has no choice.
    budget : that the sum of costs may reach.
    score : accuracy of a policy in percent; what was asked for before is not computed again, but counts.
    features : numbers that tell layers apart, (layers, n); scaled to 0 … 1 over the layers.
    limit : one of `LIMITS`.
    heads : layers in front whose levels are alternatives, such as arrays: what they cost does not ascend, and the limit
        leaves them as they are. All fit where the layers behind have the least.
    coupled : cost of a policy where those of its layers do not add up: channels of one layer are inputs of the next. It
        grows with each level; `costs` are then what each layer costs while the others have their highest level.
    best, best_score : so far. tried : policies that fit, and their scores.
    evaluations : policies that were asked for. history : best score after each of them.

    `dataclasses.replace` gives one that is fresh, and knows the scores that were computed for this one.

    Raises
    ------
    InputError
        No policy fits, or costs do not ascend.
    """

    costs: Sequence[Sequence[float]]
    budget: float
    score: Callable[[Policy], float]
    features: Floats
    limit: str = "backwards"
    coupled: Callable[[Policy], float] | None = None
    heads: int = 0
    best: Policy | None = field(default=None, init=False)
    best_score: float = field(default=-np.inf, init=False)
    tried: dict[Policy, float] = field(default_factory=dict, init=False)
    evaluations: int = field(default=0, init=False)
    history: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.score = functools.cache(self.score)
        if any(list(each) != sorted(each) or not each for each in self.costs):
            raise InputError("the costs of a layer's levels do not ascend")
        least = max(self.cost((*head, *(0,) * (len(self) - self.heads))) for head in self.alternatives)
        if least > self.budget:
            raise InputError(f"the least that all layers cost is {least:,.6g}; expected a limit of that or more")
        low, high = self.features.min(0), self.features.max(0)
        self.features = (self.features - low) / np.where(high > low, high - low, 1.0)

    def __len__(self) -> int:
        return len(self.costs)

    @property
    def alternatives(self) -> list[Policy]:
        """All that the layers in front can be; without them, one of no layers."""
        return list(itertools.product(*(range(len(costs)) for costs in self.costs[: self.heads])))

    @property
    def top(self) -> Policy:
        """The highest level of each layer, whether it fits or not."""
        return tuple(len(costs) - 1 for costs in self.costs)

    def cost(self, policy: Sequence[int]) -> float:
        """Of all layers."""
        if self.coupled is not None:
            return self.coupled(tuple(policy))
        return float(sum(costs[level] for costs, level in zip(self.costs, policy, strict=True)))

    def fits(self, policy: Sequence[int]) -> bool:
        """Whether it is below the limit."""
        return self.cost(policy) <= self.budget

    def level(self, layer: int, action: float) -> int:
        """Level of an action: round(-0.5 + action · levels), within the levels (HAQ, equation 2)."""
        count = len(self.costs[layer])
        return int(np.clip(np.rint(-0.5 + action * count), 0, count - 1))

    def state(self, layer: int, chosen: Sequence[int], last: float) -> Floats:
        """Of a layer: its features, what it can cost at most, what is spent, what is left behind, the last action."""
        whole = sum(costs[-1] for costs in self.costs) or 1.0
        spent = sum(costs[level] for costs, level in zip(self.costs, chosen, strict=False))
        rest = sum(costs[-1] for costs in self.costs[layer + 1 :])
        more = [layer / max(1, len(self) - 1), self.costs[layer][-1] / whole, spent / whole, rest / whole, last]
        return np.concatenate([self.features[layer], more])

    def walk(self, choose: Choose) -> tuple[Policy, list[Floats], list[float]]:
        """One pass through the layers: the policy, which fits; of each layer the state, and the action it came to."""
        chosen: list[int] = []
        states: list[Floats] = []
        last = 1.0
        for layer in range(len(self)):
            states.append(self.state(layer, chosen, last))
            level = self.level(layer, choose(layer, states[-1]))
            if self.limit == "ahead":
                level = self._room(layer, level, chosen)
            chosen.append(level)
            last = self.action(layer, level)
        policy = tuple(chosen) if self.limit == "ahead" else self.reduced(chosen)
        return policy, states, [self.action(layer, level) for layer, level in enumerate(policy)]

    def action(self, layer: int, level: int) -> float:
        """The middle of the actions that give a level."""
        return (level + 0.5) / len(self.costs[layer])

    def decode(self, actions: Sequence[float]) -> Policy:
        """The policy of one action a layer."""
        return self.walk(lambda layer, state: float(actions[layer]))[0]

    def reduced(self, policy: Sequence[int], budget: float | None = None) -> Policy:
        """Levels fall by one, from the last layer to the first, until it fits the limit, or another one."""
        limit = self.budget if budget is None else budget
        levels, cost = list(policy), self.cost(policy)
        while cost > limit:
            for layer in reversed(range(self.heads, len(levels))):
                if levels[layer] and cost > limit:
                    levels[layer] -= 1
                    cost = self.cost(levels)
        return tuple(levels)

    def _room(self, layer: int, level: int, chosen: Sequence[int]) -> int:
        """The level, or the highest that leaves room for the least of those behind."""
        rest = (0,) * (len(self) - layer - 1)
        while level and not self.fits((*chosen, level, *rest)):
            level -= 1
        return level

    def evaluate(self, policy: Policy) -> float:
        """Accuracy of a policy that fits; counts as an evaluation. Raises `InputError` if it does not fit."""
        if not self.fits(policy):
            raise InputError(f"a policy costs {self.cost(policy):,.6g}, above the limit of {self.budget:,.6g}")
        found = self.tried[policy] = self.measure(policy)
        if found > self.best_score:
            self.best, self.best_score = policy, found
        return found

    def measure(self, policy: Policy) -> float:
        """Accuracy of any policy, also of one that does not fit, and so is never the best; counts as an evaluation."""
        self.evaluations += 1
        found = self.score(policy)
        self.history.append(max(self.best_score, found if self.fits(policy) else -np.inf))
        return found
