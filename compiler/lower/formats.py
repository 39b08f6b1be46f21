"""Exponents, shifts and write-back: the arithmetic of formats, docs/numerics.md sections 3 to 5."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.graph.integer import HIGH, LOW

__all__ = ["exponent_of", "extremes", "input_exponent", "least_shift", "peak_of", "to_raw", "write_back"]

Int = NDArray[np.int64]


def exponent_of(peak: float) -> int:
    """Smallest e with ``rint(peak / 2**e) <= 32767``, for peak > 0."""
    exponent = math.frexp(peak)[1] - 15
    return exponent + (round(math.ldexp(peak, -exponent)) > HIGH)


def peak_of(values: NDArray[Any], percentile: float = 100.0) -> float:
    """The magnitude that the given share of the values, in percent, does not exceed."""
    magnitudes = np.abs(values.astype(np.float64))
    return (
        float(magnitudes.max()) if percentile == 100 else float(np.percentile(magnitudes, percentile, method="higher"))
    )


def input_exponent(values: NDArray[Any], percentile: float = 100.0) -> int:
    """Smallest power of two at which the given share of float values fits int16 after rounding; 0 if all are 0."""
    peak = peak_of(values, percentile)
    return exponent_of(peak) if peak else 0


def to_raw(values: NDArray[Any], exponent: int) -> Int:
    """Floats as raw int16 values: rounded half to even and saturated."""
    with np.errstate(over="ignore"):  # infinity saturates as well
        return np.clip(np.rint(np.ldexp(values.astype(np.float64), -exponent)), LOW, HIGH).astype(np.int64)


def write_back(sums: Int, shift: int | Int) -> Int:
    """Finished sums behind their activation, rounded to int16."""
    raw: Int = np.clip((sums + ((np.int64(1) << shift) >> 1)) >> shift, LOW, HIGH)
    return raw


def extremes(sums: Int, percentile: float) -> tuple[int, int]:
    """Least and greatest sum, those beyond the percentile of magnitudes left out."""
    if percentile == 100:
        return int(sums.min()), int(sums.max())
    peak = int(np.percentile(np.abs(sums), percentile, method="higher"))
    return -min(peak, -min(int(sums.min()), 0)), min(peak, max(int(sums.max()), 0))


def least_shift(bottom: int, top: int) -> int:
    """Smallest shift at which sums from `bottom` to `top` do not saturate."""
    shift = 0
    while not (_round(bottom, shift) >= LOW and _round(top, shift) <= HIGH):
        shift += 1
    return shift


def _round(total: int, shift: int) -> int:
    return (total + ((1 << shift) >> 1)) >> shift
