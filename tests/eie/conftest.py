"""A random layer, compiled once, and the command line called in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from eie.cli import cli

Invoke = Callable[..., Result]


@dataclass(frozen=True)
class Layer:
    """A layer of integers on disk, its inputs, and its image. What it must compute follows from these alone."""

    weight: NDArray[np.int64]
    bias: NDArray[np.int64]
    x: NDArray[np.int16]
    npz: Path
    inputs: Path
    image: Path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(name="invoke")
def invoke_fixture() -> Invoke:
    return invoke


@pytest.fixture(scope="session")
def layer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Layer:
    """A random 300x784 ReLU layer whose 14 weights fit a codebook exactly, for 16 PEs."""
    rng = np.random.default_rng(request.config.getoption("seed"))
    folder = tmp_path_factory.mktemp("layer")
    weight = rng.integers(-7, 8, (300, 784)) * (rng.random((300, 784)) < 0.1)
    bias = rng.integers(-5000, 5000, 300)
    x = (rng.integers(-2000, 4000, (5, 784)) * (rng.random((5, 784)) < 0.4)).astype(np.int16)
    made = Layer(weight, bias, x, folder / "layer.npz", folder / "x.npy", folder / "layer.eie")
    np.savez(made.npz, weight=weight.astype(np.float32), bias=bias.astype(np.float64), activation="relu")
    np.save(made.inputs, x)
    result = invoke("compile", made.npz, "-o", made.image, "--preset", "BALANCED_16", "--calibrate", made.inputs)
    assert result.exit_code == 0, result.output
    return made
