"""Choice of the fixed-point ranges by what they do to the network's results."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.ir import Graph, QuantizedGraph
from compiler.lower.quantize import quantize, quantize_and_run
from hw.params import Params

__all__ = ["PERCENTILES", "quantize_calibrated"]

PERCENTILES = (100.0, 99.99, 99.9)
"""Shares of the calibration values, in percent of magnitudes, that ranges are tried with; 100 is the maximum."""


def quantize_calibrated(graph: Graph, params: Params, calibration: NDArray[Any] | None) -> QuantizedGraph:
    """Fixed-point form of a network with the ranges that serve its end result best.

    Float calibration data is run through the float network and through one fixed-point network for each of
    `PERCENTILES`; the one that changes the fewest decisions (largest output) wins, then the smallest root mean
    square error of the outputs, then the widest range. int16 or no calibration data leaves nothing to choose.

    Parameters
    ----------
    graph : the network.
    params : the array.
    calibration : (n, in) float or raw int16 inputs, or None; see `quantize`.

    Raises
    ------
    ModelError
        As `quantize`.
    """
    if calibration is None or not np.issubdtype(calibration.dtype, np.floating):
        return quantize(graph, params, calibration)
    best: tuple[tuple[int, float], QuantizedGraph] | None = None
    expected: NDArray[np.float64] | None = None
    for percentile in PERCENTILES:
        quantized, raw = quantize_and_run(graph, params, calibration, percentile)
        assert raw is not None
        if expected is None:  # after the first quantization has checked the data
            expected = _forward(graph, calibration)
        outputs = np.ldexp(raw.astype(np.float64), quantized.layers[-1].output_exponent)
        decisions = int((outputs.argmax(axis=1) != expected.argmax(axis=1)).sum())
        score = (decisions, float(np.sqrt(np.mean((outputs - expected) ** 2))))
        if best is None or score < best[0]:
            best = (score, quantized)
    assert best is not None
    return best[1]


def _forward(graph: Graph, x: NDArray[Any]) -> NDArray[np.float64]:
    """Outputs of the float network."""
    values = x.astype(np.float64)
    for layer in graph.layers:
        values = values @ layer.weight.astype(np.float64).T + (0 if layer.bias is None else layer.bias)
        if layer.activation == "relu":
            values = np.maximum(values, 0)
    return values
