"""Linear, Conv and Accumulate in integers: how weights are shared, and which integers stand in the node."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compiler.graph.evaluate import outputs
from compiler.graph.ir import Node
from compiler.graph.operators import OPERATORS
from compiler.graph.segments import by_channel, segment
from compiler.lower.segments import CHUNK, accumulated, asked, segment_of
from compiler.lower.value import Context, Made, Value
from compiler.lower.weights import Shared, Target, one_each, share_weights

__all__ = ["products"]

Int = NDArray[np.int64]
Parts = Sequence[Node | None]

WORTH = 0.95
"""Scales of their own must lower the error of a convolution to this share of what it is."""

_MOST_LIFT = 12
"""Bits by which a channel is scaled up at most: shifts end at 31."""

_WINDOW = ("stride", "padding", "dilation", "groups")
_SEGMENTS = ("kinds", "strides", "paddings", "dilations", "group_counts")


def products(node: Node, reads: Sequence[Value], context: Context, target: Target | None) -> Made:
    """Shared weights; with scales for each output channel where that helps."""
    parts = [segment(node, n) for n in range(len(reads))] if node.op == "Accumulate" else [node]
    choices = context.shared.get(node)
    if choices is None:
        lift = _lift(node, parts, reads)
        ways: list[Int | None] = [None]
        if lift is not None and lift.any():
            if context.per_channel is True:
                ways = [lift]
            elif context.per_channel == "auto" and all(read.samples is not None for read in reads):
                ways.append(lift)
        choices = [_shared(parts, reads, context.params.code_bits, way) for way in ways]
    made = []
    for shared in choices:
        made.append(_made(node, parts, reads, shared, context, target))
        if made[-1].asked:
            return made[-1]
    best = 0
    if len(made) > 1:
        wanted = _reference(node, parts, reads)
        plain, lifted = (float(np.sqrt(np.mean((each.value.floats() - wanted) ** 2))) for each in made)
        best = int(lifted <= WORTH * plain)
    context.shared[node] = [choices[best]]
    return made[best]


def _shared(parts: Parts, reads: Sequence[Value], code_bits: int, lift: Int | None) -> tuple[Shared, ...]:
    """The weights of each segment, which has a codebook of its own."""
    rows = next((len(part.tensors["weight"]) for part in parts if part is not None), reads[0].low.shape[-1])
    return tuple(
        one_each(rows, code_bits)
        if part is None
        else share_weights(part.tensors["weight"].reshape(rows, -1), code_bits, lift)
        for part in parts
    )


def _lift(node: Node, parts: Parts, reads: Sequence[Value]) -> Int | None:
    """By how many bits each row can be scaled up until it is as large as the largest; what it adds to, counted.

    Not at all in a Linear, which has one shift, nor where an identity has the same weight in each row.
    """
    if node.op == "Linear" or None in parts:
        return None
    top = max(read.scale for read in reads)
    each = [
        np.ldexp(np.abs(part.tensors["weight"].reshape(len(part.tensors["weight"]), -1)).max(axis=1), read.scale - top)
        for part, read in zip(parts, reads, strict=True)
        if part is not None
    ]
    peaks = np.max(each, axis=0).astype(np.float64)
    used = peaks > 0
    lift = np.zeros(len(peaks), np.int64)
    if used.any():
        lift[used] = np.floor(np.log2(peaks.max() / peaks[used]))
    return np.minimum(lift, _MOST_LIFT)


def _made(
    node: Node, parts: Parts, reads: Sequence[Value], shared: Sequence[Shared], context: Context, target: Target | None
) -> Made:
    segments = [segment_of(*each) for each in zip(parts, reads, shared, strict=True)]
    if wish := asked(segments):
        return Made(None, reads[0], asked=wish)
    maps = node.op == "Conv" or (node.op == "Accumulate" and by_channel(node))
    channel = (-1, *(1 for _ in reads[0].low.shape[1:])) if maps else (-1,)
    found, made = accumulated(node, segments, context, target, channel)
    if wish := asked(segments, found.weight_exponent):
        return Made(None, reads[0], asked=wish)
    assert made.node is not None
    lift = shared[0].lift
    kept = {key: node[key] for key in (*_WINDOW, *_SEGMENTS) if key in node.attributes}
    attributes = {**made.node.attributes, **kept}
    tensors = {**made.node.tensors}
    exponents = tuple(found.weight_exponent - read.scale - int(lift.max()) for read in reads)
    if node.op == "Accumulate":
        plain = zip(parts, found.weights, strict=True)
        attributes["weights"] = tuple(int(book[1]) if part is None else 0 for part, book in plain)
        attributes["weight_exponents"] = exponents
    else:
        attributes["weight_exponent"] = exponents[0]
    for n, (part, each, book) in enumerate(zip(parts, shared, found.weights, strict=True)):
        if part is not None:
            suffix = str(n) if node.op == "Accumulate" else ""
            codes = each.codes
            if not book[1:][each.histogram[:, 1:].any(axis=0)].all():  # zeros need no entry
                codes = np.where(book == 0, 0, np.arange(len(book))).astype(np.uint8)[codes]
            tensors[f"codes{suffix}"] = codes.reshape(part.tensors["weight"].shape)
            tensors[f"codebook{suffix}"] = book.astype(np.int16)
    if node.op == "Linear":
        attributes["shift"] = found.shift  # one for all outputs
    else:
        tensors["shift"] = found.shift + lift
    return dataclasses.replace(made, node=made.node.replace(attributes=attributes, tensors=tensors))


def _reference(node: Node, parts: Parts, reads: Sequence[Value]) -> NDArray[np.float64]:
    """What the float layer makes of the calibration data."""
    values = [read.floats() for read in reads]
    batch = max(len(value) for value in values)
    sizes = [
        value[0].size * (1 if part is None else int(np.prod(part.tensors["weight"].shape[2:])))
        for value, part in zip(values, parts, strict=True)
    ]
    step = max(1, CHUNK // max(1, *sizes))
    return np.concatenate([
        OPERATORS[node.op].meaning(node, [v[n : n + step] if len(v) > 1 else v for v in values], outputs)[0]
        for n in range(0, batch, step)
    ])  # fmt: skip
