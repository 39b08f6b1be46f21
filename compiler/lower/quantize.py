"""From floats to the array's integers: codebooks, biases, shifts, and the proof that nothing overflows.

docs/numerics.md is the specification of the formats.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from compiler.errors import ModelError
from compiler.ir import MAX_SHIFT, Graph, Linear, QuantizedGraph, QuantizedLayer
from compiler.lower.share import share
from hw.layouts import ACT_BITS, WEIGHT_BITS
from hw.params import Params

__all__ = ["input_exponent", "overflow_free", "quantize", "quantize_and_run"]

Int = NDArray[np.int64]

_HIGH, _LOW = (1 << (ACT_BITS - 1)) - 1, -(1 << (ACT_BITS - 1))
_ACT_PEAK = 1 << (ACT_BITS - 1)  # largest magnitude of an activation


def quantize(
    graph: Graph,
    params: Params,
    calibration: NDArray[Any] | None = None,
    *,
    percentile: float = 100.0,
) -> QuantizedGraph:
    """Fixed-point form of a network.

    Per layer: weights are shared (`compiler.lower.share`); the weight exponent is the smallest at which the
    codebook fits int16, the overflow proof holds and the shift is legal; the shift follows from calibration
    or, without it, is the smallest at which no int16 input can saturate an output.

    Parameters
    ----------
    graph : the network; it is verified.
    params : the array; code_bits and acc_bits matter.
    calibration : (n, in) inputs. Floats decide the input exponent and all shifts; int16 is taken raw (input
        exponent 0) and decides the shifts; None means input exponent 0 and shifts by bound.
    percentile : share of calibration values, in percent of magnitudes, that must not saturate.

    Raises
    ------
    ModelError
        The graph is not well-formed, the calibration data does not fit it, or a layer has no legal format.
    """
    return quantize_and_run(graph, params, calibration, percentile)[0]


def quantize_and_run(
    graph: Graph, params: Params, calibration: NDArray[Any] | None, percentile: float
) -> tuple[QuantizedGraph, Int | None]:
    """`quantize`, and the raw outputs (n, out) of the fixed-point network for the calibration data."""
    graph.verify()
    exponent, samples = _inputs(graph, calibration, percentile)
    low = np.full(graph.layers[0].weight.shape[1], _LOW, np.int64)
    high = np.full_like(low, _HIGH)
    layers = []
    for linear in graph.layers:
        layer, low, high, samples = _quantize_layer(linear, params, exponent, low, high, samples, percentile)
        layers.append(layer)
        exponent = layer.output_exponent
    quantized = QuantizedGraph(tuple(layers), params)
    quantized.verify()
    return quantized, samples


def overflow_free(layer: QuantizedLayer, acc_bits: int) -> bool:
    """Whether no input can make a finished sum of this layer leave the accumulator.

    The bound, for each row: ``sum|w| * 2**15 + |bias| + 2**(shift - 1) < 2**(acc_bits - 1)``. Sums on the way
    may wrap; modular addition brings them back.
    """
    size = len(layer.codebook)
    return _proved(_histogram(layer.codes, size), layer.codebook.astype(np.int64), layer.bias, layer.shift, acc_bits)


def input_exponent(values: NDArray[Any], percentile: float = 100.0) -> int:
    """Smallest power of two at which the given share of float values fits int16 after rounding; 0 if all are 0."""
    peak = float(np.percentile(np.abs(values.astype(np.float64)), percentile, method="higher"))
    return _exponent(peak) if peak else 0


def _exponent(peak: float) -> int:
    """Smallest e with ``rint(peak / 2**e) <= 32767``, for peak > 0."""
    exponent = math.frexp(peak)[1] - (ACT_BITS - 1)
    return exponent + (round(math.ldexp(peak, -exponent)) > _HIGH)


def _inputs(graph: Graph, calibration: NDArray[Any] | None, percentile: float) -> tuple[int, Int | None]:
    """Input exponent and calibration data as raw activations."""
    if calibration is None:
        return 0, None
    width = graph.layers[0].weight.shape[1]
    if calibration.ndim != 2 or calibration.shape[1] != width or not len(calibration):
        raise ModelError(f"calibration data is {calibration.shape}; expected (n, {width}) with n at least 1")
    if not 0 < percentile <= 100:
        raise ModelError(f"percentile is {percentile}; expected more than 0 and at most 100")
    if calibration.dtype == np.int16:
        return 0, calibration.astype(np.int64)
    if not np.issubdtype(calibration.dtype, np.floating):
        raise ModelError(f"calibration data is {calibration.dtype}; expected int16 or float")
    if not np.isfinite(calibration).all():
        raise ModelError("calibration data is not finite everywhere")
    exponent = input_exponent(calibration, percentile)
    with np.errstate(over="ignore"):  # infinity saturates as well
        raw = np.rint(np.ldexp(calibration.astype(np.float64), -exponent))
    return exponent, np.clip(raw, _LOW, _HIGH).astype(np.int64)


def _quantize_layer(
    linear: Linear, params: Params, exponent: int, low: Int, high: Int, samples: Int | None, percentile: float
) -> tuple[QuantizedLayer, Int, Int, Int | None]:
    """The layer, the range of each of its outputs, and its outputs for the calibration data.

    `low` and `high` are what the layer's inputs can be (per neuron), `samples` (n, in) what they are.
    """
    codes, centroids = share(linear.weight, params.code_bits)
    histogram = _histogram(codes, len(centroids))
    real_bias = np.zeros(len(codes)) if linear.bias is None else linear.bias
    relu = linear.activation == "relu"
    matrix: scipy.sparse.csr_array | None = None
    weight_exponent = _finest(centroids, real_bias, exponent)
    # Every step halves the codebook and the bias, so this ends; most layers need none or a few.
    while True:
        codebook = np.rint(np.ldexp(centroids, -weight_exponent)).astype(np.int64)
        bias = _fixed_bias(real_bias, exponent + weight_exponent)
        if bias is None or not _proved(histogram, codebook, bias, 0, params.acc_bits):
            weight_exponent += 1
            continue
        if matrix is None:
            matrix = _sparse(codes)
        weights = scipy.sparse.csr_array((codebook[matrix.data], matrix.indices, matrix.indptr), shape=matrix.shape)
        bottom, top = _range(weights, bias, low, high, relu)
        shift = _shift(int(bottom.min()), int(top.max()))
        sums = None
        if samples is not None:
            sums = _activate(np.asarray((weights @ samples.T).T) + bias, relu)
            if sums.any():
                shift = min(shift, _shift(*_extremes(sums, percentile)))
        if shift <= MAX_SHIFT and _proved(histogram, codebook, bias, shift, params.acc_bits):
            break
        weight_exponent += 1
    unit = exponent + weight_exponent
    exact = np.array_equal(np.ldexp(codebook.astype(np.float64), weight_exponent), centroids) and np.array_equal(
        np.ldexp(bias.astype(np.float64), unit), real_bias
    )
    # Only the clustering can have changed a weight by more than the rounding of its centroid.
    exact = exact and np.array_equal(centroids[codes[codes != 0]], linear.weight[codes != 0])
    layer = QuantizedLayer(
        name=linear.name,
        codes=np.where(codebook == 0, 0, np.arange(len(codebook))).astype(np.uint8)[codes],  # zeros need no entry
        codebook=codebook.astype(np.int16),
        weight_exponent=weight_exponent,
        bias=bias,
        shift=shift,
        activation=linear.activation,
        input_exponent=exponent,
        output_exponent=unit + shift,
        exact=bool(exact),
        fold=samples is not None and _fold_pays(samples, int(histogram[:, 1:].sum()), params),
    )
    outputs = None if sums is None else _requantize(sums, shift)
    return layer, _requantize(bottom, shift), _requantize(top, shift), outputs


def _fold_pays(samples: Int, nonzeros: int, params: Params) -> bool:
    """Whether columns of two activations take no more cycles, for inputs as dense as `samples` (n, in).

    Either the multipliers limit a layer, or the broadcast of one column a cycle. A pair is sent if one of the two
    is not zero, and then its entries are multiplied with the other as well.
    """
    density = np.count_nonzero(samples) / samples.size
    pairs = 1 - (1 - density) ** 2
    columns = samples.shape[1]
    single = density * max(nonzeros / params.pes, columns)
    return bool(params.fold > 1 and density > 0 and pairs * max(nonzeros / params.pes, columns / 2) <= single)


def _finest(centroids: NDArray[np.float64], bias: NDArray[np.float64], exponent: int) -> int:
    """Smallest weight exponent at which the codebook fits int16."""
    largest, smallest = float(centroids.max()), float(centroids.min())
    limits = [_exponent(value) for value in (largest, -smallest) if value > 0]
    if limits:
        finest = max(limits)
        # -32768 is one more than 32767: a codebook that reaches only down to it is finer by one.
        finer = np.rint(np.ldexp(centroids, 1 - finest))
        fits = finer.min() >= -(1 << (WEIGHT_BITS - 1)) and finer.max() < 1 << (WEIGHT_BITS - 1)
        return finest - 1 if fits else finest
    # No weights: the bias alone decides, and integers stay integers.
    peak = float(np.abs(bias).max())
    return min(_exponent(peak), 0) - exponent if peak else -exponent


def _fixed_bias(bias: NDArray[np.float64], unit: int) -> Int | None:
    """Bias in units of 2**unit, or None if it is beyond all accumulators."""
    with np.errstate(over="ignore"):
        scaled = np.rint(np.ldexp(bias, -unit))
    return scaled.astype(np.int64) if float(np.abs(scaled).max()) < 1 << 52 else None


def _histogram(codes: NDArray[np.uint8], size: int) -> Int:
    """(out, size): how often each row uses each code; column 0 is not counted."""
    flat = np.flatnonzero(codes)
    rows = np.repeat(np.arange(len(codes)), _row_counts(flat, codes.shape))
    counts = np.bincount(rows * size + codes.reshape(-1)[flat], minlength=len(codes) * size)
    return counts.astype(np.int64).reshape(len(codes), size)


def _row_counts(flat: Int, shape: tuple[int, ...]) -> Int:
    counts: Int = np.diff(np.searchsorted(flat, np.arange(shape[0] + 1) * shape[1]))
    return counts


def _sparse(codes: NDArray[np.uint8]) -> scipy.sparse.csr_array:
    """Codes as CSR; from the flat positions, which is several times faster than through `nonzero`."""
    flat = np.flatnonzero(codes)
    counts = _row_counts(flat, codes.shape)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    indices = flat - np.repeat(np.arange(len(codes)) * codes.shape[1], counts)
    return scipy.sparse.csr_array((codes.reshape(-1)[flat], indices, indptr), shape=codes.shape)


def _proved(histogram: Int, codebook: Int, bias: Int, shift: int, acc_bits: int) -> bool:
    half = (1 << shift) >> 1
    bound = (histogram @ np.abs(codebook)) * _ACT_PEAK + np.abs(bias) + half
    return int(bound.max()) < 1 << (acc_bits - 1)


def _range(weights: scipy.sparse.csr_array, bias: Int, low: Int, high: Int, relu: bool) -> tuple[Int, Int]:
    """Least and greatest finished sum of each row, for inputs between `low` and `high`."""
    positive, negative = weights.maximum(0), weights.minimum(0)
    bottom = np.asarray(positive @ low + negative @ high) + bias
    top = np.asarray(positive @ high + negative @ low) + bias
    return _activate(bottom, relu), _activate(top, relu)


def _activate(sums: Int, relu: bool) -> Int:
    return np.maximum(sums, 0) if relu else sums


def _extremes(sums: Int, percentile: float) -> tuple[int, int]:
    if percentile == 100:
        return int(sums.min()), int(sums.max())
    peak = int(np.percentile(np.abs(sums), percentile, method="higher"))
    return -min(peak, -min(int(sums.min()), 0)), min(peak, max(int(sums.max()), 0))


def _shift(bottom: int, top: int) -> int:
    """Smallest shift at which sums from `bottom` to `top` do not saturate."""
    shift = 0
    while not (_round(bottom, shift) >= _LOW and _round(top, shift) <= _HIGH):
        shift += 1
    return shift


def _round(total: int, shift: int) -> int:
    return (total + ((1 << shift) >> 1)) >> shift


def _requantize(sums: Int, shift: int) -> Int:
    """What write-back makes of activated sums."""
    raw: Int = np.clip((sums + ((1 << shift) >> 1)) >> shift, _LOW, _HIGH)
    return raw
