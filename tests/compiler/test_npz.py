"""One layer from `.npz`: dense or sparse, and nothing that the file claims is believed."""

from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from compiler.errors import ModelError
from compiler.frontend.npz import load_layer
from compiler.graph.dense import Dense
from compiler.graph.ir import Graph


@pytest.fixture
def weight(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(-7, 8, (6, 9)) * (rng.random((6, 9)) < 0.4)


def only_layer(graph: Graph) -> Dense:
    """The layer between the input and the output."""
    _, node, _ = graph.nodes
    assert node.op == "Linear"
    return Dense(node.name, node.tensors["weight"], node.tensors.get("bias"), node["activation"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int64, np.int8])
def test_a_dense_layer(dtype: Any, weight: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "l.npz", weight=weight.astype(dtype), bias=np.arange(6), activation="relu")
    layer = only_layer(load_layer(tmp_path / "l.npz"))
    assert (layer.name, layer.activation, layer.weight.dtype) == ("layer", "relu", np.float32)
    np.testing.assert_array_equal(layer.weight, weight)
    np.testing.assert_array_equal(layer.bias, np.arange(6.0))


@pytest.mark.parametrize("kind", ["csr", "csc"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("matrix", [scipy.sparse.coo_array, scipy.sparse.coo_matrix])
def test_a_sparse_layer_as_scipy_saves_it(
    kind: str, compressed: bool, matrix: Any, weight: np.ndarray, tmp_path: Path
) -> None:
    scipy.sparse.save_npz(tmp_path / "l.npz", matrix(weight).asformat(kind), compressed=compressed)
    layer = only_layer(load_layer(tmp_path / "l.npz"))
    assert (layer.activation, layer.bias) == ("none", None)
    np.testing.assert_array_equal(layer.weight, weight)


def test_a_sparse_layer_with_bias_and_activation(weight: np.ndarray, tmp_path: Path) -> None:
    m = scipy.sparse.csc_array(weight)
    np.savez(
        tmp_path / "l.npz", data=m.data, indices=m.indices, indptr=m.indptr, shape=m.shape, format="csc",
        bias=np.full(6, 0.5), activation=np.bytes_(b"none"),
    )  # fmt: skip
    layer = only_layer(load_layer(tmp_path / "l.npz"))
    np.testing.assert_array_equal(layer.weight, weight)
    assert layer.bias is not None


SPARSE = {
    "data": np.ones(2), "indices": np.array([0, 3]), "indptr": np.array([0, 1, 2]), "shape": np.array([2, 4]),
    "format": "csr",
}  # fmt: skip
DENSE: dict[str, Any] = {"weight": np.ones((2, 3))}


@pytest.mark.verifies("robust-sparse-places")
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "holds nothing; expected either weight"),
        ({"bias": np.ones(3)}, "holds bias; expected either weight"),
        ({**SPARSE, **DENSE}, "expected either weight"),
        ({"data": np.ones(2), "indices": np.ones(2, int)}, "expected either weight"),
        ({**DENSE, "wieght": np.ones(3)}, "unknown arrays wieght"),
        ({"weight": np.ones(3)}, r"expected float \(out, in\)"),
        ({"weight": np.ones((0, 3))}, r"expected float \(out, in\)"),
        ({"weight": np.ones((2, 3), complex)}, "weight has type complex128; expected numbers"),
        ({"weight": np.array([["a"]])}, "weight has type <U1; expected numbers"),
        ({"weight": np.array([[None]])}, "weight has type object; expected numbers"),
        ({"weight": np.full((2, 3), 1e300)}, "weight is not finite"),
        ({"weight": np.full((2, 3), np.nan)}, "weight is not finite"),
        ({**DENSE, "bias": np.ones(3)}, r"bias is float64 \(3,\); expected float \(2,\)"),
        ({**DENSE, "bias": np.array([0, np.inf])}, "bias is not finite"),
        ({**DENSE, "activation": "tanh"}, "activation is 'tanh'; expected none or relu"),
        ({**DENSE, "activation": 1}, "activation has type int64; expected text"),
        ({**SPARSE, "format": "lil"}, "sparse format is 'lil'; expected csr, csc, coo, bsr"),
        ({**SPARSE, "format": "coo"}, "a coo matrix without col, row; expected col, data, format, row, shape"),
        ({**SPARSE, "row": np.ones(2, int)}, "a csr matrix with row"),
        ({**SPARSE, "format": "bsr"}, "no blocks that tile"),
        ({**SPARSE, "shape": np.array([2, 3, 4])}, r"shape is int64 \(3,\); expected two integers"),
        ({**SPARSE, "shape": np.array([2.0, 4.0])}, "expected two integers"),
        ({**SPARSE, "shape": np.array([0, 4])}, r"shape is \(0, 4\)"),
        ({**SPARSE, "shape": np.array([1 << 31, 1 << 31])}, "expected at least .* and at most"),
        ({**SPARSE, "shape": np.array([2, 3])}, "inconsistent sparse matrix"),
        ({**SPARSE, "indices": np.array([0, -1])}, "inconsistent sparse matrix"),
        ({**SPARSE, "indices": np.array([0, 1 << 40])}, "inconsistent sparse matrix"),
        ({**SPARSE, "indices": np.array([0.0, 1.0])}, "must be one-dimensional integers"),
        ({**SPARSE, "indptr": np.array([0, 1 << 40, 2])}, "inconsistent sparse matrix"),
        ({**SPARSE, "indptr": np.array([0, 3, 2])}, "inconsistent sparse matrix"),
        ({**SPARSE, "indptr": np.array([0, 2])}, "inconsistent sparse matrix"),
        # scipy believes these, because the last place says that there are none, and writes beyond its arrays.
        ({**SPARSE, "indptr": np.array([0, 1 << 20, 0])}, "inconsistent sparse matrix"),
        ({**SPARSE, "indptr": np.array([0, -5, 0])}, "inconsistent sparse matrix"),
        (
            {**SPARSE, "data": np.ones((2, 1, 1)), "format": "bsr", "indptr": np.array([0, 1 << 30, 0])},
            "inconsistent sparse matrix",
        ),
        ({**SPARSE, "data": np.ones(1)}, "inconsistent sparse matrix"),
    ],
)
def test_what_is_not_a_layer_is_refused(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "l.npz", **arrays)
    with pytest.raises(ModelError, match=message) as caught:
        load_layer(tmp_path / "l.npz")
    assert "l.npz: " in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(50), pickle.dumps([1])])
def test_what_is_not_a_zip_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "l.npz").write_bytes(content)
    with pytest.raises(ModelError, match=r"not a readable \.npz file"):
        load_layer(tmp_path / "l.npz")


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load_layer(tmp_path / "l.npz")
    with pytest.raises(ModelError, match="not a readable"):
        load_layer(tmp_path)


@pytest.mark.verifies("nothing-unpickled")
def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    np.savez(tmp_path / "l.npz", weight=np.array([[Bomb()]], object))
    assert not (tmp_path / "executed").exists()
    with pytest.raises(ModelError, match="weight has type object"):
        load_layer(tmp_path / "l.npz")
    assert not (tmp_path / "executed").exists()


def test_a_file_cut_or_flipped_is_refused_or_the_same(
    weight: np.ndarray, tmp_path: Path, rng: np.random.Generator
) -> None:
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    scipy.sparse.save_npz(good, scipy.sparse.csr_array(weight))
    content = good.read_bytes()
    for length in rng.integers(0, len(content), 100).tolist():
        bad.write_bytes(content[:length])
        with pytest.raises(ModelError):
            load_layer(bad)
    for place in rng.integers(0, len(content), 300).tolist():
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        bad.write_bytes(flipped)
        try:
            layer = only_layer(load_layer(bad))
        except ModelError:
            continue
        np.testing.assert_array_equal(layer.weight, weight)


@pytest.mark.parametrize("shape", [(1 << 20, 1 << 20), (1 << 62, 1), (1 << 62, 4), (-1, -1), (-1, 3)])
def test_sizes_that_lie_cost_no_memory(shape: tuple[int, int], tmp_path: Path) -> None:
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(text, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "l.npz", "w") as archive:
        archive.writestr("weight.npy", text.getvalue() + bytes(64))
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=r"claims|none negative"):
            load_layer(tmp_path / "l.npz")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
