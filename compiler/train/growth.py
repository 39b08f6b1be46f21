"""Networks that are sparse from their first step: a mask that stays, or whose weights are dropped and grown elsewhere.

Every so many steps the smallest magnitudes of a layer are dropped and as many weights come back as zeros in other
places: where the loss has its steepest gradients ("rigl"), or anywhere ("set"); "static" keeps the first, random mask.
The number of weights of a layer never changes. The masks are those of `prune`, so that what follows finds them.

Sources: RigL: Rigging the Lottery: Making All Tickets Winners (Evci et al., ICML 2020), section 3, with its schedule
and the distribution ERK; SET and the distribution ER: Scalable training of artificial neural networks with adaptive
sparse connectivity inspired by network science (Mocanu et al., Nature Communications 2018).
What differs: the optimizer's step is taken in steps that change the mask as well, before it; SET drops the smallest
magnitudes, not a share of the positive and of the negative weights, and its new weights are zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compiler.errors import ModelError
from compiler.train import prune
from compiler.train.layers import Site
from compiler.train.loop import Hook, seed_of

__all__ = ["ALPHA", "DISTRIBUTIONS", "END", "EVERY", "METHODS", "Growth", "densities", "fraction", "regrow", "start"]

METHODS = ("rigl", "set", "static")
DISTRIBUTIONS = ("erk", "er", "uniform")

ALPHA, EVERY, END = 0.3, 100, 0.75
"""RigL's defaults: share of a layer's weights that moves at first, steps between moves, part of training with moves."""


def densities(sites: Sequence[Site], density: float, distribution: str = "erk") -> dict[str, float]:
    """Density of each weight, so that `density` of all together is left.

    Parameters
    ----------
    distribution : "uniform": the same for all. "er": in proportion to (outputs + inputs) / (outputs · inputs); "erk":
        with the sides of a kernel in sum and product. Layers that would be above 1 are dense, and the rest has less.

    Raises
    ------
    ModelError
        The module has no weights.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density is {density}; expected above 0 and at most 1")
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"distribution is {distribution!r}; expected one of {', '.join(DISTRIBUTIONS)}")
    if not sites:
        raise ModelError("no weights are chosen that could be sparse")
    if distribution == "uniform":
        return dict.fromkeys((site.key for site in sites), density)
    sizes = {site.key: site.value.numel() for site in sites}
    raw = {}
    for site in sites:
        sides = site.value.shape if distribution == "erk" else site.value.shape[:2]
        raw[site.key] = sum(sides) / math.prod(sides)
    dense: set[str] = set()
    while True:
        left = density * sum(sizes.values()) - sum(sizes[key] for key in dense)
        rest = [key for key in sizes if key not in dense]
        scale = left / sum(raw[key] * sizes[key] for key in rest) if rest else 0.0
        above = {key for key in rest if raw[key] * scale > 1}
        if not above:
            return {key: 1.0 if key in dense else raw[key] * scale for key in sizes}
        dense |= above


def start(sites: Sequence[Site], density: dict[str, float], seed: Sequence[int]) -> None:
    """Give every weight a random mask of its density (at least one weight), whatever mask it had."""
    for number, site in enumerate(sites):
        mask = prune.attach(site.module, site.name).mask
        generator = torch.Generator().manual_seed(seed_of(*seed, number))
        count = max(1, round(density[site.key] * mask.numel()))
        chosen = torch.randperm(mask.numel(), generator=generator)[:count]
        kept = torch.zeros(mask.numel(), dtype=torch.bool)
        kept[chosen] = True
        with torch.no_grad():
            mask.copy_(kept.view(mask.shape))
            prune.trained(site.module, site.name).mul_(mask)


def fraction(step: int, total: int, alpha: float = ALPHA, end: float = END) -> float:
    """Share of the weights that moves: from `alpha` along half a cosine to zero at `end` of `total` steps."""
    last = end * total
    return alpha / 2 * (1 + math.cos(math.pi * step / last)) if step < last else 0.0


def regrow(value: Tensor, mask: Tensor, count: int, score: Tensor) -> Tensor:
    """A mask without the `count` smallest magnitudes that `mask` keeps, and with the `count` best scores elsewhere.

    A weight that was just dropped may come back, as in RigL; equals are taken in the order in which they stand.
    """
    flat, new = mask.flatten(), mask.flatten().clone()
    if count == 0:
        return mask.clone()
    kept = torch.where(flat, value.flatten().abs(), torch.inf)
    new[torch.sort(kept, stable=True).indices[:count]] = False
    wanted = torch.where(new, -torch.inf, score.flatten())
    new[torch.sort(wanted, descending=True, stable=True).indices[:count]] = True
    return new.view(mask.shape)


class Growth(Hook):
    """Moves weights while a network trains.

    Parameters
    ----------
    method : one of `METHODS`.
    seed : numbers that decide, with the step, what "set" draws.
    every, alpha, end : steps between moves, and see `fraction`.
    """

    def __init__(
        self, sites: Sequence[Site], method: str, seed: Sequence[int], *, every: int = EVERY, alpha: float = ALPHA,
        end: float = END,
    ) -> None:  # fmt: skip
        if method not in METHODS:
            raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
        self.sites, self.method, self.seed = list(sites), method, tuple(seed)
        self.every, self.alpha, self.end = every, alpha, end
        self.optimizer: torch.optim.Optimizer | None = None
        self.gradients: dict[str, Tensor] = {}
        self._watching: list[Any] = []

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer whose state of grown weights is set to zero."""
        self.optimizer = optimizer

    def moves(self, step: int, total: int) -> bool:
        """Whether weights move after this step."""
        return self.method != "static" and step > 0 and step % self.every == 0 and step < self.end * total

    def before_step(self, step: int, total: int) -> None:
        """Watch for the gradients of what the layers compute with, which masks do not take away."""
        if self.method == "rigl" and self.moves(step, total):
            for site in self.sites:
                mask = prune.attach(site.module, site.name)
                self._watching.append(mask.register_forward_hook(self._watch(site.key)))

    def after_backward(self, step: int, total: int) -> None:
        """Watch no more."""
        for handle in self._watching:
            handle.remove()
        self._watching.clear()

    def after_step(self, step: int, total: int) -> None:
        """Drop and grow."""
        if not self.moves(step, total):
            return
        share = fraction(step, total, self.alpha, self.end)
        with torch.no_grad():
            for number, site in enumerate(self.sites):
                self._move(site, share, number, step)
        self.gradients.clear()

    def _watch(self, key: str) -> Any:
        def seen(gradient: Tensor) -> None:
            before = self.gradients.get(key)
            self.gradients[key] = gradient.detach().clone() if before is None else before + gradient

        def watch(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if output.requires_grad:
                output.register_hook(seen)  # type: ignore[no-untyped-call]

        return watch

    def _move(self, site: Site, share: float, number: int, step: int) -> None:
        mask = prune.attach(site.module, site.name).mask
        original = prune.trained(site.module, site.name)
        if self.method == "rigl":
            if site.key not in self.gradients:
                return  # the layer took no part in this step
            score = self.gradients[site.key].abs()
        else:
            generator = torch.Generator().manual_seed(seed_of(*self.seed, step, number))
            score = torch.rand(mask.shape, generator=generator).to(mask.device)
        kept = int(mask.sum())
        count = min(int(share * kept), mask.numel() - kept)
        new = regrow(original, mask, count, score)
        stayed = new & mask
        mask.copy_(new)
        original.mul_(stayed)
        state = {} if self.optimizer is None else self.optimizer.state.get(original, {})
        for value in state.values():
            if isinstance(value, Tensor) and value.shape == original.shape:
                value.mul_(stayed)
