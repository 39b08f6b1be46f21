"""The golden model: what every output of every layer must be, bit for bit.

Written from docs/numerics.md alone. It knows neurons and integers; PEs, positions and memories do not exist here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

__all__ = ["Layer", "LayerResult", "quantize_input", "run", "wrap", "write_back"]

Int = NDArray[np.int64]

HIGH, LOW = (1 << 15) - 1, -(1 << 15)
EXACT_FLOAT = 1 << 53
"""Up to here every integer is a float64, so a float sum whose partial sums stay below is an integer sum."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One fully connected layer in integers.

    Attributes
    ----------
    name : for reports.
    weight : (out, in) int64 CSR, or dense integers of any width; each within int16.
    bias : int64 (out,), in units of the products.
    shift : right shift of write-back, 0 … 31.
    relu : negative sums become zero.
    """

    name: str
    weight: scipy.sparse.csr_array | NDArray[Any]
    bias: Int
    shift: int
    relu: bool


@dataclass(frozen=True, eq=False)
class LayerResult:
    """Outputs of a layer.

    Attributes
    ----------
    raw : int16 (batch, out).
    saturated : int64 (batch,), how many outputs of each vector did not fit int16.
    """

    raw: NDArray[np.int16]
    saturated: Int


def run(layers: Sequence[Layer], x: NDArray[np.int16], acc_bits: int) -> list[LayerResult]:
    """Results of every layer.

    Parameters
    ----------
    layers : the network.
    x : int16 (batch, in), raw activations.
    acc_bits : accumulator width, at most 64; sums wrap modulo ``2**acc_bits``.

    Raises
    ------
    ValueError
        `x` is not int16 or does not have the first layer's width.
    """
    if x.dtype != np.int16 or x.ndim != 2 or x.shape[1] != layers[0].weight.shape[1]:
        raise ValueError(f"x is {x.dtype} {x.shape}; expected int16 (batch, {layers[0].weight.shape[1]})")
    results = []
    for layer in layers:
        total = wrap(_product(layer.weight, x) + layer.bias, acc_bits)
        raw, clipped = write_back(total, layer.shift, layer.relu)
        results.append(LayerResult(raw, clipped.sum(axis=1)))
        x = raw
    return results


def wrap(total: Int, bits: int) -> Int:
    """Two's complement of `bits` bits: the value that an accumulator of that width holds."""
    return total << (64 - bits) >> (64 - bits)


def write_back(total: Int, shift: int, relu: bool) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Finished sums to activations, and which of them were clipped.

    ReLU or nothing, add half of the last place kept, shift right arithmetically, saturate: round half up.
    Sums are at most 48 bits, so the addition is exact in int64.
    """
    if relu:
        total = np.maximum(total, 0)
    half = 1 << (shift - 1) if shift else 0
    scaled = (total + half) >> shift
    clipped = (scaled > HIGH) | (scaled < LOW)
    return np.clip(scaled, LOW, HIGH).astype(np.int16), clipped


def quantize_input(x: NDArray[Any], exponent: int) -> tuple[NDArray[np.int16], int]:
    """Raw activations of given inputs, and how many were clipped.

    int16 is taken as it is. Floats are divided by ``2**exponent``, rounded half to even and saturated.

    Raises
    ------
    ValueError
        `x` is neither int16 nor float, or holds a NaN.
    """
    if x.dtype == np.int16:
        return x, 0
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"inputs are {x.dtype}; expected int16 or float")
    if np.isnan(x).any():
        raise ValueError("inputs hold NaN")
    with np.errstate(over="ignore"):  # infinity saturates as well
        rounded = np.rint(np.ldexp(x.astype(np.float64), -exponent))
    clipped = int(np.count_nonzero((rounded > HIGH) | (rounded < LOW)))
    return np.clip(rounded, LOW, HIGH).astype(np.int16), clipped


def _product(weight: scipy.sparse.csr_array | NDArray[Any], x: NDArray[np.int16]) -> Int:
    """(batch, out) exact sums modulo 2**64."""
    if scipy.sparse.issparse(weight):
        sums: Int = np.asarray((weight @ x.T.astype(np.int64)).T)
        return sums
    # |x| <= 2**15 bounds every partial sum, in whatever order the library adds.
    bound = int(np.abs(weight.astype(np.int64)).sum(axis=1).max(initial=0)) << 15
    if bound < EXACT_FLOAT:
        return (x.astype(np.float64) @ weight.astype(np.float64).T).astype(np.int64)
    return np.asarray(x.astype(np.int64) @ weight.astype(np.int64).T)
