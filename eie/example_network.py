"""The files that ``eie init`` writes: a small network that reads digits, made with numpy alone, the same on every call.

Its first layer is a sparse random projection, its second the least-squares answer to which digit was drawn. No training
and no data set: the digits are a font of 5x7 dots on 8x8 pixels, moved about and sprinkled with noise.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

__all__ = ["HIDDEN", "MODULE", "SIDE", "drawn", "files", "weights"]

SIDE, HIDDEN, DIGITS = 8, 96, 10
_DENSITY = 0.25
_SAMPLES = 2000
_RIDGE = 30.0

_FONT = (
    "01110 10001 10011 10101 11001 10001 01110", "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00110 01000 10000 11111", "01110 10001 00001 00110 00001 10001 01110",
    "00010 00110 01010 10010 11111 00010 00010", "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110", "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110", "01110 10001 10001 01111 00001 00010 01100",
)  # fmt: skip

MODULE = f'''"""A network that reads digits of {SIDE}x{SIDE} pixels. `eie compile my_module:make_model` calls the
function below."""

import torch
from torch import nn


class Digits(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Linear({SIDE * SIDE}, {HIDDEN})
        self.classes = nn.Linear({HIDDEN}, {DIGITS})

    def forward(self, pixels):
        return self.classes(torch.relu(self.features(pixels)))


def make_model():
    """The module, and inputs of the shape that it takes: a batch of two."""
    return Digits(), torch.rand(2, {SIDE * SIDE})
'''


def drawn(digits: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float32]:
    """Pictures of digits, float32 (n, 64) in 0 … 1, each at a random place and with noise."""
    font = np.array([[list(map(int, row)) for row in text.split()] for text in _FONT], np.float32)
    pictures = np.zeros((len(digits), SIDE, SIDE), np.float32)
    for picture, digit, top, left in zip(
        pictures, digits, rng.integers(0, 2, len(digits)), rng.integers(1, 3, len(digits)), strict=True
    ):
        picture[top : top + 7, left : left + 5] = font[digit]
    noisy = pictures * rng.uniform(0.8, 1.0, pictures.shape) + rng.uniform(0, 0.1, pictures.shape)
    return np.clip(noisy, 0, 1).reshape(len(digits), -1).astype(np.float32)


def weights(rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """State of the module: three quarters of the first layer are zeros."""
    first = rng.integers(-7, 8, (HIDDEN, SIDE * SIDE)) / 8 * (rng.random((HIDDEN, SIDE * SIDE)) < _DENSITY)
    bias = rng.normal(size=HIDDEN)
    digits = rng.integers(0, DIGITS, _SAMPLES)
    hidden = np.maximum(drawn(digits, rng) @ first.T + bias, 0)
    known = np.hstack([hidden, np.ones((_SAMPLES, 1))])
    goal = 2.0 * np.eye(DIGITS)[digits] - 1
    second = np.linalg.solve(known.T @ known + _RIDGE * np.eye(HIDDEN + 1), known.T @ goal).T
    state = {
        "features.weight": first, "features.bias": bias, "classes.weight": second[:, :-1],
        "classes.bias": second[:, -1],
    }  # fmt: skip
    return {name: np.ascontiguousarray(value, np.float32) for name, value in state.items()}


def files(seed: int = 1) -> dict[str, bytes]:
    """Name → content.

    ``my_module.py``, its weights ``model.safetensors``; inputs ``x.npy`` (20 pictures, of the digits 0 … 9 twice);
    ``calibration.npy`` (256 others); and the first layer alone, ``layer.npz``, which needs no torch.
    """
    from safetensors.numpy import save

    rng = np.random.default_rng(seed)
    state = weights(rng)
    layer = {"weight": state["features.weight"], "bias": state["features.bias"], "activation": np.array("relu")}
    return {
        "my_module.py": MODULE.encode(),
        "model.safetensors": save(state),
        "x.npy": _saved(drawn(np.arange(20) % DIGITS, rng)),
        "calibration.npy": _saved(drawn(rng.integers(0, DIGITS, 256), rng)),
        "layer.npz": _archive(layer),
    }


def _saved(array: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _archive(arrays: dict[str, NDArray[np.generic]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
