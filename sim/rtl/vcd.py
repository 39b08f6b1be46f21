"""A VCD within a size: what the simulator writes goes through a pipe, and what is too much is dropped."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Self

from sim.rtl.waves import WAVES_LIMIT, Waves

__all__ = ["VcdWaves"]

_BLOCK = 1 << 20


class VcdWaves(Waves):
    """`Waves` as VCD: `dump` is a pipe, so the disk never holds more than the limit. Cut before a time step."""

    def __init__(self, dump: Path, limit: int = WAVES_LIMIT) -> None:
        super().__init__(dump, limit)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        os.mkfifo(self.dump)
        self._reader.start()
        return self

    def __exit__(self, *error: object) -> None:
        # A simulator that never began to write leaves the reader waiting for one.
        while self._reader.is_alive():
            with contextlib.suppress(OSError):  # nobody reads: the reader has not begun, or is done
                os.close(os.open(self.dump, os.O_WRONLY | os.O_NONBLOCK))
            self._reader.join(0.01)
        self.dump.unlink()
        if self.cut:
            _cut_at_a_time(self.kept)

    def _read(self) -> None:
        with self.dump.open("rb", buffering=0) as source, self.kept.open("wb") as target:
            while block := source.read(_BLOCK):
                target.write(block[: max(0, self.limit - self.written)])
                self.written += len(block)


def _cut_at_a_time(path: Path) -> None:
    """Drop what follows the last complete time step: the last line that begins with ``#``, and all after it."""
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start, tail = end, b""
        while start and b"\n#" not in tail:
            start = max(0, start - _BLOCK)
            file.seek(start)
            tail = file.read(end - start)
        at = tail.rfind(b"\n#")
        file.truncate(start + at + 1 if at >= 0 else 0)
