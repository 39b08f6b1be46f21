"""The program of an image, read from its descriptors: which tiles are computed, layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw.layouts import descriptor, fields
from hw.params import LANES, Params

__all__ = ["Step", "parse_steps"]


@dataclass(frozen=True)
class Step:
    """One MATVEC descriptor, its fields as `hw.layouts.descriptor` names them."""

    op: int
    function: int
    chained: int
    codebook: int
    shift: int
    fold: int
    fragment_log2: int
    keep: int
    refill: int
    buffer: int
    source: int
    destination: int
    act_vectors: int
    slots: int
    pointers: int
    bias: int
    fragment_slots: int

    @property
    def split(self) -> int:
        """PEs that share a split row."""
        return 1 << self.fragment_log2

    @property
    def rows(self) -> int:
        """Rows that an entry of a column may stand in: slots, or twice as many virtual rows."""
        return self.slots << self.fold

    def outputs(self, params: Params) -> int:
        """Outputs of each write-back group."""
        return params.outputs(self.slots, self.fragment_slots, self.split)

    def lines(self, params: Params) -> int:
        """Lines of activation memory that the result takes."""
        return -(-self.outputs(params) // LANES)

    def pointer_blocks(self, params: Params) -> int:
        """Words of pointer memory that describe the columns."""
        return params.column_blocks(self.act_vectors, bool(self.fold))


def parse_steps(params: Params, descriptors: NDArray[np.uint8], counts: Sequence[int]) -> list[list[Step]]:
    """The steps of each layer, of which layer n has ``counts[n]``; reserved fields and END are not looked at."""
    where = {name: (first, width) for name, first, width in fields(descriptor(params))}
    names = [field.name for field in dataclasses.fields(Step)]
    steps = []
    for row in descriptors[: sum(counts)]:
        word = int.from_bytes(row.tobytes(), "little")
        steps.append(Step(**{name: word >> where[name][0] & ((1 << where[name][1]) - 1) for name in names}))
    ends = np.cumsum(counts).tolist()
    return [steps[end - count : end] for end, count in zip(ends, counts, strict=True)]
