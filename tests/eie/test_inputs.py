"""Arrays for a command: from files, pipes and standard input, in any byte order."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from compiler.arrays import read_arrays, read_batch
from compiler.errors import InputError
from eie.inputs import read_inputs

ROOT = Path(__file__).parents[2]


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", [">i2", "<i2", ">f2", ">f4", "<f8", ">i8"])
def test_numbers_come_in_this_machines_byte_order(dtype: str, tmp_path: Path) -> None:
    x = np.arange(12).reshape(3, 4)
    np.save(tmp_path / "x.npy", x.astype(dtype))
    np.savez(tmp_path / "x.npz", x=x.astype(dtype))
    for read in (read_batch(tmp_path / "x.npy"), *read_inputs(tmp_path / "x.npz", ["x"])):
        assert read.dtype.isnative
        np.testing.assert_array_equal(read, x)


def test_a_pipe_is_read(tmp_path: Path) -> None:
    x = np.arange(6.0).reshape(2, 3)
    os.mkfifo(tmp_path / "x")
    writer = threading.Thread(target=(tmp_path / "x").write_bytes, args=[saved(x)])
    writer.start()
    np.testing.assert_array_equal(read_batch(tmp_path / "x"), x)
    writer.join()


@pytest.mark.verifies("inputs-pipes-standard-input-byte")
@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_is_read(name: str) -> None:
    code = (
        f"from pathlib import Path; from compiler.arrays import read_batch; print(read_batch(Path({name!r})).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=saved(np.arange(3)), capture_output=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.decode() == "[[0, 1, 2]]\n", done.stderr.decode()


def test_an_array_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of what is tested here
        archive.writestr("x.npy", saved(np.zeros(3)))
        archive.writestr("x.npy", saved(np.ones(3)))
    with pytest.raises(InputError, match="holds x more than once"):
        read_arrays(tmp_path / "x.npz")


@pytest.mark.verifies("inputs-pipes-standard-input-byte")
@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(30), saved(np.ones(5))[:-3], b"\x93NUMPY\x01"])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"not an \.npy file of plain numbers"):
        read_arrays(tmp_path / "x.npy")


def lying(shape: str, descr: str = "'<f4'") -> bytes:
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\0" + len(head).to_bytes(2, "little") + head + bytes(64)


@pytest.mark.verifies("robust-headers")
@pytest.mark.parametrize("shape", ["(True, 4)", "(-1, 4)", "(1 << 64,)", "(18446744073709551616,)", "(1099511627776,)"])
def test_a_header_that_lies_is_refused_before_anything_is_allocated(shape: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", lying(shape))
    (tmp_path / "x.npy").write_bytes(lying(shape))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(InputError, match=r"not an \.npy file of plain numbers"):
            read_arrays(tmp_path / name)


@pytest.mark.verifies("robust-headers")
def test_a_member_that_is_no_array_and_one_of_objects_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", b"no array")
    with pytest.raises(InputError, match="the magic string is not correct"):
        read_arrays(tmp_path / "x.npz")
    (tmp_path / "x.npy").write_bytes(lying("(8,)", "'|O'"))
    with pytest.raises(InputError, match="holds Python objects, which only pickle reads"):
        read_arrays(tmp_path / "x.npy")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_arrays(tmp_path / "x.npy")
    with pytest.raises(InputError, match="directory"):
        read_arrays(tmp_path)


def test_engines_take_raw_inputs_of_any_byte_order() -> None:
    from compiler.graph.dense import Dense, dense_graph
    from compiler.lower.pipeline import compile_graph
    from hw.params import preset
    from sim.run import check_input

    x = np.arange(8, dtype=np.int16).reshape(2, 4)
    network = compile_graph(dense_graph([Dense("a", np.eye(4, dtype=np.float32))]), preset("BALANCED_2"), x)
    (raw,), saturated = check_input(network.images[0], x.astype(">i2"))
    np.testing.assert_array_equal(raw.reshape(2, 4), x)
    assert (raw.dtype, saturated) == (np.int16, 0)
