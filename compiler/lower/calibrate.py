"""Choice of the ranges of an integer graph by what they do to the network's results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.graph import evaluate
from compiler.graph.ir import Graph
from compiler.lower.quantize import Quantized, quantize_graph
from compiler.lower.value import Context, PerChannel
from hw.params import Params

__all__ = ["PERCENTILES", "quantize_calibrated"]

PERCENTILES = (100.0, 99.99, 99.9)
"""Shares of the calibration values, in percent of magnitudes, that ranges are tried with; 100 is the maximum."""


def quantize_calibrated(
    graph: Graph, params: Params, calibration: Sequence[NDArray[Any]] | None, *, per_channel: PerChannel = "auto"
) -> Quantized:
    """A network in fixed point with the ranges that serve its end results best.

    Float calibration data is run through the float network and through one fixed-point network for each of
    `PERCENTILES`; the one that changes the fewest decisions (largest of an output's numbers) wins, then the smallest
    root mean square error of the outputs, then the widest range. int16 or no calibration data leaves nothing to choose.

    Raises
    ------
    ModelError
        As `quantize_graph`.
    """
    context = Context(params, 100.0, per_channel)
    if calibration is None or not any(np.issubdtype(data.dtype, np.floating) for data in calibration):
        return quantize_graph(graph, params, calibration, per_channel=per_channel, context=context)
    best: tuple[tuple[int, float], Quantized] | None = None
    expected: list[NDArray[Any]] | None = None
    for percentile in PERCENTILES:
        made = quantize_graph(
            graph, params, calibration, percentile=percentile, per_channel=per_channel, context=context
        )
        if expected is None:  # after the first quantization has checked the data
            expected = [value for value in evaluate.outputs(graph, calibration) if value.dtype.kind == "f"]
        score = _score(made.results, expected)
        if best is None or score < best[0]:
            best = (score, made)
    assert best is not None
    return best[1]


def _score(results: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> tuple[int, float]:
    """Changed decisions, and the error of each output as a share of its size."""
    decisions, error = 0, 0.0
    for made, wanted in zip(results, expected, strict=True):
        flat, goal = made.reshape(len(made), -1), wanted.reshape(len(wanted), -1)
        decisions += int((flat.argmax(axis=1) != goal.argmax(axis=1)).sum())
        size = float(np.sqrt(np.mean(goal**2))) or 1.0
        error += float(np.sqrt(np.mean((flat - goal) ** 2))) / size
    return decisions, error
