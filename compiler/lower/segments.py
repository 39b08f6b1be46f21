"""Sums of products in one accumulator: the integers of a Linear, a Conv, or all segments of an Accumulate together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from compiler.graph import windows
from compiler.graph.ir import Node
from compiler.lower.formats import input_exponent, write_back
from compiler.lower.value import Context, Made, Value
from compiler.lower.weights import Attempt, Settled, Shared, Target, finest, fixed_bias, settle

__all__ = ["CHUNK", "Segment", "accumulated", "asked", "segment_of"]

Int = NDArray[np.int64]

FAR = 4
"""Bits by which a segment scales the codebooks of the others down, before its values are shifted up if they can be."""

CHUNK = 1 << 24
"""Numbers in windows that are held at once."""


@dataclass(frozen=True, eq=False)
class Segment:
    """One of the sums.

    Attributes
    ----------
    value : what it reads.
    shared : its weights.
    weights : codebook → weights, in the form that `sums` takes.
    sums : weights and raw values (batch, …) → sums (batch, …).
    signs : the positive and the negative part of weights.
    """

    value: Value
    shared: Shared
    weights: Callable[[Int], Any]
    sums: Callable[[Any, Int], Int]
    signs: Callable[[Any], tuple[Any, Any]]

    @property
    def first(self) -> int:
        """Smallest exponent of its products at which its weights fit int16."""
        return self.value.scale + finest(self.shared.centroids, np.zeros(1), self.value.scale)

    def run(self, codebook: Int) -> tuple[Int, Int, Int | None]:
        """Least and greatest sums for the range of the value, and those of the calibration data."""
        weight, low, high = self.weights(codebook), self.value.low[None], self.value.high[None]
        positive, negative = self.signs(weight)
        bottom = (self.sums(positive, low) + self.sums(negative, high))[0]
        top = (self.sums(positive, high) + self.sums(negative, low))[0]
        samples = self.value.samples
        return bottom, top, None if samples is None else self.sums(weight, samples)


def segment_of(part: Node | None, x: Value, shared: Shared) -> Segment:
    """The segment of a Linear or Conv, or of an identity."""
    if part is None:
        return Segment(x, shared, lambda book: book[1], lambda weight, raw: weight * raw, lambda weight: (weight, 0))
    if part.op == "Conv":
        conv, shape = part, part.tensors["weight"].shape
        return Segment(
            x, shared, lambda book: book.astype(np.float64)[shared.codes].reshape(shape),
            lambda weight, raw: _convolve(conv, weight, raw), lambda w: (np.maximum(w, 0), np.minimum(w, 0)),
        )  # fmt: skip
    matrix: list[scipy.sparse.csr_array] = []

    def weights(codebook: Int) -> scipy.sparse.csr_array:
        if not matrix:
            matrix.append(shared.matrix())
        codes = matrix[0]
        return scipy.sparse.csr_array((codebook[codes.data], codes.indices, codes.indptr), shape=codes.shape)

    return Segment(x, shared, weights, _multiply, lambda w: (w.maximum(0), w.minimum(0)))


def _multiply(weight: scipy.sparse.csr_array, raw: Int) -> Int:
    flat = raw.reshape(-1, raw.shape[-1])
    # One vector is multiplied several times faster than a matrix of one.
    made = (weight @ flat[0])[None] if len(flat) == 1 else np.asarray((weight @ flat.T).T)
    return made.reshape(*raw.shape[:-1], -1)


def _convolve(node: Node, weight: NDArray[np.float64], raw: Int) -> Int:
    """Sums of a batch; float64 holds them exactly, since |w| · 2^15 of a row stays far below 2^53."""
    taps = int(np.prod(weight.shape[2:]))
    step = max(1, CHUNK // max(1, raw[0].size * taps))
    parts = []
    for first in range(0, len(raw), step):
        part = raw[first : first + step].astype(np.float64)
        found = windows.windows(part, weight.shape[2:], node["stride"], node["padding"], node["dilation"], 0.0)
        parts.append(windows.convolve(found, weight, node["groups"]).astype(np.int64))
    return np.concatenate(parts)


def _leading(segments: Sequence[Segment]) -> list[Segment]:
    """The segments that decide on the exponent of the sum: those with weights, of values that are not always zero."""
    heavy = [segment for segment in segments if segment.shared.centroids.any()]
    return [segment for segment in heavy if not segment.value.zero] or heavy


def asked(segments: Sequence[Segment], exponent: int | None = None) -> tuple[int, ...]:
    """The exponents that segments would rather read at; nothing if those that they have will do.

    A segment reads at another exponent where its weights would not fit int16 (its value is zero as far as is known), where
    it is an identity and its weight would be less than one, or where it scales the others' codebooks down by more than
    `FAR` bits while its values leave bits unused.

    Parameters
    ----------
    exponent : of the finished sum; None before it is known.
    """
    leading = _leading(segments)
    if len(segments) == 1 or not leading:
        return ()
    common = max(segment.first for segment in leading)
    at_least = common if exponent is None else max(common, exponent)
    wanted = [segment.value.scale for segment in segments]
    for n, segment in enumerate(segments):
        if not segment.shared.centroids.any():
            continue
        others = [other.first for other in leading if other is not segment]
        if segment.first > common:
            wanted[n] -= segment.first - common
        elif not segment.shared.codes.size and segment.value.scale < at_least:
            wanted[n] = at_least
        elif segment in leading and others and segment.first - max(others) > FAR:
            wanted[n] -= min(_unused(segment.value), segment.first - max(others))
    return tuple(wanted) if wanted != [segment.value.scale for segment in segments] else ()


def _unused(x: Value) -> int:
    """Bits by which a value could be shifted up."""
    values = np.stack([x.low, x.high]) if x.samples is None else x.samples
    return max(0, -input_exponent(values))


def accumulated(
    node: Node,
    segments: Sequence[Segment],
    context: Context,
    target: Target | None,
    channel: tuple[int, ...],
) -> tuple[Settled, Made]:
    """What Linear, Conv and Accumulate share: integers at one exponent of all products, and the result.

    Parameters
    ----------
    channel : the shape in which a number a row broadcasts to sums of a sample.

    Returns
    -------
    settled, whose weights are the codebook of each segment and whose exponent is that of the products; and what is made,
    whose node has the attributes and tensors that all three have.
    """
    rows, lift = len(segments[0].shared.histogram), segments[0].shared.lift
    given = node.tensors.get("bias")
    real_bias = np.zeros(rows) if given is None else given.astype(np.float64)
    relu = node["activation"] == "relu"

    def attempt(exponent: int) -> Attempt | None:
        books = np.stack([
            np.rint(np.ldexp(segment.shared.centroids, segment.value.scale - exponent)).astype(np.int64)
            for segment in segments
        ])  # fmt: skip
        bias = fixed_bias(real_bias, exponent - lift)
        if bias is None:
            return None
        bound = sum(segment.shared.bound(book) for segment, book in zip(segments, books, strict=True)) + np.abs(bias)

        def run() -> tuple[Int, Int, Int | None]:
            parts = [segment.run(book) for segment, book in zip(segments, books, strict=True)]
            bottom, top = (sum(part[n] for part in parts) + bias.reshape(channel) for n in (0, 1))
            known = [part[2] for part in parts if part[2] is not None]
            sums = sum(known) + bias.reshape(channel) if len(known) == len(parts) else None
            if relu:
                bottom, top = np.maximum(bottom, 0), np.maximum(top, 0)
                sums = None if sums is None else np.maximum(sums, 0)
            return bottom, top, sums

        return Attempt(books, bias, bound, run)

    leading = _leading(segments)
    first = max(segment.first for segment in leading) if leading else _of_bias(real_bias, segments)
    found = settle(
        first, attempt, unit=0, acc_bits=context.params.acc_bits, percentile=context.percentile, target=target,
        lift=lift if lift.any() else None, rows=channel,
    )  # fmt: skip
    shift = found.shift + lift.reshape(channel) if lift.any() else found.shift
    exact = np.array_equal(np.ldexp(found.bias.astype(np.float64), found.weight_exponent - lift), real_bias) and all(
        segment.shared.exact
        and np.array_equal(
            np.ldexp(book.astype(np.float64), found.weight_exponent - segment.value.scale), segment.shared.centroids
        )
        for segment, book in zip(segments, found.weights, strict=True)
    )
    exponent = found.weight_exponent + found.shift
    made = node.replace(
        attributes={"exponent": exponent, "activation": node["activation"], "exact": exact},
        tensors={"bias": found.bias},
    )
    clipped, samples = 0, None
    if found.sums is not None:
        samples = write_back(found.sums, shift)
        rounded = (found.sums + ((np.int64(1) << shift) >> 1)) >> shift
        clipped = int(np.count_nonzero(rounded != samples))
    value = Value(exponent, write_back(found.bottom, shift), write_back(found.top, shift), samples)
    clustered = not all(segment.shared.exact for segment in segments)
    return found, Made(made, value, exact, found.halved, clustered, bool(lift.any()), clipped)


def _of_bias(bias: NDArray[np.float64], segments: Sequence[Segment]) -> int:
    """Without any weights, the bias decides."""
    return max(segment.value.scale + finest(np.zeros(1), bias, segment.value.scale) for segment in segments)
