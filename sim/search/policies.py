"""AMC's problems on an array: a share of weights for each block, or of channels for those that go together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compiler.experiments.policy.channel_variants import ChannelVariants
from compiler.experiments.policy.network import Variants, example, features, pruned
from compiler.experiments.policy.problem import Policy, Problem
from compiler.train.data import Split
from compiler.train.layers import weights
from sim.search.measured import Measured

__all__ = ["by_channels", "by_weights", "groups_of"]


def by_weights(measured: Measured, shares: Sequence[float], uniform: int, split: Split) -> tuple[Problem, Variants]:
    """Layers of the problem are blocks of the array, whose costs add up; weights go by magnitude.

    Weights that the host multiplies by save nothing, and all stay.

    Parameters
    ----------
    shares : that a block may keep, ascending. uniform : number of the one whose cost is the limit.
    split : samples that policies are judged by.
    """
    module = measured.subject.module
    keys = [site.key for site in weights(module)]
    members = groups_of(measured)
    groups = list(members.values())
    free = {n for group in groups for n in group}
    alone = [(n,) for n in range(len(keys)) if n not in free]
    levels = [list(shares) if n in free else [1.0] for n in range(len(keys))]
    variants = Variants.make(module, levels, pruned, measured.subject.lesson, split, [*groups, *alone])
    tables = [
        measured.blocks(variants.put((level,) * len(groups) + (0,) * len(alone))) for level in range(len(shares))
    ]  # fmt: skip
    costs = [np.maximum.accumulate([each[name] for each in tables]).tolist() for name in members]
    budget = sum(each[uniform] for each in costs)
    rows = features(module, example(measured.subject.lesson))
    described = np.stack([rows[group[0]] for group in variants.groups])
    return Problem([*costs, *([0.0] for _ in alone)], budget, variants.score, described, "ahead"), variants


def groups_of(measured: Measured) -> dict[str, tuple[int, ...]]:
    """Block of the network → numbers of its weights; those that the host multiplies by are in none."""
    keys = [site.key for site in weights(measured.subject.module)]
    members = measured.members(measured.subject.module)
    return {name: tuple(map(keys.index, own)) for name, own in members.items()}


def by_channels(
    measured: Measured, shares: Sequence[float], uniform: int, split: Split
) -> tuple[Problem, ChannelVariants]:
    """Layers of the problem are channels that go together. Parameters as of `by_weights`.

    What a block costs follows from the share of its weights that is left: that of the channels it makes times that of
    those it takes. It is measured where all channels have one share, and is on straight lines between.
    """
    module = measured.subject.module
    variants = ChannelVariants.make(module, shares, measured.subject.lesson, split)
    blocks = _Blocks(measured, variants)
    count, top = len(variants.groups), len(shares) - 1
    costs = [
        np.maximum.accumulate([
            blocks.cost((*(top,) * n, level, *(top,) * (count - n - 1)), making=n) for level in range(len(shares))
        ]).tolist()
        for n in range(count)
    ]  # fmt: skip
    described = features(module, example(measured.subject.lesson))
    rows = {site.key: row for site, row in zip(weights(module), described, strict=True)}
    makers = np.stack([rows[root] for root in variants.roots])
    budget = blocks.cost((uniform,) * count)
    return Problem(costs, budget, variants.score, makers, "ahead", blocks.cost), variants


class _Blocks:
    """Cycles of the blocks of a network by what is left of their weights."""

    def __init__(self, measured: Measured, variants: ChannelVariants) -> None:
        self.variants = variants
        self.members = measured.members(variants.whole)
        self.sizes = {site.key: site.value.numel() for site in weights(variants.whole)}
        paths = {layer: path for path, layer in variants.module.named_modules()}
        self.makes, self.takes = (
            {
                paths[end.layer]: n
                for n, group in enumerate(variants.groups)
                for end in (group.makers if making else group.takers)
            }
            for making in (True, False)
        )
        self.curves = self._measure(measured)

    def cost(self, policy: Policy, making: int | None = None) -> float:
        """Cycles of all blocks, or of those that make the channels of one group."""
        return float(sum(
            np.interp(self._left(keys, policy), *self.curves[name])
            for name, keys in self.members.items()
            if making is None or making in {self.makes.get(key) for key in keys}
        ))  # fmt: skip

    def _measure(self, measured: Measured) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Block → shares of its weights, ascending, and its cycles there."""
        points: dict[str, dict[float, float]] = {name: {} for name in self.members}
        for level in range(len(self.variants.shares)):
            policy = (level,) * len(self.variants.groups)
            found = measured.blocks(self.variants.found(policy))
            for name, keys in self.members.items():
                points[name][self._left(keys, policy)] = found[name]
        return {
            name: (np.array(sorted(each)), np.maximum.accumulate([each[share] for share in sorted(each)]))
            for name, each in points.items()
        }

    def _left(self, keys: Sequence[str], policy: Policy) -> float:
        """Share of the weights of a block that is left."""
        shares = self.variants.named(policy)

        def of(key: str) -> float:
            made, taken = self.makes.get(key), self.takes.get(key)
            return (1.0 if made is None else shares[made]) * (1.0 if taken is None else shares[taken])

        total = sum(self.sizes[key] for key in keys)
        return sum(of(key) * self.sizes[key] for key in keys) / total
