"""Keep a waveform within a size, whatever its format: what is too much is dropped, and the rest can still be read."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from compiler.files import is_stream

__all__ = ["WAVES_LIMIT", "Waves", "waves_format", "window_plusargs"]

WAVES_LIMIT = 200_000_000
"""Bytes of a waveform unless told otherwise; as VCD, sixteen vectors on sixteen PEs fill about half of it."""


def waves_format(path: Path) -> str:
    """Format of a waveform by the name of its file: ``.fst`` is FST; all others, pipes too, are VCD."""
    return "fst" if path.suffix.lower() == ".fst" else "vcd"


_STEPS = 2000
"""Time steps of a cycle: a clock of 2 ns, a resolution of 1 ps."""

_TO_START = 5
"""Cycles from when the bench says that a run begins to cycle 0 of its records."""


def window_plusargs(depth: int | None, window: tuple[int, int] | None) -> list[str]:
    """What a simulator is told of the levels and of the cycles of each run that its waveform holds."""
    told = [] if depth is None else [f"+eie_waves_depth={depth}"]
    if window is not None:
        first, last = (_STEPS * (_TO_START + cycle) for cycle in window)
        told += [f"+eie_waves_from={first}", f"+eie_waves_to={last}"]
    return told


class Waves(ABC):
    """While it is entered, the simulator writes a waveform; at the end `kept` holds it, or its beginning.

    Parameters
    ----------
    dump : where the simulator writes; must not exist yet.
    limit : bytes kept at most. A longer waveform is cut where viewers can read what comes before.

    Attributes
    ----------
    kept : the file, beside `dump`. written : bytes that the simulator wrote. cut : they were more than `limit`.
    """

    def __init__(self, dump: Path, limit: int = WAVES_LIMIT) -> None:
        self.dump, self.limit = dump, limit
        self.kept = dump.with_name(f"{dump.name}.kept")
        self.written = 0

    @property
    def cut(self) -> bool:
        """Whether there was more."""
        return self.written > self.limit

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def deliver(self, target: Path) -> None:
        """Put the file in its place: beside others under its name, or into a pipe or device."""
        if is_stream(target):
            with self.kept.open("rb") as source, target.open("wb") as stream:
                shutil.copyfileobj(source, stream)
            return
        shutil.move(self.kept, os.path.realpath(target))
