"""Where the tiles of a refill stream end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hw.layouts import fields, refill_header
from hw.params import Params

__all__ = ["tile_ends"]


def tile_ends(params: Params, beats: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which beats (beats, 16) of a refill stream carry TLAST: the last one of each tile."""
    places = {name: (first, width) for name, first, width in fields(refill_header(params))}
    ends = np.zeros(len(beats), np.bool_)
    at = 0
    while at < len(beats):
        header = int.from_bytes(beats[at].tobytes(), "little")
        size, last = (header >> places[name][0] & ((1 << places[name][1]) - 1) for name in ("words", "last"))
        at += 1 + size
        if last and at <= len(beats):
            ends[at - 1] = True
    return ends
