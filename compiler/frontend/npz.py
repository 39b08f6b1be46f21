"""One layer from an `.npz` file, dense or as `scipy.sparse.save_npz` writes it.

The file is not trusted: nothing is unpickled, and no size that it claims is believed before it is compared
with the bytes that are there.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from compiler.errors import ModelError
from compiler.graph.dense import Dense, dense_graph
from compiler.graph.ir import Graph

__all__ = ["MAX_ELEMENTS", "load_layer"]

MAX_ELEMENTS = 1 << 29
"""Weights a layer may have, zeros included: a small file can claim any shape, and the dense form must fit memory."""

_UNREADABLE = (
    OSError, EOFError, ValueError, MemoryError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_SPARSE = frozenset({"data", "indices", "indptr", "shape", "format"})
_TEXTS = frozenset({"activation", "format"})
_KNOWN = _SPARSE | {"weight", "bias", "activation", "_is_array"}


def load_layer(path: str | Path) -> Graph:
    """A network of one layer, named "layer".

    The file holds ``weight`` (out, in), or ``data indices indptr shape format`` of a CSR or CSC matrix;
    optionally ``bias`` (out,) and ``activation`` "none" or "relu" (default "none").

    Raises
    ------
    ModelError
        The file is not such a layer; the message says what is wrong with it.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {name: _read(archive, member, name) for member, name in _members(archive)}
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except _UNREADABLE as e:
        raise ModelError(f"{path}: not a readable .npz file ({e})") from None
    try:
        graph = dense_graph([_layer(arrays)])
    except ModelError as e:
        raise ModelError(f"{path}: {e}") from None
    return graph


def _members(archive: zipfile.ZipFile) -> list[tuple[zipfile.ZipInfo, str]]:
    members = [(member, member.filename.removesuffix(".npy")) for member in archive.infolist()]
    if unknown := sorted({name for _, name in members} - _KNOWN):
        raise ValueError(f"unknown arrays {', '.join(unknown)}; expected {', '.join(sorted(_KNOWN - {'_is_array'}))}")
    return members


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> NDArray[Any]:
    with archive.open(member) as file:
        shape, dtype, header = _header(file)
        if dtype.kind not in ("SU" if name in _TEXTS else "fiub"):
            raise ValueError(f"{name} has type {dtype}; expected {'text' if name in _TEXTS else 'numbers'}")
        size = math.prod(shape) * dtype.itemsize
        # Compared before anything is allocated. zipfile never hands out more than `file_size` bytes.
        if size != member.file_size - header:
            raise ValueError(f"{name} claims {size} bytes, the file holds {member.file_size - header}")
        if size > MAX_ELEMENTS * 8:
            raise ValueError(f"{name} has {size} bytes; expected at most {MAX_ELEMENTS * 8}")
    with archive.open(member) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, dtype and length of the header of an `.npy` stream."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype, file.tell()


def _layer(arrays: dict[str, NDArray[Any]]) -> Dense:
    if "weight" in arrays and not _SPARSE & set(arrays):
        weight = arrays["weight"]
    elif set(arrays) >= _SPARSE and "weight" not in arrays:
        weight = _dense(arrays)
    else:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise ModelError(f"holds {found}; expected either weight, or {', '.join(sorted(_SPARSE))}")
    bias = arrays.get("bias")
    text = _text(arrays.get("activation", np.array("none")))
    if text not in ("none", "relu"):
        raise ModelError(f"activation is {text!r}; expected none or relu")
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and the check of the graph says so
        return Dense(
            "layer",
            np.ascontiguousarray(weight, np.float32),
            None if bias is None else bias.astype(np.float64),
            "relu" if text == "relu" else "none",
        )


def _text(array: NDArray[Any]) -> str:
    value = array.item() if array.size == 1 else array.tolist()
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def _dense(arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The dense form of a stored sparse matrix."""
    shape, layout = arrays["shape"], _text(arrays["format"])
    if layout not in ("csr", "csc"):
        raise ModelError(f"sparse format is {layout!r}; expected csr or csc (save `matrix.tocsr()`)")
    if shape.shape != (2,) or shape.dtype.kind not in "iu":
        raise ModelError(f"shape is {shape.dtype} {shape.shape}; expected two integers")
    rows, columns = (int(n) for n in shape)
    if rows < 1 or columns < 1 or rows * columns > MAX_ELEMENTS:
        raise ModelError(f"shape is ({rows}, {columns}); expected at least (1, 1) and at most {MAX_ELEMENTS} weights")
    if any(arrays[name].ndim != 1 or arrays[name].dtype.kind not in "iu" for name in ("indices", "indptr")):
        raise ModelError("indices and indptr must be one-dimensional integers")
    make = scipy.sparse.csr_array if layout == "csr" else scipy.sparse.csc_array
    try:
        matrix = make((arrays["data"], arrays["indices"], arrays["indptr"]), shape=(rows, columns))
        matrix.check_format(full_check=True)
    except (ValueError, TypeError, OverflowError) as e:
        raise ModelError(f"inconsistent sparse matrix ({e})") from None
    dense: NDArray[Any] = matrix.toarray()
    return dense
