"""Memory words to arrays of field values."""

from __future__ import annotations

import numpy as np
from amaranth.lib import data
from numpy.typing import NDArray

from hw.layouts import fields

__all__ = ["unpack"]

Int = NDArray[np.int64]


def unpack(layout: data.Layout, words: NDArray[np.uint8]) -> dict[str, Int]:
    """Leaf of the layout → unsigned values, of words (…, bytes); leaves of at most 56 bits."""
    found = {}
    for name, first, width in fields(layout):
        low, high = first // 8, (first + width - 1) // 8
        value = np.zeros(words.shape[:-1], np.int64)
        for byte in range(low, high + 1):
            value |= words[..., byte].astype(np.int64) << (8 * (byte - low))
        found[name] = value >> (first % 8) & ((1 << width) - 1)
    return found
