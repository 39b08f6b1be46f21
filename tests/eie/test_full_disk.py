"""A disk that is full at any byte of an output: a clear error, and what stood there before stands there still."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.eie.conftest import Invoke, Layer

OLD = b"what stood there before"
WRITES = {
    "compile": lambda layer, folder: ("compile", layer.npz, "-o", folder / "out", "--calibrate", layer.inputs),
    "run": lambda layer, folder: ("run", layer.image, "--input", layer.inputs, "--output", folder / "out"),
    "json": lambda layer, folder: ("run", layer.image, "--input", layer.inputs, "--json", folder / "out"),
    "compress": lambda layer, folder: ("compress", folder / "w.safetensors", "-o", folder / "out"),
    "decompress": lambda layer, folder: ("decompress", folder / "w.eiez", "-o", folder / "out"),
}


@contextlib.contextmanager
def room(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes in the block: the system refuses the rest, as on a full disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.fixture(scope="module")
def given(layer: Layer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the inputs of all commands."""
    from tests.eie.conftest import invoke

    folder = tmp_path_factory.mktemp("full")
    codes = np.random.default_rng(1).choice(np.array([0, 0, 0.5, -1], np.float32), (40, 50))
    save_file({"a.weight": codes}, folder / "w.safetensors")
    assert invoke("compress", folder / "w.safetensors", "-o", folder / "w.eiez").exit_code == 0
    return folder


@pytest.mark.verifies("robust-full-disk")
@pytest.mark.parametrize("name", WRITES)
def test_an_output_is_whole_or_what_it_was(name: str, layer: Layer, given: Path, invoke: Invoke) -> None:
    command, target = WRITES[name](layer, given), given / "out"
    assert invoke(*command).exit_code == 0
    whole, before = target.read_bytes(), sorted(path.name for path in given.iterdir())
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        target.write_bytes(OLD)
        with room(size):
            result = invoke(*command)
        assert result.exit_code == 2, result.output
        assert f"{target}" in result.output, result.output
        assert "File too large" in result.output, result.output
        assert target.read_bytes() == OLD
        assert sorted(path.name for path in given.iterdir()) == before
    with room(len(whole)):
        assert invoke(*command).exit_code == 0
    assert target.read_bytes() == whole
