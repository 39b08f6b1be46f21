"""A sparse matrix from the fields that `scipy.sparse.save_npz` writes: csr, csc, coo and bsr.

Nothing that the fields claim is believed: shapes and indices are checked before a dense matrix is made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from compiler.errors import ModelError

__all__ = ["FIELDS", "FORMATS", "to_dense", "widened"]

FORMATS: dict[str, tuple[str, ...]] = {
    "csr": ("indices", "indptr"),
    "csc": ("indices", "indptr"),
    "coo": ("row", "col"),
    "bsr": ("indices", "indptr"),
}
"""Format → the fields that hold its places; ``data shape format`` are common to all."""

FIELDS = frozenset({"data", "shape", "format"}.union(*FORMATS.values()))
"""Every field that a sparse matrix may have."""


def to_dense(arrays: Mapping[str, NDArray[Any]], layout: str, most: int) -> NDArray[Any]:
    """The dense form, float32 (rows, columns).

    Parameters
    ----------
    arrays : the fields by name.
    layout : what ``format`` says.
    most : elements that the dense form may have.

    Raises
    ------
    ModelError
        The format is none of `FORMATS`, a field is missing, or the fields contradict one another.
    """
    if layout not in FORMATS:
        raise ModelError(f"sparse format is {layout!r}; expected {', '.join(FORMATS)} (save `matrix.tocsr()`)")
    wanted = {"data", "shape", "format", *FORMATS[layout]}
    if missing := sorted(wanted - set(arrays)):
        raise ModelError(f"a {layout} matrix without {', '.join(missing)}; expected {', '.join(sorted(wanted))}")
    if extra := sorted(FIELDS & set(arrays) - wanted):
        raise ModelError(f"a {layout} matrix with {', '.join(extra)}; expected {', '.join(sorted(wanted))}")
    rows, columns = _shape(arrays["shape"], most)
    places = [arrays[name] for name in FORMATS[layout]]
    if any(place.ndim != 1 or place.dtype.kind not in "iu" for place in places):
        raise ModelError(f"{' and '.join(FORMATS[layout])} must be one-dimensional integers")
    # scipy computes with native numbers only, and not with halves.
    data = widened(arrays["data"])
    native = [place.astype(np.int64) for place in places]
    try:
        matrix = _matrix(layout, data, native, (rows, columns))
    except (ValueError, TypeError, OverflowError, IndexError) as error:
        raise ModelError(f"inconsistent sparse matrix ({error})") from None
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, which the caller refuses
        dense: NDArray[Any] = matrix.astype(np.float32).toarray()
    return dense


def widened(array: NDArray[Any]) -> NDArray[Any]:
    """Numbers of any type and byte order as native ones that hold each exactly: float32 or wider."""
    return array.astype(np.result_type(array.dtype, np.float32), copy=False)


def _shape(shape: NDArray[Any], most: int) -> tuple[int, int]:
    if shape.shape != (2,) or shape.dtype.kind not in "iu":
        raise ModelError(f"shape is {shape.dtype} {shape.shape}; expected two integers")
    rows, columns = (int(n) for n in shape)
    if rows < 1 or columns < 1 or rows * columns > most:
        raise ModelError(f"shape is ({rows}, {columns}); expected at least (1, 1) and at most {most} weights")
    return rows, columns


def _matrix(layout: str, data: NDArray[Any], places: list[NDArray[Any]], shape: tuple[int, int]) -> Any:
    first, second = places
    if layout == "coo":
        if data.ndim != 1 or not len(data) == len(first) == len(second):
            raise ValueError(f"data {data.shape}, row {first.shape} and col {second.shape}: expected equal lengths")
        matrix = scipy.sparse.coo_array((data, (first, second)), shape=shape)  # checks the places
        return matrix.tocsr()
    if layout == "bsr" and (data.ndim != 3 or 0 in data.shape[1:] or any(np.mod(shape, data.shape[1:]))):
        raise ValueError(f"data {data.shape} are no blocks that tile {shape}")
    if layout != "bsr" and data.ndim != 1:
        raise ValueError(f"data {data.shape}: expected one dimension")
    lines, places_of_line = (size // block for size, block in zip(shape, data.shape[1:] or (1, 1), strict=True))
    if layout == "csc":
        lines, places_of_line = places_of_line, lines
    _check_places(first, second, len(data), lines, places_of_line)
    make = {"csr": scipy.sparse.csr_array, "csc": scipy.sparse.csc_array, "bsr": scipy.sparse.bsr_array}[layout]
    matrix = make((data, first, second), shape=shape)
    matrix.check_format(full_check=True)
    return matrix


def _check_places(indices: NDArray[Any], indptr: NDArray[Any], count: int, lines: int, most: int) -> None:
    """Raise `ValueError` unless the places are sound.

    scipy does not look if the last one says that there are none, and then reads and writes beyond its arrays.
    """
    if len(indptr) != lines + 1 or indptr[0] != 0 or (np.diff(indptr) < 0).any() or indptr[-1] > len(indices):
        raise ValueError(
            f"indptr has {len(indptr)} numbers; expected {lines + 1} that begin with 0, do not fall, and end with at "
            f"most {len(indices)}"
        )
    if len(indices) != count or ((indices < 0) | (indices >= most)).any():
        raise ValueError(f"{len(indices)} indices; expected {count} from 0 to {most - 1}")
