"""Splits are fixed, disjoint, and what the recipe asked for."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from compiler.errors import RecipeError, ToolError
from compiler.train import data


def rows(split: data.Split) -> set[bytes]:
    return {inputs.tobytes() for inputs in split.inputs}


def test_digits() -> None:
    dataset = data.load("digits", 0.15)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [1222, 216, 359]
    assert (dataset.features, dataset.classes) == (64, 10)
    for part in (dataset.train, dataset.validation, dataset.test):
        assert part.inputs.dtype == np.float32
        assert part.labels.dtype == np.int64
        assert part.inputs.min() == 0.0
        assert part.inputs.max() == 1.0
        assert set(part.labels) == set(range(10))


def test_parts_share_no_sample() -> None:
    dataset = data.load("digits", 0.3)
    parts = [rows(part) for part in (dataset.train, dataset.validation, dataset.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1797


def test_the_split_is_always_the_same() -> None:
    first, second = data.load("digits", 0.15), data.load("digits", 0.15)
    np.testing.assert_array_equal(first.train.inputs, second.train.inputs)
    # Figures of earlier runs are only comparable while these are the test samples.
    assert first.test.labels[:12].tolist() == [4, 9, 0, 2, 4, 6, 5, 0, 8, 9, 7, 0]
    assert rows(data.load("digits", 0.5).test) == rows(first.test)


def test_unknown_name() -> None:
    with pytest.raises(RecipeError, match=r"data.name is 'cifar'; expected one of digits, mnist, fashion-mnist"):
        data.load("cifar", 0.1)


@pytest.mark.parametrize("validation", [1e-9, 1 - 1e-9])
def test_split_that_leaves_nothing(validation: float) -> None:
    with pytest.raises(RecipeError, match=r"data.validation is"):
        data.load("digits", validation)


def test_missing_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ToolError, match=r"pip install 'eie-kit\[torch\]'") as caught:
        data.load("digits", 0.15)
    assert caught.value.exit_code == 3
