"""How much each layer minds pruning: one layer at a time is pruned without retraining and the accuracy measured.

From the curves comes a proposal of densities: every layer is pruned as far as the same loss of accuracy allows, and
that loss is chosen so that the wanted share of all weights is left.

Source: Learning both Weights and Connections (Han et al., NIPS 2015), section 4.3 and figure 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from compiler.train.layers import weights

__all__ = ["GRID", "propose", "scan"]

GRID = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Densities that a scan tries, ascending."""

_LEAST = 0.005


def scan(
    module: nn.Module, measure: Callable[[], float], densities: Sequence[float] = GRID
) -> dict[str, list[tuple[float, float]]]:
    """Site key → (density, accuracy) for each density, with every other layer as it is. The module is left as it was.

    Parameters
    ----------
    measure : accuracy of `module` on validation data, 0 … 1.
    densities : shares of a layer's weights that are kept, ascending, the last 1.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    whole = measure()
    for site in weights(module):
        # Whatever parametrizes the weight: the pruned value stands in for it while the accuracy is measured.
        value = site.value.detach()
        order = torch.argsort(value.abs().flatten(), descending=True, stable=True)
        curve = []
        for density in densities:
            kept = torch.zeros(value.numel(), dtype=torch.bool)
            kept[order[: max(1, round(density * value.numel()))]] = True
            with _Override(site.module, site.name, value * kept.view(value.shape)):
                curve.append((float(density), whole if density == 1 else measure()))
        curves[site.key] = curve
    return curves


def propose(
    curves: Mapping[str, Sequence[tuple[float, float]]], counts: Mapping[str, int], target: float
) -> dict[str, float]:
    """Densities that keep `target` of all weights and let every layer lose the same accuracy.

    Parameters
    ----------
    curves : as `scan` gives them.
    counts : site key → number of weights.
    target : share of all weights, above 0 and at most 1.

    Notes
    -----
    Between the measured densities the accuracy is interpolated over the logarithm of the density. Below the least
    measured one it cannot be known; when every layer is there, all shrink in proportion. Less than `target` is kept
    where layers lose nothing by it.
    """
    total = sum(counts.values())
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        left = sum(_least_density(curves[key], middle) * counts[key] for key in counts)
        low, high = (middle, high) if left > target * total else (low, middle)
    found = {key: _least_density(curves[key], high) for key in counts}
    left = sum(found[key] * counts[key] for key in counts) / total
    factor = min(1.0, target / left)
    return {key: round(max(value * factor, min(_LEAST, value)), 6) for key, value in found.items()}


def _least_density(curve: Sequence[tuple[float, float]], loss: float) -> float:
    """Least density at which the accuracy is at most `loss` below that of density 1."""
    densities = np.log([density for density, _ in curve])
    # A curve with bumps is read from above: the first fall counts.
    accuracy = np.minimum.accumulate([value for _, value in curve][::-1])[::-1]
    floor = accuracy[-1] - loss
    if accuracy[0] >= floor:
        return float(np.exp(densities[0]))
    above = int(np.argmax(accuracy >= floor))
    below = above - 1
    share = (floor - accuracy[below]) / (accuracy[above] - accuracy[below])
    return float(np.exp(densities[below] + share * (densities[above] - densities[below])))


class _Override:
    """Lets a layer compute with another value of one parameter, plain or parametrized, for the time of a block."""

    def __init__(self, module: nn.Module, name: str, value: torch.Tensor) -> None:
        self.module, self.name, self.value = module, name, value
        self.chain: nn.Module | None = None
        if parametrize.is_parametrized(module, name):
            self.chain = module.get_submodule(f"parametrizations.{name}")

    def __enter__(self) -> None:
        if self.chain is None:
            parameter = getattr(self.module, self.name)
            self.saved = parameter.detach().clone()
            with torch.no_grad():
                parameter.copy_(self.value)
        else:
            self.handle = self.chain.register_forward_hook(lambda *_: self.value)

    def __exit__(self, *_: object) -> None:
        if self.chain is None:
            with torch.no_grad():
                getattr(self.module, self.name).copy_(self.saved)
        else:
            self.handle.remove()
