"""Magnitude pruning: the smallest weights of a layer are switched off by a mask and the rest is trained on.

The mask is a buffer of a parametrization (`torch.nn.utils.parametrize`), so it is part of the module's state:
it is saved, reloaded, trained under and exported with the module, and no training step can bring a pruned
weight back.

Source: Deep Compression (Han et al., ICLR 2016), section 2; schedule: To prune, or not to prune
(Zhu and Gupta, 2017), equation 1.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["Mask", "attach", "cubic", "prune"]


class Mask(nn.Module):
    """Parametrization: weight · mask, with `mask` a bool buffer of the weight's shape (True: kept)."""

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(weight.shape, dtype=torch.bool, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with pruned places zero."""
        return weight * self.mask


def attach(module: nn.Module, name: str = "weight") -> Mask:
    """Put parameter `name` of `module` under a mask that keeps everything; a mask that is there already stays."""
    existing = _find(module, name)
    if existing is not None:
        return existing
    mask = Mask(getattr(module, name))
    parametrize.register_parametrization(module, name, mask)
    return mask


def prune(module: nn.Module, density: float, name: str = "weight") -> None:
    """Keep the largest magnitudes of parameter `name`, `density` of all of them (at least one), and mask the rest.

    Pruned weights stay pruned: a density above the present one changes nothing. Equal magnitudes are kept in
    the order in which they stand.

    Parameters
    ----------
    density : share of the weights that is kept, 0 < density <= 1.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density is {density}; expected above 0 and at most 1")
    mask = attach(module, name)
    with torch.no_grad():
        weight = cast(Tensor, getattr(module, name))
        count = max(1, round(density * weight.numel()))
        order = torch.argsort(weight.abs().flatten(), descending=True, stable=True)
        kept = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
        kept[order[:count]] = True
        mask.mask &= kept.view(weight.shape)
        # What lies under the mask no longer matters; zero keeps saved states free of leftovers.
        original = cast(Tensor, getattr(module.parametrizations, name).original)
        original.mul_(mask.mask)


def cubic(progress: float, start: float, final: float) -> float:
    """Density at `progress` 0 … 1 of the ramp: falls fast while much is redundant, slowly at the end."""
    left = 1.0 - min(max(progress, 0.0), 1.0)
    return final + (start - final) * left**3


def _find(module: nn.Module, name: str) -> Mask | None:
    if not parametrize.is_parametrized(module, name):
        return None
    chain = getattr(module.parametrizations, name)
    return next((step for step in chain if isinstance(step, Mask)), None)
