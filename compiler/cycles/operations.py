"""Elementwise operations in the cycle model: when they begin and end, and which reads they take from the scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiler.cycles.distances import Distances
from compiler.image.steps import ElementwiseStep
from compiler.jit import njit
from hw.params import LANES, WRITE_QUEUE

__all__ = ["NO_CLAIMS", "claimed", "operate"]

Int = NDArray[np.int64]

# Columns of the claims of an operation.
_FIRST, _READS, _SECOND, _PERIOD, _LINES = range(5)

NO_CLAIMS: Int = np.zeros((WRITE_QUEUE, 5), np.int64)
"""Claims of operations that read nothing. No more of them than the write queue has places can meet one scan."""


@njit(cache=True)
def claimed(time: int, claims: Int) -> bool:
    """Whether an operation reads in this cycle.

    claims : (operations, 5), first cycle in which it reads, how many in a row, first cycle for its second line, cycles
    from line to line, lines.
    """
    for n in range(len(claims)):
        if 0 <= time - claims[n, _FIRST] < claims[n, _READS]:
            return True
        since = time - claims[n, _SECOND]
        if 0 <= since < claims[n, _PERIOD] * (claims[n, _LINES] - 1) and since % claims[n, _PERIOD] < claims[n, _READS]:
            return True
    return False


def operate(
    step: ElementwiseStep, batch: int, pushed: int, before: int, claims: Int, distances: Distances
) -> tuple[int, int, int]:
    """When an operation begins, steps its last product and writes its last line; its claims become the first ones.

    pushed : when it is queued. before : when what is in front of it is written.
    """
    start = max(pushed + distances.push_to_start, before + distances.written_to_start)
    fetch = start + distances.start_to_fetch
    first = fetch + step.reads - 1 + distances.fetch_to_step
    period, lines = LANES * step.products, batch * step.lines
    claims[1:] = claims[:-1].copy()
    claims[0] = fetch, step.reads, first + distances.step_to_fetch, period, lines
    last = first + period * lines - 1
    return start, last, last + distances.step_to_line + distances.function * step.functions
