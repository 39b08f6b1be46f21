"""The rival of training by hash tables: a small dense network that takes as many multiplications."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from compiler.train.data import Dataset
from compiler.train.hashing.network import HashedNetwork, HashSettings

__all__ = ["all_active", "dense_products", "equal_width"]

_PROBED = 100  # samples whose multiplications decide the width


def dense_products(sizes: Sequence[int]) -> int:
    """Multiplications of one sample's forward and backward pass and update, zeros included."""
    layers = [inputs * outputs for inputs, outputs in pairwise(sizes)]
    return 3 * sum(layers) - layers[0]


def equal_width(sizes: Sequence[int], data: Dataset, products: float, seed: int) -> int:
    """Width of a dense network of as many hidden layers that takes as many multiplications, or a few fewer.

    It too is trained by the kernel that leaves zeros out, so its multiplications are counted on some samples.
    """

    def taken(width: int) -> float:
        network = all_active([sizes[0], *[width] * (len(sizes) - 2), sizes[-1]], seed)
        order = np.arange(min(_PROBED, len(data.train)))
        network.train(data.train.inputs, data.train.labels, order, 0.01)
        return float(network.counts.sum() / len(order))

    low, high = 1, max(sizes)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if taken(middle) <= products else (low, middle)
    return low


def all_active(sizes: Sequence[int], seed: int) -> HashedNetwork:
    """A dense network that the kernel of hashing trains, so that zeros are left out here too."""
    return HashedNetwork(sizes, HashSettings(1.0, way="top"), seed)
