"""Object files of Verilator's own library, compiled once: they are the same in every build, and half of its time."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from compiler.caches import cache_folder

__all__ = ["keep", "lend"]

_OBJECTS = "verilated*.o"
"""Not verilator.o, cocotb's main: it makes the model, so its code holds the size of the array's class, which other
ports change. With that of another array the simulator writes beyond its memory, and may wait for ever."""


def lend(objects: Path, flags: Sequence[str]) -> None:
    """Put the library's object files into a build, newer than their sources, if an earlier build has left them.

    Parameters
    ----------
    objects : folder in which make will run.
    flags : everything that decides how they are compiled but the compiler itself.
    """
    for kept in _place(flags).glob(_OBJECTS):
        shutil.copyfile(kept, objects / kept.name)


def keep(objects: Path, flags: Sequence[str]) -> None:
    """Leave the library's object files of a finished build for the next ones."""
    place = _place(flags)
    if place.exists():
        return
    work = None
    try:
        work = Path(tempfile.mkdtemp(dir=place.parent, prefix="building-"))
        for made in objects.glob(_OBJECTS):
            shutil.copyfile(made, work / made.name)
        os.replace(work, place)
    except OSError:
        pass  # another process kept the same in the meantime, or the disk is full: the next build compiles them
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def _place(flags: Sequence[str]) -> Path:
    compiler = Path(shutil.which("c++") or "c++").resolve()
    about = compiler.stat()
    key = json.dumps([*flags, str(compiler), about.st_size, about.st_mtime_ns])
    return cache_folder() / "verilator" / f"library-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
