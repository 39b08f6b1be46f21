"""Linear and Conv in integers: shared weights, and the sums that they make."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from compiler.graph import meaning, windows
from compiler.graph.ir import Node
from compiler.lower.formats import write_back
from compiler.lower.value import Context, Made, Value
from compiler.lower.weights import Attempt, Settled, Shared, Target, finest, fixed_bias, settle, share_weights
from hw.params import Params

__all__ = ["conv", "linear"]

Int = NDArray[np.int64]
Sums = Callable[[Any, Int], Int]

WORTH = 0.95
"""Scales of their own must lower the error of a convolution to this share of what it is."""

_MOST_LIFT = 12
"""Bits by which a channel is scaled up at most: shifts end at 31."""

_CHUNK = 1 << 24
"""Numbers in windows that are held at once."""


def linear(node: Node, reads: Sequence[Value], context: Context, target: Target | None) -> Made:
    """Shared weights over the last axis."""
    (x,) = reads
    if node not in context.shared:
        context.shared[node] = [share_weights(node.tensors["weight"], context.params.code_bits)]
    (shared,) = context.shared[node]
    matrix: list[scipy.sparse.csr_array] = []

    def weights(codebook: Int) -> scipy.sparse.csr_array:
        if not matrix:
            matrix.append(shared.matrix())
        codes = matrix[0]
        return scipy.sparse.csr_array((codebook[codes.data], codes.indices, codes.indptr), shape=codes.shape)

    def sums(weight: scipy.sparse.csr_array, raw: Int) -> Int:
        flat = raw.reshape(-1, raw.shape[-1])
        # One vector is multiplied several times faster than a matrix of one.
        made = (weight @ flat[0])[None] if len(flat) == 1 else np.asarray((weight @ flat.T).T)
        return made.reshape(*raw.shape[:-1], -1)

    found, made = _weighted(node, x, shared, context, target, weights, sums, lambda w: (w.maximum(0), w.minimum(0)), ())
    assert made.node is not None
    fold = False
    if x.samples is not None:
        fold = _fold_pays(
            x.samples.reshape(-1, x.samples.shape[-1]), int(shared.histogram[:, 1:].sum()), context.params
        )
    attributes = {**made.node.attributes, "shift": found.shift, "fold": fold}
    return dataclasses.replace(made, node=made.node.replace(attributes=attributes))


def conv(node: Node, reads: Sequence[Value], context: Context, target: Target | None) -> Made:
    """Shared weights under a window; with scales for each output channel where that helps."""
    (x,) = reads
    choices = context.shared.get(node)
    if choices is None:
        weight = node.tensors["weight"].reshape(len(node.tensors["weight"]), -1)
        lift = _lift(weight)
        ways: list[Int | None] = [lift] if context.per_channel is True else [None]
        if context.per_channel == "auto" and x.samples is not None and lift.any():
            ways.append(lift)
        choices = [share_weights(weight, context.params.code_bits, way) for way in ways]
    made = [_conv(node, x, shared, context, target) for shared in choices]
    best = 0
    if len(made) > 1:
        wanted = _reference(node, x)
        plain, lifted = (float(np.sqrt(np.mean((each.value.floats() - wanted) ** 2))) for each in made)
        best = int(lifted <= WORTH * plain)
    context.shared[node] = [choices[best]]
    return made[best]


def _lift(weight: NDArray[np.float32]) -> Int:
    """By how many bits each row can be scaled up until it is as large as the largest."""
    peaks = np.abs(weight).max(axis=1).astype(np.float64)
    used = peaks > 0
    lift = np.zeros(len(peaks), np.int64)
    if used.any():
        lift[used] = np.floor(np.log2(peaks.max() / peaks[used]))
    return np.minimum(lift, _MOST_LIFT)


def _conv(node: Node, x: Value, shared: Shared, context: Context, target: Target | None) -> Made:
    shape = node.tensors["weight"].shape

    def weights(codebook: Int) -> NDArray[np.float64]:
        return codebook.astype(np.float64)[shared.codes].reshape(shape)

    def sums(weight: NDArray[np.float64], raw: Int) -> Int:
        return _convolve(node, weight, raw)

    channel = (-1, *(1 for _ in shape[2:]))
    found, made = _weighted(
        node, x, shared, context, target, weights, sums, lambda w: (np.maximum(w, 0), np.minimum(w, 0)), channel
    )
    assert made.node is not None
    keys = ("stride", "padding", "dilation", "groups")
    attributes = {**made.node.attributes, **{key: node[key] for key in keys}}
    attributes["weight_exponent"] = found.weight_exponent - int(shared.lift.max())
    codes = made.node.tensors["codes"].reshape(shape)
    tensors = {**made.node.tensors, "codes": codes, "shift": found.shift + shared.lift}
    return dataclasses.replace(
        made, node=made.node.replace(attributes=attributes, tensors=tensors), per_channel=bool(shared.lift.any())
    )


def _convolve(node: Node, weight: NDArray[np.float64], raw: Int) -> Int:
    """Sums of a batch; float64 holds them exactly, since |w| · 2^15 of a row stays far below 2^53."""
    taps = int(np.prod(weight.shape[2:]))
    step = max(1, _CHUNK // max(1, raw[0].size * taps))
    parts = []
    for first in range(0, len(raw), step):
        part = raw[first : first + step].astype(np.float64)
        found = windows.windows(part, weight.shape[2:], node["stride"], node["padding"], node["dilation"], 0.0)
        parts.append(windows.convolve(found, weight, node["groups"]).astype(np.int64))
    return np.concatenate(parts)


def _reference(node: Node, x: Value) -> NDArray[np.float64]:
    """What the float layer makes of the calibration data."""
    values, taps = x.floats(), int(np.prod(node.tensors["weight"].shape[2:]))
    step = max(1, _CHUNK // max(1, values[0].size * taps))
    return np.concatenate([meaning.conv(node, [values[n : n + step]])[0] for n in range(0, len(values), step)])


def _weighted(
    node: Node,
    x: Value,
    shared: Shared,
    context: Context,
    target: Target | None,
    weights: Callable[[Int], Any],
    sums: Sums,
    signs: Callable[[Any], tuple[Any, Any]],
    channel: tuple[int, ...],
) -> tuple[Settled, Made]:
    """The parts that Linear and Conv share; `channel` is the shape in which a number a row broadcasts."""
    given = node.tensors.get("bias")
    real_bias = np.zeros(len(shared.codes)) if given is None else given.astype(np.float64)
    relu, unit = node["activation"] == "relu", x.scale

    def attempt(exponent: int) -> Attempt | None:
        codebook = np.rint(np.ldexp(shared.centroids, -exponent)).astype(np.int64)
        bias = fixed_bias(real_bias, unit + exponent - shared.lift)
        if bias is None:
            return None
        added = bias.reshape(channel) if channel else bias

        def run() -> tuple[Int, Int, Int | None]:
            weight = weights(codebook)
            positive, negative = signs(weight)
            low, high = x.low[None], x.high[None]
            bottom = (sums(positive, low) + sums(negative, high))[0] + added
            top = (sums(positive, high) + sums(negative, low))[0] + added
            made = None if x.samples is None else sums(weight, x.samples) + added
            if relu:
                bottom, top = np.maximum(bottom, 0), np.maximum(top, 0)
                made = None if made is None else np.maximum(made, 0)
            return bottom, top, made

        return Attempt(codebook, bias, shared.bound(codebook, bias), run)

    found = settle(
        finest(shared.centroids, real_bias, unit), attempt,
        unit=unit, acc_bits=context.params.acc_bits, percentile=context.percentile, target=target,
        lift=shared.lift if shared.lift.any() else None, rows=channel,
    )  # fmt: skip
    codebook, exponent = found.weights, unit + found.weight_exponent + found.shift
    shift: int | Int = found.shift
    if shared.lift.any():
        shift = found.shift + shared.lift.reshape(channel)
    exact = (
        shared.exact
        and np.array_equal(np.ldexp(codebook.astype(np.float64), found.weight_exponent), shared.centroids)
        and np.array_equal(
            np.ldexp(found.bias.astype(np.float64), unit + found.weight_exponent - shared.lift), real_bias
        )
    )
    zeros = np.where(codebook == 0, 0, np.arange(len(codebook))).astype(np.uint8)  # zeros need no entry
    made = node.replace(
        attributes={
            "exponent": exponent,
            "activation": node["activation"],
            "weight_exponent": found.weight_exponent,
            "exact": bool(exact),
        },
        tensors={"codes": zeros[shared.codes], "codebook": codebook.astype(np.int16), "bias": found.bias},
    )
    clipped, samples = 0, None
    if found.sums is not None:
        samples = write_back(found.sums, shift)
        rounded = (found.sums + ((np.int64(1) << shift) >> 1)) >> shift
        clipped = int(np.count_nonzero(rounded != samples))
    value = Value(exponent, write_back(found.bottom, shift), write_back(found.top, shift), samples)
    return found, Made(made, value, bool(exact), found.halved, not shared.exact, clipped=clipped)


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
