"""One layer from `.npz` in every type, byte order and sparse format in which numpy and scipy write it."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from compiler.errors import ModelError
from compiler.frontend.npz import load_layer

TYPES = ["<f2", ">f2", "<f4", ">f4", ">f8", "<i2", ">i2", ">i8", "u1", "?"]


def read(path: Path) -> np.ndarray:
    (layer,) = (node for node in load_layer(path) if node.op == "Linear")
    weight: np.ndarray = layer.tensors["weight"]
    assert weight.dtype == np.float32
    return weight


@pytest.fixture
def weight(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 8, (6, 8)) * (rng.random((6, 8)) < 0.4)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_dense_layer_of_any_type_and_byte_order(dtype: str, weight: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "l.npz", weight=weight.astype(dtype), bias=np.arange(6).astype(dtype))
    np.testing.assert_array_equal(read(tmp_path / "l.npz"), weight.astype(dtype).astype(np.float32))


@pytest.mark.verifies("layers-npz-type-byte-order")
@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr"])
@pytest.mark.parametrize("dtype", TYPES)
def test_a_sparse_layer_of_any_type_byte_order_and_format(
    kind: str, dtype: str, weight: np.ndarray, tmp_path: Path
) -> None:
    # scipy itself computes with none of these, so its fields are converted after it made them.
    matrix = scipy.sparse.coo_matrix(weight).asformat(kind)
    fields: dict[str, Any] = {"data": matrix.data.astype(dtype), "shape": matrix.shape, "format": kind.encode()}
    for name in ("row", "col") if kind == "coo" else ("indices", "indptr"):
        fields[name] = getattr(matrix, name).astype(">i4")
    np.savez(tmp_path / "l.npz", **fields)
    np.testing.assert_array_equal(read(tmp_path / "l.npz"), weight.astype(dtype).astype(np.float32))


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr"])
@pytest.mark.parametrize("make", [scipy.sparse.coo_matrix, scipy.sparse.coo_array])
def test_what_scipy_saves(kind: str, make: Any, weight: np.ndarray, tmp_path: Path) -> None:
    scipy.sparse.save_npz(tmp_path / "l.npz", make(weight.astype(np.float32)).asformat(kind))
    np.testing.assert_array_equal(read(tmp_path / "l.npz"), weight)


@pytest.mark.parametrize(
    "fields",
    [
        {"row": np.array([0, 6]), "col": np.array([0, 1])},
        {"row": np.array([0, -1]), "col": np.array([0, 1])},
        {"row": np.array([0]), "col": np.array([0, 1])},
        {"row": np.array([0, 1 << 40]), "col": np.array([0, 1])},
    ],
)
def test_coo_fields_that_contradict_one_another(fields: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "l.npz", data=np.ones(2), shape=(6, 8), format="coo", **fields)
    with pytest.raises(ModelError, match="inconsistent sparse matrix"):
        load_layer(tmp_path / "l.npz")


@pytest.mark.verifies("layers-npz-type-byte-order")
@pytest.mark.parametrize("second", ["weight.npy", "weight"])
def test_a_name_that_stands_twice(second: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "l.npz", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of what is tested here
        for value, name in enumerate(("weight.npy", second)):
            buffer = io.BytesIO()
            np.save(buffer, np.full((2, 3), value, np.float32))
            archive.writestr(name, buffer.getvalue())
    with pytest.raises(ModelError, match="holds weight more than once"):
        load_layer(tmp_path / "l.npz")
