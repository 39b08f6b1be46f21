"""Keep a waveform within a size: what the simulator writes goes through a pipe, and what is too much is dropped."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path

from compiler.files import is_stream

__all__ = ["WAVES_LIMIT", "Waves"]

WAVES_LIMIT = 200_000_000
"""Bytes of a VCD file unless told otherwise; sixteen vectors on sixteen PEs fill about half of it."""

_BLOCK = 1 << 20


class Waves:
    """While it is entered, `pipe` takes a VCD from the simulator; at the end `kept` holds it, or its beginning.

    Parameters
    ----------
    pipe : where the simulator writes; must not exist yet.
    limit : bytes kept at most. A longer file is cut before a time step, so that viewers can read it.

    Attributes
    ----------
    kept : the file, beside `pipe`. written : bytes that the simulator wrote. cut : it was longer than `limit`.
    """

    def __init__(self, pipe: Path, limit: int = WAVES_LIMIT) -> None:
        self.pipe, self.limit = pipe, limit
        self.kept = pipe.with_name(f"{pipe.name}.kept")
        self.written = 0
        self._reader = threading.Thread(target=self._read, daemon=True)

    @property
    def cut(self) -> bool:
        """Whether there was more."""
        return self.written > self.limit

    def __enter__(self) -> Waves:
        os.mkfifo(self.pipe)
        self._reader.start()
        return self

    def __exit__(self, *error: object) -> None:
        # A simulator that never began to write leaves the reader waiting for one.
        while self._reader.is_alive():
            with contextlib.suppress(OSError):  # nobody reads: the reader has not begun, or is done
                os.close(os.open(self.pipe, os.O_WRONLY | os.O_NONBLOCK))
            self._reader.join(0.01)
        self.pipe.unlink()
        if self.cut:
            _cut_at_a_time(self.kept)

    def deliver(self, target: Path) -> None:
        """Put the file in its place: beside others under its name, or into a pipe or device."""
        if is_stream(target):
            with self.kept.open("rb") as source, target.open("wb") as stream:
                shutil.copyfileobj(source, stream)
            return
        shutil.move(self.kept, os.path.realpath(target))

    def _read(self) -> None:
        with self.pipe.open("rb", buffering=0) as source, self.kept.open("wb") as target:
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
