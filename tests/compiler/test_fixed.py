"""Fixed point: exact where promised, never overflowing, ranges as calibrated."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from compiler.errors import ModelError
from compiler.graph.dense import Dense, dense_graph
from compiler.lower.chain import Activation, Chain, QuantizedLayer
from compiler.lower.formats import input_exponent
from compiler.lower.pipeline import compile_graph
from hw.params import Params
from sim import golden
from sim.network import run_network
from tests.compiler.networks import overflow_free, quantized

PARAMS = Params(pes=4, rows=256)


def linear(weight: Any, bias: Any = None, activation: Activation = "none", name: str = "a") -> Dense:
    return Dense(
        name,
        np.asarray(weight, np.float32),
        None if bias is None else np.asarray(bias, np.float64),
        activation,
    )


def one(
    weight: Any, bias: Any = None, activation: Activation = "none", params: Params = PARAMS, x: Any = None
) -> QuantizedLayer:
    [layer] = quantized(((linear(weight, bias, activation),)), params, x).layers
    return layer


def run(graph: Chain, x: NDArray[np.int16]) -> list[golden.LayerResult]:
    layers = [
        golden.Layer(q.name, q.codebook.astype(np.int64)[q.codes], q.bias, q.shift, q.activation == "relu")
        for q in graph.layers
    ]
    return golden.run(layers, x, graph.params.acc_bits)


@st.composite
def integer_layers(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.int64], Activation, NDArray[np.int16]]:
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    out, inputs = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    values = draw(st.lists(st.integers(-32768, 32767), min_size=1, max_size=15))
    weight = rng.choice(np.array([0, *values]), (out, inputs))
    bias = rng.integers(-(1 << 20), 1 << 20, out)
    x = rng.choice(np.array([-32768, -1, 0, 1, 32767, *rng.integers(-32768, 32768, 5)]), (3, inputs))
    return weight, bias, draw(st.sampled_from(["none", "relu"])), x.astype(np.int16)


@pytest.mark.verifies("integer-layers-exact")
@given(integer_layers(), st.sampled_from([33, 40, 48]), st.booleans())
def test_integer_layers_are_exact_for_anyone_who_checks(case: Any, acc_bits: int, calibrated: bool) -> None:
    weight, bias, activation, x = case
    params = PARAMS.replace(acc_bits=acc_bits)
    graph = quantized(((linear(weight, bias, activation),)), params, x if calibrated else None)
    [layer] = graph.layers
    assert overflow_free(layer, acc_bits)
    assert layer.input_exponent == 0
    if not layer.exact:  # only where the proof asked for it
        assert int(np.abs(weight).sum(axis=1).max()) * 32768 + int(np.abs(bias).max()) >= 1 << (acc_bits - 3)
        return
    np.testing.assert_array_equal(
        np.ldexp(layer.codebook[layer.codes].astype(np.float64), layer.weight_exponent), weight
    )
    sums = x.astype(object) @ weight.astype(object).T + bias
    if activation == "relu":
        sums = np.maximum(sums, 0)
    exponent = layer.output_exponent  # floor(sums / 2**exponent + 1/2), in integers
    rounded = (2 * sums + 2**exponent) // (2 * 2**exponent) if exponent >= 0 else sums * 2**-exponent
    [result] = run(graph, x)
    np.testing.assert_array_equal(result.raw, np.clip(rounded, -32768, 32767).astype(np.int64))
    assert not result.saturated.any()  # neither the bound nor the calibration data itself lets it


@pytest.mark.parametrize("values", [[32767], [-32768], [-32768, 32767], [1, 3], [12345, -1], list(range(-7, 8))])
def test_integers_within_int16_are_exact(values: list[int]) -> None:
    layer = one([values])
    assert layer.exact
    np.testing.assert_array_equal(np.ldexp(layer.codebook[layer.codes[0]] * 1.0, layer.weight_exponent), values)


def test_more_values_than_codes_are_not_called_exact() -> None:
    assert one([list(range(1, 16))]).exact
    assert not one([list(range(1, 17))]).exact
    assert not one([[0.1, 100.3]]).exact
    assert not one([[1.0]], [1e-9]).exact


def heaviest(inputs: int, bias: int, acc_bits: int = 40) -> QuantizedLayer:
    """A layer that cannot be scaled any finer: all weights are 32767, and one is odd."""
    return one(np.full((1, inputs), 32767), [bias], params=PARAMS.replace(acc_bits=acc_bits))


@pytest.mark.verifies("overflow-proof-bound")
def test_the_overflow_proof_at_its_bound() -> None:
    # 512 weights of 32767: sum|w| * 2**15 = 512 * 32767 * 32768 = 2**39 - 2**24; the shift is 24, half is 2**23.
    room = (1 << 39) - 512 * 32767 * 32768 - (1 << 23)
    fits, fails = heaviest(512, room - 1), heaviest(512, room)
    assert (fits.shift, fits.weight_exponent, fits.exact) == (24, 0, True)
    assert overflow_free(fits, 40)
    assert fails.weight_exponent == 1  # the codebook is halved, and the report says so
    assert not fails.exact
    assert overflow_free(fails, 40)
    tight = dataclasses.replace(fits, bias=fits.bias + 1)
    assert not overflow_free(tight, 40)
    assert not overflow_free(dataclasses.replace(fits, bias=-fits.bias - 1), 40)
    assert not overflow_free(dataclasses.replace(fits, shift=26), 40)
    assert overflow_free(tight, 41)


def test_at_the_bound_the_extreme_inputs_do_not_wrap() -> None:
    room = (1 << 39) - 512 * 32767 * 32768 - (1 << 23)
    fits = heaviest(512, -(room - 1))
    graph = Chain((fits,), PARAMS)
    x = np.full((2, 512), -32768, np.int16)
    x[1] = 32767
    sums = x.astype(np.int64) @ np.full(512, 32767) - (room - 1)
    assert int(sums.min()) < -(1 << 39) + (1 << 24)  # close to the edge
    [result] = run(graph, x)
    half = 1 << (fits.shift - 1)
    np.testing.assert_array_equal(result.raw[:, 0], np.clip((sums + half) >> fits.shift, -32768, 32767))


def test_a_bias_beyond_the_accumulator_halves_until_it_fits() -> None:
    layer = one([[1.0]], [1e30])
    assert overflow_free(layer, 40)
    assert not layer.exact
    assert np.ldexp(float(layer.bias[0]), layer.weight_exponent) == pytest.approx(1e30, rel=1e-6)
    assert not layer.codes.any()  # a weight of 1 is nothing beside it, and takes no entry


def test_weights_of_zero_keep_an_integer_bias() -> None:
    layer = one(np.zeros((2, 3)), [100_001, -3])
    assert layer.exact
    np.testing.assert_array_equal(np.ldexp(layer.bias * 1.0, layer.weight_exponent), [100_001, -3])
    assert not layer.codebook.any()
    [result] = run(Chain((layer,), PARAMS), np.zeros((1, 3), np.int16))
    assert result.raw[0, 0] * 2.0**layer.output_exponent == pytest.approx(100_001, abs=2)


def test_without_calibration_the_shift_is_the_smallest_that_cannot_saturate(rng: np.random.Generator) -> None:
    for activation in ("none", "relu"):
        weight = rng.integers(-7, 8, (6, 20))
        bias = rng.integers(-1000, 1000, 6)
        layer = one(weight, bias, activation)  # type: ignore[arg-type]
        graph = Chain((layer,), PARAMS)
        worst = np.where(np.concatenate([weight, -weight]) > 0, 32767, -32768).astype(np.int16)
        assert not run(graph, worst)[0].saturated.any()
        finer = dataclasses.replace(layer, shift=layer.shift - 1, output_exponent=layer.output_exponent - 1)
        assert run(Chain((finer,), PARAMS), worst)[0].saturated.any()


def test_shifts_of_later_layers_follow_from_the_ranges_before() -> None:
    # relu makes the second layer's inputs 0 … 16384 at most; 2 * 16384 - 1 fits without a shift.
    graph = quantized(((linear([[0.5]], None, "relu", "a"), linear([[1.0]], [0], "none", "b"))), PARAMS)
    assert [layer.output_exponent for layer in graph.layers] == [-1, -1]
    assert [layer.shift + layer.weight_exponent for layer in graph.layers] == [-1, 0]


@pytest.mark.verifies("calibration-decides-ranges")
def test_float_calibration_decides_all_ranges(rng: np.random.Generator) -> None:
    graph = ((
        linear(rng.normal(size=(30, 20)), rng.normal(size=30), "relu", "a"),
        linear(rng.normal(size=(10, 30)), rng.normal(size=10), "none", "b"),
    ))  # fmt: skip
    x = rng.normal(size=(200, 20)).astype(np.float32)
    made = quantized(graph, PARAMS, x)
    exponent = made.layers[0].input_exponent
    assert np.abs(np.rint(np.ldexp(x, -exponent))).max() <= 32767 < 2 * np.abs(np.ldexp(x, -exponent)).max() + 1
    raw, clipped = golden.quantize_input(x, exponent)
    results = run(made, raw)
    assert clipped == 0
    values = x.astype(np.float64)
    for layer, result, reference in zip(made.layers, results, graph, strict=True):
        assert not result.saturated.any()
        assert int(np.abs(result.raw.astype(np.int64)).max()) > 16383  # the range is used
        values = values @ (layer.codebook[layer.codes] * 2.0**layer.weight_exponent).T + reference.bias
        values = np.maximum(values, 0) if layer.activation == "relu" else values
        np.testing.assert_allclose(result.raw * 2.0**layer.output_exponent, values, atol=np.abs(values).max() * 1e-3)


def test_a_percentile_lets_outliers_saturate() -> None:
    x = np.ones((1000, 1))
    x[0] = 1000
    whole = quantized(((linear([[1.0]]),)), PARAMS, x)
    most = quantized(((linear([[1.0]]),)), PARAMS, x, percentile=99)
    assert whole.layers[0].input_exponent - most.layers[0].input_exponent == 9
    raw, clipped = golden.quantize_input(x, most.layers[0].input_exponent)
    assert clipped == 1
    assert int(run(most, raw)[0].raw[1:].min()) == int(run(most, raw)[0].raw.max()) // 2 + 1


@pytest.mark.parametrize("zeros", [np.zeros((2, 3)), np.zeros((2, 3), np.int16)])
def test_calibration_that_is_all_zero_is_refused(zeros: NDArray[Any]) -> None:
    with pytest.raises(ModelError, match="zero"):
        one([[1, 2, 3]], x=zeros)


@given(st.floats(1e-30, 1e30))
@example(32767.0)
@example(32767.4999)
@example(32767.5)
@example(1.0)
def test_input_exponent_is_the_smallest_that_fits(peak: float) -> None:
    exponent = input_exponent(np.array([0.0, -peak]))
    assert round(peak / 2.0**exponent) <= 32767 < round(peak / 2.0 ** (exponent - 1))


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (np.zeros((2, 4)), r"\(2, 4\); expected \(n, 3\)"),
        (np.zeros((0, 3)), r"\(0, 3\); expected \(n, 3\) with n at least 1"),
        (np.zeros(3), "expected"),
        (np.zeros((2, 3), np.int32), "int32; expected int16 or float"),
        (np.full((2, 3), np.nan), "not finite"),
        (np.full((2, 3), np.inf), "not finite"),
    ],
)
def test_bad_calibration_data_is_refused(calibration: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        one([[1, 2, 3]], x=calibration)


@pytest.mark.parametrize("percentile", [0, -1, 100.5])
def test_a_percentile_that_is_none_is_refused(percentile: float) -> None:
    with pytest.raises(ModelError, match="percentile"):
        quantized(((linear([[1]]),)), PARAMS, np.ones((1, 1)), percentile=percentile)


@pytest.mark.parametrize("acc_bits", [33, 40, 48])
def test_wide_layers_never_wrap(acc_bits: int, rng: np.random.Generator) -> None:
    params = PARAMS.replace(acc_bits=acc_bits)
    graph = quantized(((linear(rng.normal(size=(3, 3000)), rng.normal(size=3)),)), params)
    [layer] = graph.layers
    assert overflow_free(layer, acc_bits)
    weight = layer.codebook.astype(np.int64)[layer.codes]
    worst = np.where(weight > 0, 32767, -32768).astype(np.int16)
    sums = (weight * worst).sum(axis=1) + layer.bias
    [result] = run(graph, worst)
    half = (1 << layer.shift) >> 1
    np.testing.assert_array_equal(np.diag(result.raw), (sums + half) >> layer.shift)


def test_compiling_goes_all_the_way(rng: np.random.Generator) -> None:
    weight = rng.integers(-7, 8, (30, 40)) * (rng.random((30, 40)) < 0.2)
    bias = rng.integers(-100, 100, 30)
    x = rng.integers(-32768, 32768, (4, 40)).astype(np.int16)
    network = compile_graph(dense_graph([linear(weight, bias, "relu")]), PARAMS, x)
    [layer], [output] = network.only.layers, [network.only.maps[n] for n in network.only.outputs]
    sums = np.maximum(x.astype(np.int64) @ weight.T + bias, 0)
    assert layer.exact
    assert output.exponent > 0
    right = (sums + (1 << (output.exponent - 1))) >> output.exponent
    np.testing.assert_array_equal(run_network(network, x).raw, right)
