"""Read arrays from a file, a pipe or standard input. What they must look like is for the network to say."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.frontend.npz import UNREADABLE

__all__ = ["read_arrays", "read_batch"]


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
            content = np.load(stream, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return _native(content)
            if twice := sorted({name for name in content.files if content.files.count(name) > 1}):
                raise InputError(f"{path}: holds {', '.join(twice)} more than once; expected each array once")
            return {name: _native(content[name]) for name in content.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: not an .npy file of plain numbers ({reason})") from None


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
