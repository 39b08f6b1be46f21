"""A trained network in variants with fewer channels: masked while policies are judged, really smaller in the end.

Source: AMC (He et al., ECCV 2018), section 3.2 and its program: channels are ranked by the sum of the magnitudes of the
weights that take them, and their number is rounded up to a multiple of 8. (Its least-squares fit of the weights that
are left, for 1x1 convolutions, is not here.) Layers whose outputs are added share their channels and have one level.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from compiler.errors import InputError
from compiler.experiments.policy.problem import Policy
from compiler.train import channels
from compiler.train.channels import Channels
from compiler.train.data import Split
from compiler.train.images import Images, accuracy

__all__ = ["MULTIPLE", "ChannelVariants"]

MULTIPLE = 8
"""Channels that are left are a multiple of it: as published, and what a vector of the array holds."""

_TRACED = 8
"""Samples that the dependencies of channels are traced with."""


@dataclass(frozen=True, eq=False)
class ChannelVariants:
    """Channels of a network at each of their levels.

    Attributes
    ----------
    whole : the trained network. module : a copy, in which what takes a channel that is gone is zero.
    groups : channels that go together, of the copy, as data meets them. roots : path of the first maker of each.
    shares : their levels, ascending, 0 … 1.
    ranked : of each group its channels, from the one whose weights are the greatest on.
    inputs : samples to trace with, in the form that the network takes.
    lesson, split : what accuracy is measured on.
    """

    whole: nn.Module
    module: nn.Module
    groups: tuple[Channels, ...]
    roots: tuple[str, ...]
    shares: tuple[float, ...]
    ranked: tuple[Tensor, ...]
    inputs: Tensor
    lesson: Images
    split: Split

    @classmethod
    def make(cls, module: nn.Module, shares: Sequence[float], lesson: Images, split: Split) -> ChannelVariants:
        """Find and rank the channels. Errors as of `channels.find`; `InputError`: no channel can be removed."""
        whole, own = copy.deepcopy(module).eval(), copy.deepcopy(module).eval()
        inputs = lesson.arrange(torch.from_numpy(lesson.split.inputs[:_TRACED]))
        found = _ordered(own, inputs)
        if not found:
            raise InputError("no channels of this network can be removed; expected layers between its ends")
        roots, groups = zip(*found, strict=True)
        ranked = tuple(torch.argsort(_importance(each), descending=True, stable=True) for each in groups)
        return cls(whole, own, groups, roots, tuple(shares), ranked, inputs, lesson, split)

    def kept(self, group: int, level: int) -> int:
        """Channels of a group that a level leaves."""
        count = self.groups[group].count
        return min(count, MULTIPLE * max(1, math.ceil(self.shares[level] * count / MULTIPLE - 1e-9)))

    def named(self, policy: Policy) -> list[float]:
        """The share of the channels that is left, group by group."""
        return [self.kept(n, level) / self.groups[n].count for n, level in enumerate(policy)]

    def put(self, policy: Policy) -> nn.Module:
        """The copy at a policy, with zeros in the place of what takes a channel that is gone."""
        there = dict(self.whole.named_parameters())
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                parameter.copy_(there[name])
            for number, each in enumerate(self.groups):
                gone = torch.zeros(each.count + 1, dtype=torch.bool)  # the last one is for what belongs to no channel
                gone[self._gone(number, policy[number])] = True
                for end in each.takers:
                    cast(Tensor, end.layer.weight)[:, gone[end.channels]] = 0
        return self.module

    def found(self, policy: Policy) -> nn.Module:
        """A network of its own without the channels that are gone; it computes the same as `put`."""
        small = copy.deepcopy(self.whole)
        for number, (_, each) in enumerate(_ordered(small, self.inputs)):
            if len(gone := self._gone(number, policy[number])):
                each.remove(sorted(gone.tolist()))
        return small.eval()

    def score(self, policy: Policy) -> float:
        """Percent of the samples that the network gets right at a policy."""
        return 100 * accuracy(self.put(policy), self.lesson, self.split)

    def _gone(self, group: int, level: int) -> Tensor:
        return self.ranked[group][self.kept(group, level) :]


def _ordered(module: nn.Module, inputs: Tensor) -> list[tuple[str, Channels]]:
    """Channels in the order of the layers that make them, each with the path of the first of these."""
    places = {layer: (place, path) for place, (path, layer) in enumerate(module.named_modules())}
    found = [(min(places[end.layer] for end in each.makers), each) for each in channels.find(module, inputs)]
    return [(path, each) for (_, path), each in sorted(found, key=lambda one: one[0])]


def _importance(group: Channels) -> Tensor:
    """Of each channel the sum of the magnitudes of all weights that take it."""
    total = torch.zeros(group.count + 1)
    for end in group.takers:
        taken = cast(Tensor, end.layer.weight).detach().movedim(1, 0).flatten(1).abs().sum(1)
        total.index_add_(0, end.channels % (group.count + 1), taken)
    return total[:-1]
