"""The golden model against rational arithmetic, at every edge of rounding, wrapping and saturation."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from sim.golden import Layer, quantize_input, run, wrap, write_back

WriteBack = Callable[[Any, int, bool], tuple[Any, Any]]


def edges(shift: int) -> list[int]:
    """Sums around every edge: zero, halves, and both ends of int16, at a shift."""
    half = (1 << shift) >> 1
    centers = [0, half, -half, 3 * half, -3 * half]
    centers += [(end << shift) + half * k for end in (-32769, -32768, -32767, 32766, 32767, 32768) for k in (-1, 0, 1)]
    centers += [(1 << 47) - 1, -(1 << 47)]
    return sorted({center + d for center in centers for d in (-2, -1, 0, 1, 2) if -(1 << 47) <= center + d < 1 << 47})


def rounding_errors(function: WriteBack, shift: int, relu: bool) -> list[int]:
    """Sums for which a write-back is not the specification's, taken with fractions."""
    sums = edges(shift)
    raw, clipped = function(np.array(sums), shift, relu)
    wrong = []
    for total, found, was_clipped in zip(sums, raw.tolist(), clipped.tolist(), strict=True):
        exact = floor(Fraction(max(total, 0) if relu else total, 2**shift) + (Fraction(1, 2) if shift else 0))
        if (found, was_clipped) != (min(max(exact, -32768), 32767), not -32768 <= exact <= 32767):
            wrong.append(total)
    return wrong


@pytest.mark.verifies("golden-rounding-saturation-edges")
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shift", range(32))
def test_write_back_rounds_half_up_and_saturates(shift: int, relu: bool) -> None:
    assert rounding_errors(write_back, shift, relu) == []


def test_halves_go_up() -> None:
    raw, _ = write_back(np.array([-3, -1, 1, 3, -2, 2]), 1, False)
    assert raw.tolist() == [-1, 0, 1, 2, -1, 1]


def test_shift_zero_adds_nothing_and_shift_31_everything() -> None:
    assert write_back(np.array([-1, 0, 1]), 0, False)[0].tolist() == [-1, 0, 1]
    half = 1 << 30
    assert write_back(np.array([half - 1, half, -half, -half - 1]), 31, False)[0].tolist() == [0, 1, 0, -1]


@pytest.mark.verifies("planted-fault-round-half-down-golden")
def test_round_half_down_is_caught() -> None:
    def half_down(total: Any, shift: int, relu: bool) -> tuple[Any, Any]:
        exact_half = (total & ((1 << shift) - 1)) == (1 << shift) >> 1 if shift else np.zeros(total.shape, bool)
        return write_back(total - exact_half, shift, relu)

    for shift in range(1, 32):
        wrong = rounding_errors(half_down, shift, False)
        assert wrong  # and only halves differ
        assert all(total % (1 << shift) == 1 << (shift - 1) for total in wrong)


@pytest.mark.parametrize("fault", ["truncate", "wrap instead of saturate", "relu after rounding"])
def test_other_wrong_write_backs_are_caught(fault: str) -> None:
    def faulty(total: Any, shift: int, relu: bool) -> tuple[Any, Any]:
        if fault == "truncate":
            return write_back(total >> shift << shift, shift, relu)
        raw, clipped = write_back(total, shift, relu)
        if fault == "wrap instead of saturate":
            half = (1 << shift) >> 1
            return ((np.maximum(total, 0) if relu else total) + half >> shift).astype(np.int16), clipped
        raw, clipped = write_back(total, shift, False)
        return (np.maximum(raw, 0) if relu else raw), clipped

    assert any(rounding_errors(faulty, shift, relu) for shift in range(32) for relu in (False, True))


@pytest.mark.parametrize("bits", [33, 40, 48])
def test_wrap_is_two_s_complement(bits: int) -> None:
    top = 1 << (bits - 1)
    totals = np.array([0, -1, top - 1, top, -top, -top - 1, 2 * top, 3 * top + 5])
    assert wrap(totals, bits).tolist() == [0, -1, top - 1, -top, -top, top - 1, 0, -top + 5]


@st.composite
def layer_cases(draw: st.DrawFn) -> tuple[Layer, np.ndarray, int]:
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    out, inputs, batch = draw(st.integers(1, 6)), draw(st.integers(1, 9)), draw(st.integers(0, 4))
    density = draw(st.sampled_from([0, 0.3, 1]))
    weight = rng.integers(-32768, 32768, (out, inputs)) * (rng.random((out, inputs)) < density)
    bias = rng.integers(-(1 << 47), 1 << 47, out)
    x = rng.choice([-32768, -1, 0, 1, 32767], (batch, inputs)).astype(np.int16)
    layer = Layer("a", weight, bias, draw(st.integers(0, 31)), draw(st.booleans()))
    return layer, x, draw(st.integers(33, 48))


@pytest.mark.verifies("golden-equals-unbounded-integers-wrap")
@given(layer_cases(), st.booleans())
def test_layers_equal_unbounded_integers_that_wrap(case: tuple[Layer, np.ndarray, int], sparse: bool) -> None:
    layer, x, bits = case
    given_layer = layer
    if sparse:
        given_layer = Layer("a", scipy.sparse.csr_array(layer.weight), layer.bias, layer.shift, layer.relu)
    [result] = run([given_layer], x, bits)
    assert result.raw.dtype == np.int16
    sums = x.astype(object) @ np.asarray(layer.weight).astype(object).T + layer.bias.astype(object)
    for vector in range(len(x)):
        clipped = 0
        for neuron in range(len(layer.bias)):
            total = (sums[vector, neuron] + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))
            total = max(total, 0) if layer.relu else total
            exact = floor(Fraction(total, 2**layer.shift) + (Fraction(1, 2) if layer.shift else 0))
            clipped += not -32768 <= exact <= 32767
            assert result.raw[vector, neuron] == min(max(exact, -32768), 32767)
        assert result.saturated[vector] == clipped


def test_layers_are_chained_and_all_results_kept(rng: np.random.Generator) -> None:
    first = Layer("a", rng.integers(-9, 9, (5, 4)), rng.integers(-9, 9, 5), 1, True)
    second = Layer("b", scipy.sparse.csr_array(rng.integers(-9, 9, (3, 5))), rng.integers(-9, 9, 3), 0, False)
    x = rng.integers(-100, 100, (7, 4)).astype(np.int16)
    one, two = run([first, second], x, 40)
    [again] = run([second], one.raw, 40)
    np.testing.assert_array_equal(two.raw, again.raw)
    assert (one.raw.shape, two.raw.shape, one.saturated.shape) == ((7, 5), (7, 3), (7,))


def test_weights_too_large_for_floats_are_still_exact() -> None:
    # Floats would lose the last bit: the model has to see that and count in integers.
    weight = np.array([[1 << 50, 1], [-(1 << 50), 3]])
    [result] = run([Layer("a", weight, np.zeros(2, np.int64), 0, False)], np.array([[8, 5]], np.int16), 48)
    assert result.raw.tolist() == [[5, 15]]


def test_order_of_columns_does_not_change_a_bit(rng: np.random.Generator) -> None:
    weight = rng.integers(-32768, 32768, (4, 3000))
    x = rng.integers(-32768, 32768, (2, 3000)).astype(np.int16)
    order = rng.permutation(3000)
    bias = rng.integers(-(1 << 32), 1 << 32, 4)
    [one] = run([Layer("a", weight, bias, 12, False)], x, 33)
    [two] = run([Layer("a", weight[:, order], bias, 12, False)], x[:, order], 33)
    np.testing.assert_array_equal(one.raw, two.raw)


@pytest.mark.parametrize(
    "x", [np.zeros((1, 3), np.int16), np.zeros((1, 4), np.int32), np.zeros(4, np.int16), np.zeros((1, 4))]
)
def test_inputs_of_other_form_are_refused(x: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected int16 \(batch, 4\)"):
        run([Layer("a", np.ones((2, 4), np.int64), np.zeros(2, np.int64), 0, False)], x, 40)


def test_inputs_are_rounded_half_to_even_and_saturated() -> None:
    x = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, 32767.4, 32767.5, -32768.5, -32768.6, 1e30, -np.inf]])
    raw, clipped = quantize_input(x, 0)
    assert raw.tolist() == [[0, 2, 2, 0, -2, 32767, 32767, -32768, -32768, 32767, -32768]]
    assert clipped == 4
    raw, clipped = quantize_input(x[:, :3].astype(np.float32), -1)
    assert (raw.tolist(), clipped) == ([[1, 3, 5]], 0)
    assert quantize_input(np.array([[1e300]]), -1000)[0].tolist() == [[32767]]


def test_int16_inputs_are_taken_raw() -> None:
    x = np.array([[-32768, 5]], np.int16)
    raw, clipped = quantize_input(x, 7)
    assert (raw.tolist(), clipped) == ([[-32768, 5]], 0)


@pytest.mark.parametrize(
    ("x", "message"), [(np.array([[1]]), "int64; expected int16 or float"), (np.array([[np.nan]]), "NaN")]
)
def test_inputs_that_are_no_numbers_are_refused(x: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantize_input(x, 0)
