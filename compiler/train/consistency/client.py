"""A worker's side: its clock, and the updates that it keeps until a checkpoint holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from compiler.errors import WorkerError
from compiler.train.consistency.core import Read
from compiler.train.consistency.shard import Values

__all__ = ["Client"]


class Client:
    """What one worker remembers.

    Parameters
    ----------
    parts : names of the parameters of each shard.
    applied : updates of this worker that each shard has. A worker that was killed while it sent one has that on some
        shards only; its replacement makes it once more, and those that have it already drop it.

    Attributes
    ----------
    clock : the next update's number.
    """

    def __init__(self, parts: Sequence[Sequence[str]], applied: Sequence[int]) -> None:
        self.parts = parts
        self.clock = min(applied)
        self._kept: list[dict[int, Values]] = [{} for _ in parts]

    def made(self, update: Values) -> list[Values]:
        """Note an update; its part for each shard. The clock goes on."""
        shares: list[Values] = [{name: update[name] for name in part} for part in self.parts]
        for kept, share in zip(self._kept, shares, strict=True):
            kept[self.clock] = share
        self.clock += 1
        return shares

    def completed(self, shard: int, values: Values, read: Read) -> tuple[Values, Read]:
        """What was read ahead for this clock, with the own updates that it misses; the read says that it has them.

        Raises
        ------
        WorkerError
            One of them is not kept any more.
        """
        values, seen = dict(values), list(read.seen)
        for _, update in self.missing(shard, seen[read.worker]):
            values.update({name: values[name] + added for name, added in update.items()})
        seen[read.worker] = max(seen[read.worker], self.clock)
        return values, replace(read, seen=tuple(seen))

    def durable(self, shard: int, count: int) -> None:
        """A checkpoint of `shard` holds the first `count` updates. The last one stays: a read ahead may miss it."""
        kept = self._kept[shard]
        for clock in [each for each in kept if each < min(count, self.clock - 1)]:
            del kept[clock]

    def missing(self, shard: int, applied: int) -> list[tuple[int, Values]]:
        """Updates that a shard does not have which was restarted and has the first `applied`.

        Raises
        ------
        WorkerError
            One of them is not kept any more.
        """
        kept = self._kept[shard]
        wanted = range(applied, self.clock)
        gone = [clock for clock in wanted if clock not in kept]
        if gone:
            raise WorkerError(
                f"shard {shard} goes on from update {applied} of this worker, which keeps those from "
                f"{min(kept, default=self.clock)} on: the checkpoint is older than the one that it was told of"
            )
        return [(clock, kept[clock]) for clock in wanted]

    @property
    def kept(self) -> int:
        """Updates that are kept, of the shard that needs most."""
        return max(map(len, self._kept))
