"""Structured sparsity: a penalty that takes whole groups of weights to zero, so that structure can be removed.

The penalty is the sum over all groups of lambda_g · ||w_g||, the norm itself and not its square: its pull on a group
does not fade as the group gets small, so groups end at zero. At zero the gradient of a norm is taken as zero (the
least of its subgradients). Weights below a threshold are set to zero after each step, and groups that are all zero are
frozen by masks (see `prune`), so that training that follows keeps the structure.

A batch normalization undoes the scale of the weights before it: they can shrink without any effect. Where one follows,
its own scale belongs to the group as well, which the paper does not have.

Source: Learning Structured Sparsity in Deep Neural Networks (Wen et al., NIPS 2016), equations 1 to 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compiler.train import prune
from compiler.train.groups import SHAPES, Partition, by_filter
from compiler.train.layers import Site, weights
from compiler.train.loop import Hook
from compiler.train.norms import NORMS, norms_after
from compiler.train.select import Patterns

__all__ = [
    "NORMS",
    "THRESHOLD",
    "Regularizer",
    "Term",
    "coverage",
    "freeze",
    "freeze_in",
    "norms_after",
    "original",
    "partition",
    "penalty",
    "prepare",
    "sites_of",
    "switch_off",
    "term",
    "terms",
    "threshold",
]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

THRESHOLD = 1e-4
"""Magnitude below which a weight is set to zero after a step, as the authors' code has it."""


@dataclass(frozen=True, eq=False)
class Term:
    """One sum over groups of the penalty. A group may have parts in several parameters.

    Attributes
    ----------
    parts : parameters with the groups of each; group number g of the term is number g of all of them together.
    strength : lambda, one for all groups or float (groups,).
    series : the parts of a group multiply one another, so that one which is zero makes the group useless; else a group
        is dead when all of it is zero.
    name : what reports call it.
    """

    parts: tuple[tuple[Site, Partition], ...]
    strength: float | Tensor
    series: bool = False
    name: str = "groups"

    def __post_init__(self) -> None:
        counts = {partition.count for _, partition in self.parts}
        if len(counts) != 1:
            raise ValueError(f"the parts of a term have {sorted(counts)} groups; expected as many each")
        for site, partition in self.parts:
            if tuple(site.value.shape) != partition.shape:
                raise ValueError(f"{site.key} has shape {tuple(site.value.shape)}; its groups have {partition.shape}")

    @property
    def count(self) -> int:
        """Number of groups."""
        return self.parts[0][1].count

    def norms(self) -> Tensor:
        """L2 norm of each group, float (count,); its gradient is zero where the group is zero."""
        partitions = tuple(partition for _, partition in self.parts)
        values = (site.value for site, _ in self.parts)
        return cast(Tensor, _Norms.apply(partitions, *values))  # type: ignore[no-untyped-call]

    def dead(self) -> Tensor:
        """Which groups are all zero (in series: one part of which is), bool (count,)."""
        zero = torch.stack([partition.nonzeros(site.value.detach()) == 0 for site, partition in self.parts])
        return zero.any(0) if self.series else zero.all(0)

    def sizes(self) -> Tensor:
        """Number of weights of each group, float (count,)."""
        return sum((partition.sizes() for _, partition in self.parts), torch.zeros(()))


class _Norms(torch.autograd.Function):
    """Norms of groups, with their gradient said outright: twice as fast as by the rules for squares and sums."""

    @staticmethod
    def forward(ctx: Any, partitions: tuple[Partition, ...], *values: Tensor) -> Tensor:
        squares = [partition.squares(value) for partition, value in zip(partitions, values, strict=True)]
        norms = torch.stack(squares).sum(0).sqrt() if len(squares) > 1 else squares[0].sqrt()
        ctx.partitions = partitions
        ctx.save_for_backward(norms, *values)
        return norms

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        norms, *values = ctx.saved_tensors
        alive = norms > 0
        factors = torch.where(alive, gradients[0] / torch.where(alive, norms, torch.ones_like(norms)), 0.0)
        parts = zip(ctx.partitions, values, strict=True)
        return None, *(value * partition.spread(factors, 0.0) for partition, value in parts)


def term(site: Site, partition: Partition, strength: float | Tensor, norm: nn.Module | None = None) -> Term:
    """A term over the groups of one parameter.

    norm : the batch normalization that follows, if the groups are filters: its scale is then part of them.
    """
    if norm is None:
        return Term(((site, partition),), strength, name=site.key)
    scale = Site(f"{site.key}.norm", norm, "weight")
    return Term(((site, partition), (scale, by_filter(scale.value.shape))), strength, series=True, name=site.key)


def terms(
    module: nn.Module, by: str, strength: float, only: Patterns | None = None, ignore: Patterns = ()
) -> list[Term]:
    """A term for each of a module's weights.

    Parameters
    ----------
    by : one of `groups.SHAPES`: "filter", "channel", "shape", "element", "whole".
    only, ignore : patterns of the weights that have one, or have none, see `select.chosen`.

    Raises
    ------
    ModelError
        A pattern matches no weight.
    """
    return [term(site, partition(site, by), strength) for site in weights(module, only, ignore)]


def partition(site: Site, by: str) -> Partition:
    """Groups of a weight by their name in `groups.SHAPES`; transposed convolutions have inputs before outputs."""
    if isinstance(site.module, _TRANSPOSED):
        by = {"filter": "channel", "channel": "filter"}.get(by, by)
    if by not in SHAPES:
        raise ValueError(f"by is {by!r}; expected one of {', '.join(SHAPES)}")
    return SHAPES[by](site.value.shape)


def penalty(terms: Iterable[Term]) -> Tensor:
    """What the terms add to the loss: sum of lambda_g · ||w_g||."""
    with parametrize.cached():  # masks are applied once, however many terms a parameter has
        return sum(((each.norms() * each.strength).sum() for each in terms), torch.zeros(()))


def coverage(terms: Iterable[Term], site: Site) -> Tensor:
    """How many groups of `terms` hold each weight of a parameter, int64 of its shape."""
    total = torch.zeros(site.value.shape, dtype=torch.int64)
    for each in terms:
        for other, partition in each.parts:
            if other.module is site.module and other.name == site.name:
                total = total + partition.cover()
    return total


def sites_of(terms: Iterable[Term]) -> list[Site]:
    """The parameters of some terms, each once, in order."""
    found = {(id(site.module), site.name): site for each in terms for site, _ in each.parts}
    return list(found.values())


def threshold(terms: Iterable[Term], least: float = THRESHOLD) -> None:
    """Set weights of a magnitude below `least` to zero, in place."""
    with torch.no_grad():
        for site in sites_of(terms):
            value = original(site.module, site.name)
            value.mul_(value.abs() >= least)


def prepare(terms: Iterable[Term], norms: Mapping[nn.Module, nn.Module] | None = None) -> None:
    """Put masks, which keep everything yet, on all that `freeze` may mask."""
    for site in sites_of(terms):
        prune.attach(site.module, site.name)
        for owner, name in _with_output(site.module, (norms or {}).get(site.module)):
            prune.attach(owner, name)


def freeze(terms: Sequence[Term], norms: Mapping[nn.Module, nn.Module] | None = None) -> None:
    """Mask every group that is dead, and switch off outputs of which no weight is left.

    Parameters
    ----------
    norms : layer → the batch normalization of its output. Without it an output under one is left a constant, which
        `removal` cannot take away below a convolution that pads: see `freeze_in`.
    """
    for each in terms:
        dead = each.dead()
        if bool(dead.any()):
            for site, partition in each.parts:
                _mask(site.module, site.name, ~partition.spread(dead, False))
    for site in sites_of(terms):
        if site.name == "weight" and not isinstance(site.module, (*NORMS, *_TRANSPOSED)):
            switch_off(site.module, (norms or {}).get(site.module))


def freeze_in(module: nn.Module, terms: Sequence[Term], inputs: Tensor) -> None:
    """As `freeze`, with the batch normalizations found by running `module` on a few samples."""
    found = norms_after(module, inputs)
    freeze(terms, {module.get_submodule(layer): module.get_submodule(norm) for layer, norm in found.items()})


def switch_off(layer: nn.Module, norm: nn.Module | None = None) -> Tensor:
    """Make outputs of which every weight is zero give exactly zero, for good: bias, and scale and shift after it.

    What is left of such an output is a constant. It is masked, so that the output can be removed without any
    change of the function. Returns which outputs are off, bool (outputs,).
    """
    weight = cast(Tensor, layer.weight).detach()
    dead = weight.flatten(1).abs().amax(1) == 0
    if bool(dead.any()):
        for owner, name in _with_output(layer, norm):
            _mask(owner, name, ~dead)
    return dead


class Regularizer(Hook):
    """Group lasso while a network trains: penalty, threshold after steps, and dead groups frozen after epochs.

    Parameters
    ----------
    least : see `threshold`.
    norms : see `freeze`.
    dead : is told after each epoch, name of the term → dead groups.
    """

    clipped = False  # as the authors' code: the penalty's pull is the same however steep the loss is

    def __init__(
        self,
        terms: Sequence[Term],
        least: float = THRESHOLD,
        norms: Mapping[nn.Module, nn.Module] | None = None,
        dead: MutableMapping[str, int] | None = None,
    ) -> None:
        self.terms, self.least, self.norms, self.dead = terms, least, norms, dead

    def penalty(self) -> Tensor:
        """Of the present weights."""
        return penalty(self.terms)

    def after_step(self, step: int, total: int) -> None:
        """Threshold."""
        threshold(self.terms, self.least)

    def after_epoch(self, epoch: int) -> None:
        """Freeze and count what is dead."""
        freeze(self.terms, self.norms)
        if self.dead is not None:
            self.dead.update({each.name: int(each.dead().sum()) for each in self.terms})


def _with_output(layer: nn.Module, norm: nn.Module | None) -> list[tuple[nn.Module, str]]:
    """The parameters, besides the weight, that an output of a layer has to itself."""
    if isinstance(layer, NORMS):
        return []
    named = [(layer, "bias"), *([] if norm is None else [(norm, "weight"), (norm, "bias")])]
    return [(owner, name) for owner, name in named if getattr(owner, name, None) is not None]


def _mask(module: nn.Module, name: str, keep: Tensor) -> None:
    """Mask all but `keep`, and let what lies under the mask be zero."""
    prune.attach(module, name).mask &= keep
    with torch.no_grad():
        original(module, name).mul_(keep)


def original(module: nn.Module, name: str) -> Tensor:
    """The tensor that is trained, below a mask if there is one."""
    if parametrize.is_parametrized(module, name):
        found: Tensor = getattr(module.parametrizations, name).original
        return found
    value: Tensor = getattr(module, name)
    return value.data
