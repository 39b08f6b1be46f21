"""A trained network in variants: each layer pruned or shared to each of its levels beforehand, then put together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compiler.experiments.policy.problem import Policy
from compiler.graph.ir import Graph
from compiler.source import from_module
from compiler.train import cluster
from compiler.train.costs import layer_costs
from compiler.train.data import Split
from compiler.train.images import Images, accuracy
from compiler.train.layers import Site, weights

__all__ = [
    "MARK", "Change", "Variants", "example", "features", "graph_of", "gridded", "marked", "pruned", "pruned_copy",
    "shared",
]  # fmt: skip

MARK = 1 << 13
"""Parts of a weight that `marked` counts in: far above the rounding of float32, for hundreds of weights."""

Change = Callable[[Tensor, float], Tensor]
"""From a weight and a level to what is left of it."""


def shared(weight: Tensor, bits: float) -> Tensor:
    """The weight with its nonzero values shared: the optimum of 2**bits - 1 values, or for 7 and 8 bits near to it.

    Many values are found from quantiles, since the optimum of 255 takes seconds and moves no sample.
    """
    array = weight.detach().numpy()
    values = array[array != 0]
    if not len(values):
        return weight.detach().clone()
    count = (1 << int(bits)) - 1
    points = (
        cluster.centroids(values, count) if bits <= 6 else cluster.centroids(values, count, "density", iterations=10)
    )
    found = array.copy()
    found[array != 0] = points[cluster.nearest(values, points)]
    return torch.from_numpy(found)


def gridded(weight: Tensor, bits: float) -> Tensor:
    """The weight on a uniform grid of 2**bits levels, zero among them: what is small becomes zero."""
    array = weight.detach().numpy()
    values = array[array != 0]
    if not len(values):
        return weight.detach().clone()
    step, levels = cluster.grid(values, int(bits), zero=True)
    points = step * np.sort(np.append(levels, 0.0))
    return torch.from_numpy(points[cluster.nearest(array, points)].astype(np.float32))


def pruned(weight: Tensor, density: float) -> Tensor:
    """The weight with the share `density` of its elements left, those of the largest magnitude."""
    flat = weight.detach().flatten()
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[flat.abs().topk(max(1, round(density * flat.numel()))).indices] = True
    return torch.where(kept, flat, torch.zeros_like(flat)).view(weight.shape)


def pruned_copy(module: nn.Module, densities: Mapping[str, float]) -> nn.Module:
    """A copy in evaluation mode whose weights, by their keys, are pruned by magnitude; others are as they were."""
    own = copy.deepcopy(module).eval()
    with torch.no_grad():
        for site in weights(own):
            if densities.get(site.key, 1.0) < 1.0:
                site.value.copy_(pruned(site.value, densities[site.key]))
    return own


def marked(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode in which weight number n, from 1, is greater by n parts of `MARK`.

    What a compiler makes of a network is linear in its weights, so the marks say which of them a tensor is made of.
    """
    own = copy.deepcopy(module).eval()
    with torch.no_grad():
        for number, site in enumerate(weights(own), start=1):
            site.value.mul_(1 + number / MARK)
    return own


def example(lesson: Images) -> Tensor:
    """A sample, as the network takes it."""
    return lesson.arrange(torch.from_numpy(lesson.split.inputs[:1]))


def graph_of(module: nn.Module, lesson: Images) -> Graph:
    """A module, in evaluation mode, as the compiler reads it. Errors as of `compiler.source.from_module`."""
    return from_module(copy.deepcopy(module).eval(), (example(lesson),)).graph


def features(module: nn.Module, sample: Tensor) -> NDArray[np.float64]:
    """HAQ's description of each layer: depthwise, inputs, outputs, stride, kernel, weights, multiplications, number."""
    costs = {each.name: each for each in layer_costs(module, sample)}
    rows = []
    for number, site in enumerate(weights(module)):
        layer, shape = site.module, site.value.shape
        groups, stride = getattr(layer, "groups", 1), getattr(layer, "stride", (1,))
        stride = stride[0] if isinstance(stride, tuple) else 1
        kernel = shape[-1] if len(shape) > 2 else 1
        multiplies = costs[site.key].multiplies if site.key in costs else site.value.numel()
        rows.append([
            float(groups > 1), shape[1], shape[0], stride, kernel, np.log(site.value.numel()),
            np.log(max(1, multiplies)), number,
        ])  # fmt: skip
    return np.asarray(rows, np.float64)


@dataclass(frozen=True, eq=False)
class Variants:
    """Tensors of each layer at each of its levels, in a copy of the network.

    Attributes
    ----------
    module : the copy. sites : its layers. levels : of each, ascending. tensors : of each, of each level.
    lesson, split : what accuracy is measured on.
    groups : numbers of the layers that have one level together, for each entry of a policy.
    """

    module: nn.Module
    sites: tuple[Site, ...]
    levels: tuple[tuple[float, ...], ...]
    tensors: tuple[tuple[Tensor, ...], ...]
    lesson: Images
    split: Split
    groups: tuple[tuple[int, ...], ...]

    @classmethod
    def make(
        cls,
        module: nn.Module,
        levels: Sequence[Sequence[float]],
        change: Change,
        lesson: Images,
        split: Split,
        groups: Sequence[Sequence[int]] | None = None,
    ) -> Variants:
        """Change each layer of a copy to each level; without `groups`, each has a level of its own."""
        own = copy.deepcopy(module)
        sites = tuple(weights(own))
        tensors = tuple(
            tuple(change(site.value.detach().contiguous(), level) for level in each)
            for site, each in zip(sites, levels, strict=True)
        )
        together = [(n,) for n in range(len(sites))] if groups is None else groups
        return cls(own, sites, tuple(map(tuple, levels)), tensors, lesson, split, tuple(map(tuple, together)))

    def named(self, policy: Policy) -> list[float]:
        """What the levels of a policy are, layer by layer."""
        return [each[level] for each, level in zip(self.levels, self._levels(policy), strict=True)]

    def put(self, policy: Policy) -> nn.Module:
        """The copy at a policy."""
        with torch.no_grad():
            for site, tensors, level in zip(self.sites, self.tensors, self._levels(policy), strict=True):
                site.value.copy_(tensors[level])
        return self.module

    def found(self, policy: Policy) -> nn.Module:
        """The network of a policy, which nothing changes any more."""
        return copy.deepcopy(self.put(policy))

    def score(self, policy: Policy) -> float:
        """Percent of the samples that the network gets right at a policy."""
        return 100 * accuracy(self.put(policy), self.lesson, self.split)

    def _levels(self, policy: Policy) -> list[int]:
        """Number of the level of each layer."""
        known = {n: level for group, level in zip(self.groups, policy, strict=True) for n in group}
        return [known[n] for n in range(len(self.sites))]
