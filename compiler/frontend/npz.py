"""One layer from an `.npz` file, dense or as `scipy.sparse.save_npz` writes it.

The file is not trusted: nothing is unpickled, and no size that it claims is believed before it is compared
with the bytes that are there.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.arrays import UNREADABLE, read_header, read_npy
from compiler.errors import ModelError
from compiler.frontend import npz_sparse
from compiler.graph.dense import Dense, dense_graph
from compiler.graph.ir import Graph

__all__ = ["MAX_ELEMENTS", "load_layer"]

MAX_ELEMENTS = 103 << 20
"""Weights a layer may have, zeros included: a small file can claim any shape, and its dense form takes half
a gigabyte. The largest layer of VGG-16 has 103 million."""

_SPARSE = npz_sparse.FIELDS
_TEXTS = frozenset({"activation", "format"})
_KNOWN = _SPARSE | {"weight", "bias", "activation", "_is_array"}


def load_layer(path: str | Path) -> Graph:
    """A network of one layer, named "layer".

    The file holds ``weight`` (out, in), of any type and byte order of real numbers, or what `scipy.sparse.save_npz`
    writes of a csr, csc, coo or bsr matrix (``data indices indptr shape format``, coo ``data row col shape format``);
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
    except UNREADABLE as e:
        raise ModelError(f"{path}: not a readable .npz file ({e})") from None
    try:
        graph = dense_graph([_layer(arrays)])
    except ModelError as e:
        raise ModelError(f"{path}: {e}") from None
    return graph


def _members(archive: zipfile.ZipFile) -> list[tuple[zipfile.ZipInfo, str]]:
    members = [(member, member.filename.removesuffix(".npy")) for member in archive.infolist()]
    names = [name for _, name in members]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"holds {', '.join(twice)} more than once; expected each array once")
    if unknown := sorted({name for _, name in members} - _KNOWN):
        raise ValueError(f"unknown arrays {', '.join(unknown)}; expected {', '.join(sorted(_KNOWN - {'_is_array'}))}")
    return members


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> NDArray[Any]:
    with archive.open(member) as file:
        _, dtype, _ = read_header(file)
        if dtype.kind not in ("SU" if name in _TEXTS else "fiub"):
            raise ValueError(f"{name} has type {dtype}; expected {'text' if name in _TEXTS else 'numbers'}")
        if member.file_size > MAX_ELEMENTS * 8:
            raise ValueError(f"{name} has {member.file_size} bytes; expected at most {MAX_ELEMENTS * 8}")
    # zipfile never hands out more than `file_size` bytes.
    with archive.open(member) as file:
        return read_npy(file, member.file_size, name, exact=True)


def _layer(arrays: dict[str, NDArray[Any]]) -> Dense:
    sparse = _SPARSE & set(arrays)
    if "weight" in arrays and not sparse:
        weight = arrays["weight"]
    elif sparse >= {"data", "shape", "format"} and "weight" not in arrays:
        weight = npz_sparse.to_dense(arrays, _text(arrays["format"]), MAX_ELEMENTS)
    else:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise ModelError(
            f"holds {found}; expected either weight, or data, shape, format and the indices of a sparse matrix, as "
            "scipy.sparse.save_npz writes them"
        )
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
