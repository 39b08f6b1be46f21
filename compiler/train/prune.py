"""Magnitude pruning: the smallest weights are switched off by a mask and the rest is trained on.

The mask is a buffer of a parametrization (`torch.nn.utils.parametrize`), so it is part of the module's state:
it is saved, reloaded, trained under and exported with the module, and no training step can bring a pruned
weight back.

Source: Deep Compression (Han et al., ICLR 2016), section 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compiler.errors import ModelError
from compiler.train.layers import Site, named_values, weights
from compiler.train.parametrized import finite, refuse_parametrized, register
from compiler.train.select import Patterns

__all__ = ["Mask", "attach", "find", "prune", "prune_sites", "trained"]


class Mask(nn.Module):
    """Parametrization: weight · mask, with `mask` a bool buffer of the weight's shape (True: kept)."""

    kind = "mask"
    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(weight.shape, dtype=torch.bool, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with pruned places zero."""
        return weight * self.mask

    def describe(self) -> dict[str, str]:
        """What `structure.rebuild` needs to make the same parametrization."""
        return {"kind": self.kind}


def attach(module: nn.Module, name: str = "weight") -> Mask:
    """Put parameter `name` of one layer under a mask that keeps everything; one that is there already stays.

    Layers that are tied to it have the same mask. The parameter object stays, so optimizers that hold it go on.

    Raises
    ------
    ModelError
        Something else parametrizes it, such as shared weights.
    """
    mask = find(module, name)
    if mask is None:
        if not isinstance(getattr(module, name, None), Tensor):
            raise ModelError(
                f"{type(module).__name__} has no parameter {name}; to prune all layers of a network use prune.prune"
            )
        mask = Mask(getattr(module, name))
        register(module, name, mask)
    return mask


def find(module: nn.Module, name: str = "weight") -> Mask | None:
    """The mask of parameter `name`, if it has one."""
    if not parametrize.is_parametrized(module, name):
        return None
    chain = cast(Sequence[nn.Module], getattr(module.parametrizations, name))
    return next((step for step in chain if isinstance(step, Mask)), None)


def trained(module: nn.Module, name: str = "weight") -> nn.Parameter:
    """What is trained of parameter `name`: under a mask the weights in front of it, else the parameter."""
    if find(module, name) is None:
        return cast(nn.Parameter, getattr(module, name))
    return cast(nn.Parameter, getattr(module.parametrizations, name).original)


def prune(
    module: nn.Module,
    density: float | Mapping[str, float],
    only: Patterns | None = None,
    ignore: Patterns = (),
    *,
    scope: str = "layer",
) -> None:
    """Keep the largest magnitudes of a module's weights, at least one a layer, and mask the rest.

    Pruned weights stay pruned: a density above the present one changes nothing. Equal magnitudes are kept in the
    order in which they stand.

    Parameters
    ----------
    module : a network, or one layer.
    density : share of the weights that is kept, 0 < density <= 1; or one for each of the chosen weights, by key.
    only, ignore : patterns of the weights that are pruned, or left as they are, see `select.chosen`.
    scope : "layer": every layer is pruned to the density. "global": one threshold for all, so that `density` of the
        chosen weights together is left; a layer may then lose all of its own.

    Raises
    ------
    ModelError
        A pattern or key matches no weight, a weight is missing, is not finite, or is shared.
    """
    if scope not in ("layer", "global"):
        raise ValueError(f"scope is {scope!r}; expected layer or global")
    sites = list(weights(module, only, ignore))
    if not sites:
        raise ModelError(f"{type(module).__name__} has no weights that can be pruned")
    each = not isinstance(density, Mapping) and scope == "layer"
    prune_sites(sites, dict.fromkeys((site.key for site in sites), cast(float, density)) if each else density)


def prune_sites(sites: Sequence[Site], density: float | Mapping[str, float]) -> None:
    """Prune several parameters: each to its own density, or all by one threshold.

    Parameters
    ----------
    density : site key → share of its weights that is kept; or one share of all weights together, whose least
        magnitude is then the threshold of every layer. Above 0, at most 1.

    Raises
    ------
    ModelError
        As `prune`.
    """
    shares = list(density.values()) if isinstance(density, Mapping) else [density]
    for share in shares:
        if not 0 < share <= 1:
            raise ValueError(f"density is {share}; expected above 0 and at most 1")
    if isinstance(density, Mapping):
        named_values(sites, density, "density")
    for site in sites:
        finite(site.module, site.name, site.key)
        if find(site.module, site.name) is None:
            refuse_parametrized(site.module, site.name)
    with torch.no_grad():
        if isinstance(density, Mapping):
            for site in sites:
                _prune_together([site], density[site.key])
        else:
            _prune_together(sites, density)


def _prune_together(sites: Sequence[Site], density: float) -> None:
    """Keep the largest magnitudes of all `sites` as if they were one vector."""
    masks = [attach(site.module, site.name) for site in sites]
    magnitudes = [site.value.abs() for site in sites]
    every = torch.cat([magnitude.flatten() for magnitude in magnitudes])
    count = max(1, round(density * every.numel()))
    kept = torch.zeros(every.numel(), dtype=torch.bool, device=every.device)
    kept[_largest(every, count)] = True
    parts = torch.split(kept, [magnitude.numel() for magnitude in magnitudes])
    for site, mask, part in zip(sites, masks, parts, strict=True):
        mask.mask &= part.view(mask.mask.shape)
        # What lies under the mask no longer matters; zero keeps saved states free of leftovers.
        original = trained(site.module, site.name)
        original.mul_(mask.mask)


def _largest(values: Tensor, count: int) -> Tensor:
    """Places of the `count` largest values, the first ones of equals; without sorting what is far from the edge."""
    edge = values.kthvalue(values.numel() - count + 1).values
    above = torch.nonzero(values > edge).flatten()
    equal = torch.nonzero(values == edge).flatten()[: count - len(above)]
    return torch.cat((above, equal))
