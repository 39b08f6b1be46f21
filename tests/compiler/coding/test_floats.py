"""Floats in the coded stream."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.coding import floats as coded
from compiler.coding.container import compress, decompress
from compiler.compressed import CompressedModel
from compiler.errors import CodingError
from tests.compiler.coding.models import assert_equal


def biases(rng: np.random.Generator) -> CompressedModel:
    """Three biases as training leaves them: the first and last too short to be worth a model of their own."""
    return CompressedModel(
        (), {f"fc{n}.bias": (0.1 * rng.normal(size=size)).astype(np.float32) for n, size in enumerate((2, 300, 10))}
    )


@pytest.mark.verifies("context-coder-floats-form-modelled")
def test_signs_and_exponents_cost_less_than_plain(rng: np.random.Generator) -> None:
    model = biases(rng)
    plain, modelled = (decompress(compress(model, coder)) for coder in ("huffman", "context"))
    assert_equal(model, modelled.network)
    # Of nine bits of sign and exponent about four are left.
    spared = plain.sizes.part("values") - modelled.sizes.part("values")
    assert spared > 4 * 312


@pytest.mark.parametrize("keep", [0, 7, 10, 23])
def test_short_mantissas_take_their_own_width(rng: np.random.Generator, keep: int) -> None:
    values = rng.normal(size=500).astype(np.float32)
    values = (values.view(np.uint32) & np.uint32(0xFFFFFFFF << (23 - keep) & 0xFFFFFFFF)).view(np.float32)
    content = decompress(compress(CompressedModel((), {"bias": values})))
    assert_equal(CompressedModel((), {"bias": values}), content.network)
    assert content.sizes.part("values") < 500 * (keep + 5)


@pytest.mark.verifies("planted-fault-float-s-exponent")
def test_planted_fault_an_array_that_only_one_side_learns_is_caught(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = biases(rng)
    model.dense["fc0.bias"][:] = 3e20, -3e-20  # stays plain, and is learned from
    data = compress(model)
    assert_equal(model, decompress(data).network)
    learn = coded.FloatModel._learn
    monkeypatch.setattr(
        coded.FloatModel, "_learn", lambda self, values: learn(self, values) if len(values) != 2 else None
    )
    with pytest.raises((AssertionError, CodingError)):
        assert_equal(model, decompress(data).network)
