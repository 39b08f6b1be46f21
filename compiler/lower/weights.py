"""Codebooks, biases and shifts of sums of products, and the proof that no sum leaves the accumulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from compiler.graph.integer import HIGH, LOW, MAX_SHIFT
from compiler.lower.formats import exponent_of, extremes, least_shift
from compiler.lower.share import share

__all__ = ["Attempt", "Settled", "Shared", "Target", "finest", "fixed_bias", "one_each", "settle", "share_weights"]

Int = NDArray[np.int64]
Float = NDArray[np.float64]

_PEAK = 1 << 15  # largest magnitude of an activation


@dataclass(frozen=True)
class Target:
    """The exponent that a result should have.

    Attributes
    ----------
    exponent : as it is in `Type`.
    strict : what does not fit saturates; otherwise a coarser exponent is taken.
    """

    exponent: int
    strict: bool


@dataclass(frozen=True, eq=False)
class Shared:
    """Shared weights, as rows that are summed.

    Attributes
    ----------
    codes : uint8 (rows, columns).
    centroids : float64 (2**code_bits,); the weights are ``centroids[codes] * 2**-lift[row]``.
    histogram : (rows, 2**code_bits), how often each row uses each code; column 0 is not counted.
    lift : int64 (rows,), by how many bits each row was scaled up before weights were shared.
    exact : no weight was changed by the clustering.
    places : where codes are not zero, in row-major order.
    """

    codes: NDArray[np.uint8]
    centroids: Float
    histogram: Int
    lift: Int
    exact: bool
    places: Int

    def matrix(self) -> scipy.sparse.csr_array:
        """Codes as CSR."""
        flat, counts = self.places, _row_counts(self.places, self.codes.shape)
        indptr = np.concatenate([[0], np.cumsum(counts)])
        indices = flat - np.repeat(np.arange(len(self.codes)) * self.codes.shape[1], counts)
        return scipy.sparse.csr_array((self.codes.reshape(-1)[flat], indices, indptr), shape=self.codes.shape)

    def bound(self, codebook: Int) -> Int:
        """The largest magnitude that the products of each row can reach together."""
        found: Int = (self.histogram @ np.abs(codebook)) * _PEAK
        return found


def share_weights(weight: NDArray[np.float32], code_bits: int, lift: Int | None = None) -> Shared:
    """Weights (rows, columns) as codes of a few centroids."""
    if lift is not None:
        weight = np.ldexp(weight, lift[:, None]).astype(np.float32)
    codes, centroids, flat = share(weight, code_bits)
    used = codes.reshape(-1)[flat]
    # Only the clustering can have changed a weight by more than the rounding of its centroid.
    exact = bool(np.array_equal(centroids[used], weight.reshape(-1)[flat]))
    rows = np.zeros(len(codes), np.int64) if lift is None else lift
    counts = np.repeat(np.arange(len(codes)), _row_counts(flat, codes.shape)) * len(centroids) + used
    histogram = np.bincount(counts, minlength=len(codes) * len(centroids)).astype(np.int64)
    return Shared(codes, centroids, histogram.reshape(len(codes), -1), rows, exact, flat)


def one_each(rows: int, code_bits: int) -> Shared:
    """Weights of a segment that adds one value to each row: one, on the diagonal. Code 1 is that weight."""
    centroids, histogram = np.zeros(1 << code_bits), np.zeros((rows, 1 << code_bits), np.int64)
    centroids[1], histogram[:, 1] = 1.0, 1
    none = np.zeros(0, np.int64)
    return Shared(np.zeros((rows, 0), np.uint8), centroids, histogram, np.zeros(rows, np.int64), True, none)


def finest(centroids: Float, bias: Float, exponent: int) -> int:
    """Smallest weight exponent at which the centroids fit int16, for inputs at 2**exponent."""
    largest, smallest = float(centroids.max()), float(centroids.min())
    limits = [exponent_of(value) for value in (largest, -smallest) if value > 0]
    if limits:
        found = max(limits)
        # -32768 is one more than 32767: a codebook that reaches only down to it is finer by one.
        finer = np.rint(np.ldexp(centroids, 1 - found))
        return found - 1 if finer.min() >= LOW and finer.max() <= HIGH else found
    # No weights: the bias alone decides, and integers stay integers.
    peak = float(np.abs(bias).max())
    return min(exponent_of(peak), 0) - exponent if peak else -exponent


def fixed_bias(bias: Float, unit: int | Int) -> Int | None:
    """Bias in units of 2**unit, or None if it is beyond all accumulators."""
    with np.errstate(over="ignore"):
        scaled = np.rint(np.ldexp(bias, -unit))
    return scaled.astype(np.int64) if float(np.abs(scaled).max(initial=0.0)) < 1 << 52 else None


@dataclass(frozen=True, eq=False)
class Attempt:
    """Integers at one weight exponent.

    Attributes
    ----------
    weights, bias : what was rounded.
    bound : largest magnitude of each row's sum, for any int16 input.
    sums : makes the least and greatest sums for the inputs' ranges, and the sums of the calibration data.
    """

    weights: Int
    bias: Int
    bound: Int
    sums: Callable[[], tuple[Int, Int, Int | None]]


@dataclass(frozen=True, eq=False)
class Settled:
    """The first attempt that holds everywhere."""

    weights: Int
    bias: Int
    weight_exponent: int
    shift: int
    halved: int
    bottom: Int
    top: Int
    sums: Int | None


def settle(
    first: int,
    attempt: Callable[[int], Attempt | None],
    *,
    unit: int,
    acc_bits: int,
    percentile: float,
    target: Target | None = None,
    lift: Int | None = None,
    rows: tuple[int, ...] = (),
) -> Settled:
    """Smallest weight exponent at which the overflow proof holds and the shift is legal, and its shift.

    Parameters
    ----------
    first : exponent to begin with.
    attempt : integers at a weight exponent, None if the bias is beyond all accumulators.
    unit : exponent of the inputs.
    target : exponent that the results should have; where it cannot be reached, they have a coarser one.
    lift : rows are scaled up by so many bits, and their shift is larger by as many.
    rows : shape in which `lift` broadcasts to sums.
    """
    exponent, halved, limit = first, 0, 1 << (acc_bits - 1)
    raised = 0 if lift is None else int(lift.max())
    # Every step halves weights and bias, so this ends; most layers need none or a few.
    while True:
        tried = attempt(exponent)
        if tried is None or int(tried.bound.max()) >= limit:
            exponent, halved = exponent + 1, halved + 1
            continue
        bottom, top, sums = tried.sums()
        shift = _shift(bottom, top, sums, percentile, None if lift is None else lift.reshape(rows))
        if target is not None and target.exponent >= unit + exponent:
            asked = target.exponent - unit - exponent
            shift = asked if target.strict else max(shift, asked)
        if shift + raised > MAX_SHIFT:
            exponent += 1
            continue
        half = (np.int64(1) << (shift if lift is None else shift + lift)) >> 1
        if int((tried.bound + half).max()) < limit:
            return Settled(tried.weights, tried.bias, exponent, shift, halved, bottom, top, sums)
        exponent, halved = exponent + 1, halved + 1


def _shift(bottom: Int, top: Int, sums: Int | None, percentile: float, lift: Int | None) -> int:
    """Smallest shift that saturates nothing that the ranges, or the calibration data, let happen."""
    if lift is not None and lift.any():
        bottom, top = bottom >> lift, -(-top >> lift)
        sums = None if sums is None else np.where(sums < 0, sums >> lift, -(-sums >> lift))
    shift = least_shift(int(bottom.min()), int(top.max()))
    if sums is not None and sums.any():
        shift = min(shift, least_shift(*extremes(sums, percentile)))
    return shift


def _row_counts(flat: Int, shape: tuple[int, ...]) -> Int:
    counts: Int = np.diff(np.searchsorted(flat, np.arange(shape[0] + 1) * shape[1]))
    return counts
