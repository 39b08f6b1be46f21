"""Parallel training: the gradients of every way are those of one process, to float rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compiler.train.data import Split
from compiler.train.images import ImageBatch, Images
from compiler.train.models import ModelSpec, build
from compiler.train.parallel.mesh import Mesh
from compiler.train.parallel.pipeline import Pipeline
from tests.compiler.train.terngrad.processes import in_group

SHAPE, CLASSES, SAMPLES = (1, 8, 8), 10, 10
MODELS = {
    "mlp": ModelSpec("mlp", {"hidden": (12, 7)}),
    "cnn": ModelSpec("lenet-5", {"channels": (4, 6), "hidden": 9, "padding": 2}),
    "lstm": ModelSpec("lstm", {"hidden": 6}),
}
WAYS = ("data", "sharded", "tensor", "data-tensor", "gpipe", "1f1b")


def module_of(name: str) -> nn.Module:
    torch.manual_seed(3)
    return build(MODELS[name], SHAPE, CLASSES)


def batch() -> ImageBatch:
    rng = np.random.default_rng(5)
    inputs = rng.uniform(size=(SAMPLES, 64)).astype(np.float32)
    lesson = Images(Split(inputs, rng.integers(0, CLASSES, SAMPLES)), SHAPE)
    return next(lesson.batches(0, SAMPLES, torch.Generator().manual_seed(1)))


def alone(name: str) -> dict[str, np.ndarray[Any, Any]]:
    module = module_of(name)
    batch().loss(module).backward()  # type: ignore[no-untyped-call]
    return {key: parameter.grad.numpy() for key, parameter in module.named_parameters() if parameter.grad is not None}


def gradients(pairs: list[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    """In a process of a group: whole gradients of each way and model, or what it raised."""
    found: dict[tuple[str, str], Any] = {}
    for way, name in pairs:
        try:
            found[way, name] = of_way(way, name)
        except Exception as error:
            found[way, name] = f"{type(error).__name__}: {error}"
    return found


def of_way(way: str, name: str) -> dict[str, np.ndarray[Any, Any]]:
    module, given = module_of(name), batch()
    # Four micro-batches of three samples: two of twelve have no weight.
    part: Any = Pipeline(module, given.inputs, 4, way) if way in ("gpipe", "1f1b") else Mesh(module, way, 1)
    part(part.module, given)
    parts = {key: p.grad for key, p in part.module.named_parameters() if p.grad is not None}
    return {key: value.detach().numpy() for key, value in part.whole(parts).items()}


def differ(found: Any, name: str) -> str:
    """What is wrong with gradients; "" if they are those of one process."""
    if isinstance(found, str):
        return found
    expected = alone(name)
    if set(found) != set(expected):
        return f"has {sorted(found)}, expected {sorted(expected)}"
    wrong = {
        key: float(np.abs(found[key] - value).max() / np.abs(value).max())
        for key, value in expected.items()
        if not np.allclose(found[key], value, rtol=1e-4, atol=1e-6 * float(np.abs(value).max()) + 1e-9)
    }
    return f"{wrong}" if wrong else ""


@pytest.mark.verifies("parallel-gradients-equal-one-process")
def test_gradients_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    pairs = [(way, name) for way in WAYS for name in MODELS]
    for found in in_group(2, tmp_path, gradients, pairs):
        assert {pair: differ(found[pair], pair[1]) for pair in pairs} == dict.fromkeys(pairs, "")
