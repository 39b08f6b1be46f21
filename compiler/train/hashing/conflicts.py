"""What threads without locks cost: how often two of them write the same weights, and the speed-up that follows.

A weight is written by a sample if the neurons at both its ends are active. Of the weights that a sample writes, the
share `overlap` is written by another sample as well. While a thread writes, each of the others is writing too, for the
share `writing` of its time; so of `threads` the expected number that is at a weight of this one is

    ``overlap * writing * (threads - 1)``,

for each of which the line of the cache has to come from another core. Tables are laid out by one thread while the
others wait (Amdahl).

The two constants, `serial` and `cost`, come from times of one and of two threads; more are a prediction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

__all__ = ["Conflicts", "overlap"]


@dataclass(frozen=True)
class Conflicts:
    """The model.

    Attributes
    ----------
    serial : share of one thread's time in which others would wait.
    overlap, writing : see above.
    cost : how many times longer a write takes that meets another thread's.
    """

    serial: float
    overlap: float
    writing: float
    cost: float

    def meeting(self, threads: int) -> float:
        """Expected threads that are at a weight which one of them writes."""
        return self.overlap * self.writing * (threads - 1)

    def speedup(self, threads: int) -> float:
        """Over one thread."""
        slower = 1 + self.writing * self.cost * self.meeting(threads)
        return 1 / (self.serial + (1 - self.serial) * slower / threads)

    @classmethod
    def fit(cls, serial: float, overlap: float, writing: float, two: float) -> Conflicts:
        """The model that gives the speed-up `two` on two threads; a cost below zero is taken for zero."""
        slower = (1 / two - serial) * 2 / (1 - serial)
        meeting = overlap * writing * writing
        return cls(serial, overlap, writing, max(0.0, (slower - 1) / meeting) if meeting else 0.0)


def overlap(active: Sequence[Sequence[Iterable[int]]]) -> float:
    """Share of a sample's weights that another sample writes too, over neighbouring pairs.

    active : for each sample the neurons of every layer, the input's nonzeros and the output included.
    """
    both = mine = 0
    for first, second in pairwise([[set(layer) for layer in sample] for sample in active]):
        for layer in range(len(first) - 1):
            mine += len(first[layer]) * len(first[layer + 1])
            both += len(first[layer] & second[layer]) * len(first[layer + 1] & second[layer + 1])
    return float(np.divide(both, mine)) if mine else 0.0
