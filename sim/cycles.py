"""Exact cycle model: the time of every event of a run, as a recurrence over vectors and PEs.

Nothing here steps through cycles. For each scanned vector the model computes when it leaves the scan and, for each PE,
when its entries are selected, from the vector before; docs/architecture.md derives the equations from the pipeline. The
results equal the RTL's layer records in every field but `saturated`.

Names: ``A`` a vector is read, ``U`` it leaves the scan (it fires, or is skipped), ``W`` it is written into the queue of
a PE, ``R`` read out of it, ``X`` taken by the expander, all in cycles since the run began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compiler.image.steps import Step
from compiler.jit import njit
from hw.params import LANES, ROUND_TRIP, Params

__all__ = ["DISTANCES", "Distances", "LayerTimes", "Work", "run"]

Int = NDArray[np.int64]

_NEVER = -(1 << 40)
_COUNT_BITS = 11  # of a packed column; the rest are its entries in its last weight word


class Distances(NamedTuple):
    """Distances between events, in cycles; each is stated (and tested) by the hardware block it belongs to."""

    first_accept: int = 2  # start → accept of the first segment, on the record's clock
    request: int = 1  # accept → first vector read
    next_accept: int = 1  # last vector read → next segment accepted
    read_to_register: int = 1  # vector read → in the register before the broadcast
    register_to_fire: int = 1  # in that register → fires
    fire_to_queue: int = 4  # fires → written into the queues
    queue_to_read: int = 1  # written → read out of the queue's memory
    read_to_take: int = 1  # read out → taken by the expander
    take_to_select: int = 4  # taken → first entry selected
    buffered: int = 3  # columns between the expander and the entries that are selected, before it has to wait
    round_trip: int = ROUND_TRIP + 1  # vectors that can be on their way while a queue shows credit
    credit: int = 2  # vector read out of the queue's memory → a broadcast may count on its place
    select_to_done: int = 5  # last entry of a tile selected → it is found finished
    drop_to_done: int = 6  # fire of a vector that is empty in all PEs → its tile is found finished
    scanned_to_finished: int = 4  # last vector left the scan → its tile is found finished
    finished_to_drain: int = 2  # a tile is found finished → first word of the output table read
    written_to_drain: int = 2  # last line of the tile before written → first word of the output table read
    word_to_line: int = 9  # word of the output table read → line written
    line_to_read: int = 1  # line written → it may be read
    written_to_free: int = 1  # last line of a tile written → its bank is free
    finished_to_buffer: int = 1  # tile of weights would be found finished → its buffer is free
    header: int = 1  # buffer free → first word of a packet, after its header
    loaded: int = 1  # last word of a tile of weights → it may be scanned


DISTANCES = Distances()
