"""The golden model's operators: what each makes of raw integers, bit for bit.

Written from docs/numerics.md alone. Each function takes a node and the raw values that the node reads, int64 (batch,
*shape), and returns the raw results and where they saturated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

__all__ = ["HIGH", "LOW", "OPERATORS", "Node", "product", "saturate", "wrap", "write_back"]

Int = NDArray[np.int64]
Bool = NDArray[np.bool_]
Made = tuple[NDArray[Any], Bool | None]
"""Raw results, and which of them saturated; None where nothing can."""

HIGH, LOW = (1 << 15) - 1, -(1 << 15)
EXACT_FLOAT = 1 << 53
"""Up to here every integer is a float64, so a float sum whose partial sums stay below is an integer sum."""

CHUNK = 1 << 24
"""Numbers in the windows of a convolution that are held at once."""


class Node(Protocol):
    """What the golden model reads of a node; docs/numerics.md lists attributes and tensors of each operator."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def op(self) -> str: ...  # noqa: D102
    @property
    def inputs(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def outputs(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def attributes(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def tensors(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def body(self) -> Iterable[Any] | None: ...  # noqa: D102


def wrap(total: Int, bits: int) -> Int:
    """Two's complement of `bits` bits: the value that an accumulator of that width holds."""
    return total << (64 - bits) >> (64 - bits)


def saturate(exact: Int) -> tuple[Int, Bool]:
    """Limited to int16, and where that changed a number."""
    return np.clip(exact, LOW, HIGH), (exact > HIGH) | (exact < LOW)


def shifted(total: Int, shift: int | Int) -> Int:
    """Division by 2**shift, rounded to nearest, halves up; exact in int64 for sums of at most 62 bits."""
    result: Int = (total + ((np.int64(1) << shift) >> 1)) >> shift
    return result


def write_back(total: Int, shift: int | Int, relu: bool) -> tuple[NDArray[np.int16], Bool]:
    """Finished sums to activations, and which of them saturated: ReLU or nothing, round, saturate."""
    raw, clipped = saturate(shifted(np.maximum(total, 0) if relu else total, shift))
    return raw.astype(np.int16), clipped


def product(weight: scipy.sparse.csr_array | NDArray[Any], x: NDArray[Any]) -> Int:
    """(…, rows, in) by (…, out, in) → (…, rows, out): exact sums modulo 2**64 of raw values."""
    if scipy.sparse.issparse(weight):
        sums: Int = np.asarray((weight @ x.T.astype(np.int64)).T)
        return sums
    turned = weight.swapaxes(-1, -2)
    # |x| <= 2**15 bounds every partial sum, in whatever order the library adds.
    bound = int(np.abs(weight.astype(np.int64)).sum(axis=-1).max(initial=0)) << 15
    if bound < EXACT_FLOAT:
        return (x.astype(np.float64) @ turned.astype(np.float64)).astype(np.int64)
    return np.asarray(x.astype(np.int64) @ turned.astype(np.int64))


def _finished(node: Node, total: Int) -> Made:
    return write_back(total, node.attributes["shift"], node.attributes.get("activation", "none") == "relu")


def _weight(codes: NDArray[Any], codebook: NDArray[Any]) -> Any:
    """The weights of a Linear; those of few nonzeros as a sparse matrix, which is faster."""
    codebook = codebook.astype(np.int64)
    if np.count_nonzero(codes) * 8 > codes.size:
        return codebook[codes]
    matrix = scipy.sparse.csr_array(codes)
    return scipy.sparse.csr_array((codebook[matrix.data], matrix.indices, matrix.indptr), shape=matrix.shape)


def _linear(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    x, tensors = reads[0], node.tensors
    weight = tensors["weight"] if "weight" in tensors else _weight(tensors["codes"], tensors["codebook"])
    return _finished(node, wrap(_rows(weight, x) + tensors["bias"], acc_bits))


def _rows(weight: Any, x: Int) -> Int:
    """A matrix over the last axis."""
    return product(weight, x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], weight.shape[0])


def _windows(given: Mapping[str, Any], x: Int, kernel: Sequence[int], outside: int) -> Int:
    """(batch, channels, *map) → (batch, channels, *windows, *kernel)."""
    axes, padding = len(kernel), given["padding"]
    around = [(0, 0), (0, 0), *zip(padding[:axes], padding[axes:], strict=True)]
    x = np.pad(x, around, constant_values=outside)
    dilation, stride = given["dilation"], given["stride"]
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    every = np.lib.stride_tricks.sliding_window_view(x, reach, axis=tuple(range(2, 2 + axes)))
    return every[(slice(None), slice(None), *(slice(None, None, step) for step in (*stride, *dilation)))]


def _convolve(given: Mapping[str, Any], codes: NDArray[Any], codebook: NDArray[Any], x: Int) -> Int:
    """Exact sums modulo 2**64 of a window over the channels of each group; `given` are the attributes of a Conv."""
    weight, groups = codebook.astype(np.int64)[codes], given["groups"]
    outputs, kernel = codes.shape[0], codes.shape[2:]
    matrices = weight.reshape(groups, outputs // groups, -1)
    found = _windows(given, x, kernel, 0)
    batch, channels, *places = found.shape[: -len(kernel)]
    parts = []
    step = max(1, CHUNK * batch // max(1, found.size))
    for first in range(0, batch, step):
        part = found[first : first + step].reshape(-1, groups, channels // groups, *places, *kernel)
        axes = range(3, 3 + len(kernel))
        columns = part.transpose(0, 1, *axes, 2, *range(3 + len(kernel), part.ndim))
        sums = product(matrices, columns.reshape(len(part), groups, -1, matrices.shape[2]))
        parts.append(sums.swapaxes(2, 3).reshape(len(part), outputs, *places))
    return np.concatenate(parts)


def _by_row(node: Node, sums: Int, axis: int, acc_bits: int) -> Made:
    """Finished sums whose rows, along an axis, have biases and shifts of their own."""
    row = (-1, *(1 for _ in sums.shape[axis + 1 :]))
    total = wrap(sums + node.tensors["bias"].reshape(row), acc_bits)
    shift = np.asarray(node.tensors["shift"], np.int64).reshape(row)
    return write_back(total, shift, node.attributes["activation"] == "relu")


def _conv(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    sums = _convolve(node.attributes, node.tensors["codes"], node.tensors["codebook"], reads[0])
    return _by_row(node, sums, 1, acc_bits)


def _accumulate(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    given, tensors, sums = node.attributes, node.tensors, []
    for n, (kind, x) in enumerate(zip(given["kinds"], reads, strict=True)):
        if kind == "identity":
            sums.append(x * given["weights"][n])
        elif kind == "linear":
            sums.append(_rows(_weight(tensors[f"codes{n}"], tensors[f"codebook{n}"]), x))
        else:
            sums.append(_convolve(_window(given, n, x.ndim - 2), tensors[f"codes{n}"], tensors[f"codebook{n}"], x))
    total = np.sum(sums, axis=0)
    return _by_row(node, total, 1 if "conv" in given["kinds"] else total.ndim - 1, acc_bits)


def _window(given: Mapping[str, Any], segment: int, axes: int) -> Mapping[str, Any]:
    """What a segment of an Accumulate would have as a Conv of `axes` spatial axes."""
    lengths = {"stride": axes, "padding": 2 * axes, "dilation": axes}
    window = {key: given[f"{key}s"][segment * size : (segment + 1) * size] for key, size in lengths.items()}
    return {**window, "groups": given["group_counts"][segment]}


def _affine(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    return _finished(node, reads[0] * node.tensors["scale"].astype(np.int64) + node.tensors["offset"])


def _add(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    return _finished(node, reads[0] + reads[1])


def _multiply(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    return _finished(node, reads[0] * reads[1])


def _scaled(node: Node, x: Int) -> tuple[Int, Bool]:
    return saturate(shifted(x << node.attributes["left"], node.attributes["right"]))


def _shift(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    return _scaled(node, reads[0])


def _average_pool(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    kernel = node.attributes["kernel"]
    sums = _windows(node.attributes, reads[0], kernel, 0).sum(axis=tuple(range(-len(kernel), 0)))
    return _finished(node, sums * node.attributes["weight"])


def _max_pool(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    kernel = node.attributes["kernel"]
    return _windows(node.attributes, reads[0], kernel, LOW).max(axis=tuple(range(-len(kernel), 0))), None


def _clamp(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    return np.clip(reads[0], node.attributes["low"], node.attributes["high"]), None


def _table(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    table = node.tensors["table"].astype(np.int64)
    place, _ = _scaled(node, reads[0])
    piece, part = (place >> 7) + 256, place & 127
    return table[piece] + (((table[piece + 1] - table[piece]) * part + 64) >> 7), None


def _concat(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    return np.concatenate(reads, axis=node.attributes["axis"] + 1), None


def _reshape(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    return reads[0].reshape(len(reads[0]), *node.attributes["shape"]), None


def _transpose(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    return reads[0].transpose(0, *(axis + 1 for axis in node.attributes["order"])), None


def _slice(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    given = node.attributes
    places = np.arange(given["begin"], given["end"], given["step"])
    part = reads[0].take(places, axis=given["axis"] + 1)
    return part.squeeze(given["axis"] + 1) if given["drop"] else part, None


def _pad(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    around = zip(node.attributes["before"], node.attributes["after"], strict=True)
    return np.pad(reads[0], [(0, 0), *around]), None


def _gather(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    table = node.tensors["table"]
    return table.astype(np.int64)[_within(node, reads[0], len(table))], None


def _indices(node: Node, reads: Sequence[Int], acc_bits: int) -> Made:
    return _within(node, reads[0], node.attributes["rows"])[..., np.newaxis], None


def _within(node: Node, rows: Int, count: int) -> Int:
    """Indices, all of which are rows of a table; ValueError if one is not."""
    if rows.size and not 0 <= int(rows.min()) <= int(rows.max()) < count:
        raise ValueError(
            f"{node.name}: indices from {int(rows.min())} to {int(rows.max())}; its table has {count} rows"
        )
    return rows


OPERATORS: Mapping[str, Callable[[Node, Sequence[Int], int], Made]] = {
    "Linear": _linear,
    "Conv": _conv,
    "Accumulate": _accumulate,
    "Affine": _affine,
    "Add": _add,
    "Multiply": _multiply,
    "Shift": _shift,
    "AveragePool": _average_pool,
    "MaxPool": _max_pool,
    "Clamp": _clamp,
    "Table": _table,
    "Concat": _concat,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Slice": _slice,
    "Pad": _pad,
    "Gather": _gather,
    "Indices": _indices,
    "Output": lambda node, reads, acc_bits: (reads[0], None),
}
"""Operators of one result; Input, Constant and Scan are `sim.golden`'s."""
