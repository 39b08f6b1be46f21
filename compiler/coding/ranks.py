"""Codes of a codebook as signed ranks: how the values lie, in integers.

Rank −1, −2, … are the negative values from zero outward, 1, 2, … the positive ones; codes whose value is zero (they
are rare) come behind the positive ones. The codebook stands in the file before, so both sides know the ranks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ranks", "ranked"]

Int = NDArray[np.int64]


class Ranks(NamedTuple):
    """Between codes and ranks.

    of_code : (codes,), signed rank of each code; 0 for code 0.
    negative, positive : code of rank −1 − n, and of 1 + n.
    depth : bits that tell the ranks of the longer side apart.
    levels : (codes,), −16 … 16, signed rank on a common scale.
    """

    of_code: Int
    negative: NDArray[np.uint8]
    positive: NDArray[np.uint8]
    depth: int
    levels: Int


def ranked(codebook: NDArray[np.float32] | NDArray[np.int16]) -> Ranks:
    """Ranks of the codes of a codebook, code 0 left out."""
    values = codebook[1:]
    codes = np.arange(1, len(codebook))
    order = np.argsort(values, kind="stable")
    negative = codes[order[values[order] < 0]][::-1]
    positive = np.concatenate([codes[order[values[order] > 0]], codes[values == 0]])
    of_code = np.zeros(len(codebook), np.int64)
    of_code[negative] = -1 - np.arange(len(negative))
    of_code[positive] = 1 + np.arange(len(positive))
    longest = max(len(negative), len(positive))
    return Ranks(
        of_code,
        negative.astype(np.uint8),
        positive.astype(np.uint8),
        (longest - 1).bit_length(),
        # The division rounds towards minus infinity, so it is done on magnitudes.
        np.sign(of_code) * (-(-np.abs(of_code) * 16 // longest)),
    )
