"""L0 regularization: every weight has a gate that training opens or shuts, and pays for what is likely to be open.

A gate is a random number in 0 … 1 that is exactly 0 or exactly 1 with some probability (a hard concrete variable):

    s = sigmoid((log u - log(1 - u) + log alpha) / BETA),  z = min(1, max(0, s · (ZETA - GAMMA) + GAMMA))

with u uniform in 0 … 1. While a network trains the weight is weight · z, drawn anew whenever the layer asks for it; in
evaluation mode z is min(1, max(0, sigmoid(log alpha) · (ZETA - GAMMA) + GAMMA)). The penalty is the expected number of
weights whose gate is not zero, which is a smooth function of log alpha.

What is trained is a score with log alpha = pace · score: gates have further to go than weights, and an optimizer such
as Adam moves all that it trains by about the same length. Scores and masks are state of the module.

Source: Learning Sparse Neural Networks through L0 Regularization (Louizos et al., ICLR 2018), equations 10 to 13, with
its constants. What differs: one gate for each weight in all layers (the paper has groups of them in its networks), and
`pace`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compiler.train import prune
from compiler.train.layers import Site
from compiler.train.loop import Hook
from compiler.train.optimizers import changed
from compiler.train.parametrized import finite, register, write_out

__all__ = ["BETA", "GAMMA", "KEEP", "L0", "PACE", "ZETA", "Gate", "attach", "close", "find"]

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
"""Temperature, and the interval that is cut to 0 … 1, as published."""

KEEP, PACE = 0.9, 30.0
"""Probability that a gate is not zero at first; how much further log alpha moves than a weight."""

_SHIFT = BETA * math.log(-GAMMA / ZETA)


class Gate(nn.Module):
    """Parametrization: weight · gate, with a trained score for each weight.

    Parameters
    ----------
    weight : whose shape and device the gates have.
    mask : bool, False where a weight stays zero for good; None: nowhere.
    keep : probability that a gate is not zero at first, above 0 and below 1.
    pace : log alpha over score, above 0.
    """

    kind = "gate"
    mask: Tensor
    pace: Tensor

    def __init__(self, weight: Tensor, mask: Tensor | None = None, keep: float = KEEP, pace: float = PACE) -> None:
        super().__init__()
        if not 0 < keep < 1 or not pace > 0:
            raise ValueError(f"keep is {keep} and pace {pace}; expected 0 < keep < 1 and pace above 0")
        first = (math.log(keep / (1 - keep)) + _SHIFT) / pace
        self.score = nn.Parameter(torch.full_like(weight, first))
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool) if mask is None else mask.clone())
        self.register_buffer("pace", torch.tensor(pace, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight times its gate, drawn while training, the middle one otherwise."""
        return weight * self.sample() if self.training else weight * self.middle()

    def sample(self) -> Tensor:
        """Gates as they are drawn in a step."""
        u = torch.rand_like(self.score).clamp(torch.finfo(self.score.dtype).tiny, 1 - torch.finfo(torch.float32).eps)
        return self._cut((u.log() - (1 - u).log() + self.pace * self.score) / BETA)

    def middle(self) -> Tensor:
        """Gates as evaluation has them."""
        return self._cut(self.pace * self.score)

    def probability(self) -> Tensor:
        """That a gate is not zero; 0 under the mask."""
        return torch.sigmoid(self.pace * self.score - _SHIFT) * self.mask

    def describe(self) -> dict[str, str]:
        """What `structure.rebuild` needs to make the same parametrization."""
        return {"kind": self.kind}

    def _cut(self, logit: Tensor) -> Tensor:
        return (torch.sigmoid(logit) * (ZETA - GAMMA) + GAMMA).clamp(0, 1) * self.mask


def find(module: nn.Module, name: str = "weight") -> Gate | None:
    """The gates of parameter `name`, if it has any."""
    if not parametrize.is_parametrized(module, name):
        return None
    chain = cast(Sequence[nn.Module], getattr(module.parametrizations, name))
    return next((step for step in chain if isinstance(step, Gate)), None)


def attach(sites: Sequence[Site], keep: float = KEEP, pace: float = PACE) -> None:
    """Put gates in front of weights; what a mask has set to zero stays zero.

    Optimizers that hold the weights take the scores in before their next step.

    Raises
    ------
    ModelError
        A weight is not finite, or something else than a mask parametrizes it.
    """
    for site in sites:
        finite(site.module, site.name, site.key)
        masked = prune.find(site.module, site.name)
        mask = None if masked is None else masked.mask
        if masked is not None:
            write_out(site.module, site.name)
        weight = cast(nn.Parameter, getattr(site.module, site.name))
        gate = Gate(weight.detach(), mask, keep, pace)
        register(site.module, site.name, gate)
        changed(weight, beside=(gate.score,))


def close(sites: Sequence[Site]) -> None:
    """Put masks in the place of gates: weights as evaluation has them, and zeros that stay."""
    for site in sites:
        gate = find(site.module, site.name)
        if gate is None:
            continue
        gate.eval()  # so that what is written out is not drawn
        with torch.no_grad():
            kept = gate.middle() > 0
            write_out(site.module, site.name)
            prune.attach(site.module, site.name).mask.copy_(kept)


class L0(Hook):
    """Strength · expected number of weights whose gate is not zero."""

    def __init__(self, sites: Sequence[Site], strength: float) -> None:
        if not strength >= 0:
            raise ValueError(f"strength is {strength}; expected a number from 0")
        self.sites, self.strength = list(sites), strength

    def penalty(self) -> Tensor | None:
        """The sum, times strength; nothing where no weight has a gate."""
        gates: list[Any] = [find(site.module, site.name) for site in self.sites]
        sums = [gate.probability().sum() for gate in gates if gate is not None]
        return self.strength * torch.stack(sums).sum() if sums else None
