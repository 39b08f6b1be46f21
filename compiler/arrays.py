"""Read arrays from a file, a pipe or standard input. What they must look like is for the network to say."""

from __future__ import annotations

import io
import math
import sys
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError

__all__ = ["UNREADABLE", "read_arrays", "read_batch", "read_header", "read_npy"]

UNREADABLE = (
    OSError, EOFError, ValueError, MemoryError, NotImplementedError, RuntimeError, OverflowError, TypeError,
    zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip
"""What numpy and zipfile raise at a damaged `.npy` or `.npz` file."""


def read_batch(path: Path) -> NDArray[Any]:
    """The array in an ``.npy`` file; one vector (inputs,) becomes a batch of one, (1, inputs).

    Raises
    ------
    InputError
        There is no such file, or it is not an ``.npy`` file of plain numbers.
    """
    array = read_arrays(path)
    if isinstance(array, dict):
        raise InputError(f"{path}: an .npz archive; expected one array, as numpy.save writes it (.npy)")
    return array[np.newaxis] if array.ndim == 1 else array


def read_arrays(path: Path) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """The array of an ``.npy`` file, or those of an ``.npz`` file by name, in this machine's byte order.

    Parameters
    ----------
    path : a file, a pipe, or ``-`` for standard input.

    Raises
    ------
    InputError
        There is no such file, it is none of both, or it names an array twice.
    """
    try:
        with _opened(path) as stream:
            if stream.read(2) == b"PK":
                return _archive(stream)
            stream.seek(0)
            return _native(read_npy(stream, _size(stream), path.name))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: not an .npy file of plain numbers ({reason})") from None


def read_npy(stream: IO[bytes], size: int, name: str, exact: bool = False) -> NDArray[Any]:
    """The array of an `.npy` stream of `size` bytes, of which nothing is believed before it is compared with them.

    exact : nothing stands behind the array.

    Raises
    ------
    ValueError
        In words: it is none, is pickled, or claims more bytes than there are. Also what else of `UNREADABLE` numpy
        raises.
    """
    shape, dtype, header = read_header(stream)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which only pickle reads; expected numbers")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > size - header or (exact and claimed != size - header):
        raise ValueError(f"{name} claims {claimed} bytes, the file holds {size - header}")
    stream.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, dtype and length of the header of an `.npy` stream. Raises what `read_npy` raises."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if not all(type(size) is int and 0 <= size < 1 << 63 for size in shape):  # numpy also takes True and -1
        raise ValueError(f"its shape is {shape!r:.200}; expected whole numbers, none negative")
    return shape, dtype, stream.tell()


def _archive(stream: IO[bytes]) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(stream) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        names = [member.filename.removesuffix(".npy") for member in archive.infolist()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"holds {', '.join(twice)} more than once; expected each array once")
        found = {}
        for name, member in members.items():
            with archive.open(member) as file:
                found[name] = _native(read_npy(file, member.file_size, name))
        return found


def _size(stream: IO[bytes]) -> int:
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    return size


def _opened(path: Path) -> IO[bytes]:
    """A stream that numpy can move about in; what comes through a pipe is read whole."""
    if str(path) == "-":
        return io.BytesIO(sys.stdin.buffer.read())
    stream = path.open("rb")
    if stream.seekable():
        return stream
    with stream:
        return io.BytesIO(stream.read())


def _native(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(array.dtype.newbyteorder("="), copy=False)
