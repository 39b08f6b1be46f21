"""What the cycle model can keep of a run beside its records: when each tile, operation, refill and entry was.

Times are cycles since the run began, as in the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compiler.image.steps import LoopStep

__all__ = ["ACCEPTED", "DRAIN", "FINISHED", "FIRST_WORD", "LAST_WORD", "PASSED", "PLACES", "WRITTEN", "Events", "Round"]

Int = NDArray[np.int64]

ACCEPTED, FIRST_WORD, LAST_WORD, PASSED, FINISHED, DRAIN, WRITTEN = range(7)
PLACES = 7
"""Columns of `Round.tiles`."""


@dataclass(frozen=True, eq=False)
class Round:
    """One round of a layer or of an elementwise operation.

    number : of its first descriptor. accepted, finished, written : as in its record, of this round alone.
    tiles : int64 (tiles * segments, 7), a row for each segment of each tile in the order in which they are accepted;
        empty for an operation. A segment is ``ACCEPTED``, its weights come from ``FIRST_WORD`` to ``LAST_WORD``, both
        included (-1 if they stay on chip), and it is over at ``PASSED``, when the next one could be accepted. In the
        row of a tile's last segment stand when it is ``FINISHED``, when write-back reads its first word (``DRAIN``) and
        when it writes the last line (``WRITTEN``); -1 in all other rows.
    before, after : vectors that each PE had been given before and after it.
    segments : of a tile; 0 for an operation.
    """

    number: int
    accepted: int
    finished: int
    written: int
    tiles: Int
    before: Int
    after: Int
    segments: int


@dataclass
class Events:
    """Is filled in by `compiler.cycles.model.run_to_end`.

    rounds : in the order in which they are accepted.
    counted : (number, since, end) : cycles without an entry are starved ones of this layer from ``since + 1`` to
        ``end``, both included.
    jobs : int64 (vectors, pes) : the last entry of each vector of a PE is selected in cycle ``jobs >> 16``, the
        ``jobs & 0xFFFF`` entries of it in that cycle and those before. Of each PE as many rows count as it got vectors.
    end : of the run.
    """

    rounds: list[Round] = field(default_factory=list)
    counted: list[tuple[int, int, int]] = field(default_factory=list)
    jobs: Int = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    end: int = 0

    def selected(self, pe: int, first: int, last: int) -> tuple[Int, Int]:
        """Of vectors ``first`` to ``last`` (not included) of a PE: first cycle with an entry, and the one after all."""
        jobs = self.jobs[first:last, pe]
        ends = (jobs >> 16) + 1
        return ends - (jobs & 0xFFFF), ends


def vectors_at_most(works: Sequence[object], sizes: Sequence[int]) -> int:
    """Vectors that a run sends at most; `sizes` : of each descriptor in one round, 0 for what sends none."""
    times = np.ones(len(works), np.int64)
    for end, loop in enumerate(works):
        if isinstance(loop, LoopStep):
            times[loop.first : end] *= loop.count
    return int(np.dot(times, np.asarray(sizes, np.int64)))
