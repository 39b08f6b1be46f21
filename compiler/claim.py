"""One process at a time works in the folder of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compiler.errors import InputError

__all__ = ["alone", "claimed"]


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make a folder and hold it as long as the block runs; the lock ends with the process, however it ends.

    Raises
    ------
    InputError
        Another process holds it, or it cannot be made.
    """
    try:
        import fcntl
    except ImportError:  # not on this system: then nothing is held
        folder.mkdir(parents=True, exist_ok=True)
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(f"{folder} cannot be used as a folder: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is at work in {folder}; wait for it, or choose another folder") from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for the same place of a cache, then go through it alone.

    The lock is a file beside the place, and ends with the process, however it ends.
    """
    try:
        import fcntl
    except ImportError:  # not on this system: then nobody waits
        yield
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place.with_name(f"{place.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
