"""Clocks of workers, which reads the bound admits, and a checker of the reads that were made.

A worker's clock is the number of updates that it has made. It reads before each of them. Bound s: a worker at clock c
reads values that hold at least the first c - s updates of every worker, and all of its own. s = 0 is bulk-synchronous,
no bound is asynchronous. Source: Ho et al., NIPS 2013, section 3.

The checker shares nothing with the admission: it looks at what a read held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from compiler.errors import WorkerError

__all__ = ["Checker", "Clocks", "Read", "bound_words", "reads_ahead"]


@dataclass(frozen=True)
class Read:
    """What a worker was given by one shard.

    Attributes
    ----------
    worker, clock : who read, and how many updates it had made.
    shard, generation : where; a shard that was restarted from its checkpoint is of the next generation.
    seen : how many updates of each worker the values hold.
    """

    worker: int
    clock: int
    shard: int
    generation: int
    seen: tuple[int, ...]


class Clocks:
    """How many updates of each worker a shard has applied, and who may read.

    Parameters
    ----------
    workers : how many.
    staleness : the bound s, 0 and up; None for none.

    Attributes
    ----------
    applied : updates of each worker.
    incarnations : of each worker, from 0; one that was replaced is refused from then on, should it wake up.
    """

    def __init__(self, workers: int, staleness: int | None) -> None:
        if workers < 1 or (staleness is not None and staleness < 0):
            raise ValueError(f"{workers} workers and bound {staleness}; expected 1 and up, and 0 and up or None")
        self.staleness = staleness
        self.applied = [0] * workers
        self.incarnations = [0] * workers

    def admits(self, clock: int) -> bool:
        """Whether a worker at `clock` may read now."""
        return self.staleness is None or min(self.applied) >= clock - self.staleness

    def fenced(self, worker: int, incarnation: int) -> bool:
        """Whether this worker was replaced by another process."""
        return incarnation < self.incarnations[worker]

    def join(self, worker: int, incarnation: int) -> int:
        """A process takes the part of a worker; the clock at which it goes on.

        Raises
        ------
        WorkerError
            Another process has taken it since.
        """
        if self.fenced(worker, incarnation):
            raise WorkerError(f"worker {worker} was replaced: process {incarnation} of it is no longer wanted")
        self.incarnations[worker] = incarnation
        return self.applied[worker]

    def takes(self, worker: int, clock: int) -> bool:
        """Whether the update that a worker made at `clock` is the next one; False if it is there already.

        Raises
        ------
        WorkerError
            One before it is missing.
        """
        if clock > self.applied[worker]:
            raise WorkerError(
                f"update {clock} of worker {worker} came before update {self.applied[worker]}; send that first"
            )
        return clock == self.applied[worker]


@dataclass
class Checker:
    """Looks at every read; see the top of this file for the bound.

    Attributes
    ----------
    reads : how many were looked at.
    lags : how far the slowest worker was behind the reader (clock minus the least of `seen`) → reads.
    """

    staleness: int | None
    reads: int = 0
    lags: Counter[int] = field(default_factory=Counter)
    _last: dict[tuple[int, int, int], tuple[int, ...]] = field(default_factory=dict)

    def violations(self, read: Read) -> list[str]:
        """What is wrong with a read, in words; empty if nothing is."""
        self.reads += 1
        self.lags[read.clock - min(read.seen)] += 1
        where = f"worker {read.worker} at clock {read.clock}, shard {read.shard}"
        found = []
        if read.seen[read.worker] < read.clock:
            found.append(f"{where}: misses own updates, has {read.seen[read.worker]}")
        if self.staleness is not None:
            floor = read.clock - self.staleness
            found += [
                f"{where}: has {seen} updates of worker {other}; bound {self.staleness} asks for {floor}"
                for other, seen in enumerate(read.seen)
                if seen < floor
            ]
            # Whoever made update n was admitted to read at clock n - 1. A shard that went back to its checkpoint is
            # sent what each worker kept, worker by worker, and reads pass in between: there the floor alone is sure.
            ceiling = min(read.seen) + self.staleness + 1
            found += [
                f"{where}: worker {other} has made {seen} updates while another has {min(read.seen)}; bound "
                f"{self.staleness} allows {ceiling}"
                for other, seen in enumerate(read.seen)
                if seen > ceiling and read.generation == 0
            ]
        key = (read.worker, read.shard, read.generation)
        last = self._last.get(key)
        if last is not None and any(now < before for now, before in zip(read.seen, last, strict=True)):
            found.append(f"{where}: has {read.seen}, fewer than an earlier read, which had {last}")
        self._last[key] = read.seen
        return found

    def check(self, reads: Sequence[Read]) -> None:
        """Raises `WorkerError` if a read broke the bound."""
        for read in reads:
            if found := self.violations(read):
                raise WorkerError(f"the bound on staleness does not hold: {'; '.join(found)}")


def reads_ahead(overlap: bool, staleness: int | None) -> int:
    """By how many clocks a worker reads ahead, if reads overlap with computing.

    What is read while update c is computed is used at clock c + 1. The bound is that of clock c + 1, and the worker
    adds its own update c. Bound 0 asks for everyone's update c, so there is nothing to read ahead.
    """
    return int(overlap and staleness != 0)


def bound_words(staleness: int | None) -> str:
    """A bound as tables say it."""
    return "none" if staleness is None else str(staleness)
