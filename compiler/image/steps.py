"""The program of an image, read from its descriptors: the segments of each layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw.layouts import descriptor, fields
from hw.params import Params

__all__ = ["SIGNED", "Step", "parse_steps"]

SIGNED = frozenset({"y0", "x0", "low", "high"})
"""Fields of a descriptor that are two's complement."""


@dataclass(frozen=True)
class Step:
    """One SEGMENT descriptor, its fields as `hw.layouts.descriptor` names them."""

    op: int
    first: int
    last: int
    chained: int
    dense: int
    maximum: int
    refill: int
    buffer: int
    codebook: int
    source: int
    vectors: int
    dy: int
    dx: int
    wy: int
    wx: int
    height: int
    width: int
    y0: int
    x0: int
    step_y: int
    step_x: int
    position_pitch: int
    window_pitch: int
    tile_pitch_x: int
    tile_pitch_y: int
    pointers: int
    tiles_y: int
    tiles_x: int
    destination: int
    row_lines: int
    row_pitch: int
    tile_lines: int
    column_lines: int
    outputs: int
    words: int
    frame: int
    low: int
    high: int

    @property
    def tiles(self) -> int:
        """Tiles of the layer, for one sample."""
        return self.tiles_y * self.tiles_x

    @property
    def positions(self) -> int:
        """Positions of the window."""
        return self.wy * self.wx

    @property
    def pointer_blocks(self) -> int:
        """Words of pointer memory that describe the columns: one for each vector of the window."""
        return self.positions * self.vectors


def parse_steps(params: Params, descriptors: NDArray[np.uint8], counts: Sequence[int]) -> list[list[Step]]:
    """The steps of each layer, of which layer n has ``counts[n]``; reserved fields and END are not looked at."""
    where = {name: (first, width) for name, first, width in fields(descriptor(params))}
    names = [field.name for field in dataclasses.fields(Step)]
    steps = []
    for row in descriptors[: sum(counts)]:
        word = int.from_bytes(row.tobytes(), "little")
        values = {name: word >> where[name][0] & ((1 << where[name][1]) - 1) for name in names}
        for name in SIGNED:
            values[name] -= values[name] >> (where[name][1] - 1) << where[name][1]
        steps.append(Step(**values))
    ends = np.cumsum(counts).tolist()
    return [steps[end - count : end] for end, count in zip(ends, counts, strict=True)]
