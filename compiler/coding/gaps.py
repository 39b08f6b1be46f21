"""Positions of nonzeros as relative indices, with fillers where a gap does not fit.

Source: Deep Compression (Han et al., ICLR 2016), section 2 and figure 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiler.errors import CodingError

__all__ = ["from_positions", "to_positions"]

Int = NDArray[np.int64]


def from_positions(positions: Int, codes: NDArray[np.uint8], width: int) -> tuple[NDArray[np.uint8], Int]:
    """Codes and gaps (zeros skipped before each entry), fillers included.

    A gap of 2**width zeros or more takes fillers: code 0 with the gap 2**width − 1, standing at a place of its own.

    Parameters
    ----------
    positions : ascending places of the nonzeros in the flattened tensor.
    codes : of the nonzeros.
    width : bits of a gap.
    """
    gaps = np.diff(positions, prepend=-1) - 1
    fillers = gaps >> width
    at = np.arange(len(gaps)) + np.cumsum(fillers)
    entries = len(gaps) + int(fillers.sum())
    all_codes = np.zeros(entries, np.uint8)
    all_gaps = np.full(entries, (1 << width) - 1, np.int64)
    all_codes[at] = codes
    all_gaps[at] = gaps & ((1 << width) - 1)
    return all_codes, all_gaps


def to_positions(gaps: Int, size: int, what: str) -> Int:
    """Place of each entry.

    Raises
    ------
    CodingError
        One lies behind the `size` elements of the tensor.
    """
    positions: Int = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if len(positions) and int(positions[-1]) >= size:
        raise CodingError(f"{what}: an entry stands at {int(positions[-1])}; expected less than {size}")
    return positions
