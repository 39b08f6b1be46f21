"""Write files so that nobody ever sees half of one, wherever the path leads: file, link, device, pipe; add lines."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["append_line", "is_stream", "write_file", "write_files"]

_LINKS = 40  # as many as Linux follows


def write_file(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all.

    The content goes into a new file in the same folder, which then takes the place of the old one; its permissions
    are those of any new file under the process's umask. A symbolic link stays a link: what it points to is replaced, or
    made. What is no ordinary file (a device, a FIFO, ``/dev/stdout``) is not replaced but written into.

    Raises
    ------
    OSError
        The path cannot be written; an ordinary file then holds what it held before.
    """
    descriptor = _descriptor(path)
    if descriptor is not None:
        if descriptor == 1:
            sys.stdout.flush()  # what was printed before stands before
        _into(os.dup(descriptor), content)
        return
    if is_stream(path):
        _into(os.open(path, os.O_WRONLY), content)
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # the system takes the umask off
    try:
        _into(handle, content, sync=True)
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename != path:  # a write does not say to what
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def write_files(folder: Path, contents: Mapping[str, str]) -> list[Path]:
    """Write texts by their names into a folder, which may be new, each whole or not at all; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        write_file(folder / name, text.encode())
    return [folder / name for name in contents]


def append_line(path: str | Path, text: str) -> None:
    """Add a line to a file, which may be new, without what a buffer would keep back.

    What a process that is killed has added are whole lines, but for the last one.

    Raises
    ------
    OSError
        The path cannot be written, or there is no room; then part of the line may stand there, without its end.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        left = f"{text}\n".encode()
        while left:
            left = left[os.write(handle, left) :]
    except OSError as error:  # a write does not say to what
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(handle)


def is_stream(path: str | Path) -> bool:
    """Whether there is something at a path that is written into and not replaced."""
    if _descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _descriptor(path: str | Path) -> int | None:
    """The number of the open file that a path such as ``/dev/stdout`` or ``/dev/fd/63`` stands for.

    Opening such a path anew would write at the beginning of what others have written to it.
    """
    place = os.path.abspath(path)
    for _ in range(_LINKS):
        folder, name = os.path.split(place)
        if name.isdecimal() and os.path.realpath(folder) in (f"/proc/{os.getpid()}/fd", "/dev/fd"):
            return int(name)
        if not os.path.islink(place):
            return None
        place = os.path.normpath(os.path.join(folder, os.readlink(place)))
    return None


def _into(handle: int, content: bytes, sync: bool = False) -> None:
    """Write and close."""
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        if sync:
            os.fsync(file.fileno())
