"""What each operator computes on floats: a function an operator, where a line in the table does not say it.

Arrays are (batch, *shape) float64; a constant has a batch of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.graph import windows
from compiler.graph.functions import FUNCTIONS
from compiler.graph.ir import Graph, Node
from compiler.graph.segments import by_channel, segment

__all__ = [
    "Run",
    "accumulate",
    "affine",
    "concat",
    "conv",
    "fake_quantize",
    "fused",
    "linear",
    "pad",
    "pool",
    "rows",
    "scan",
    "slice_",
]

Array = NDArray[Any]
Arrays = list[Array]
Reads = Sequence[Array]
Run = Callable[[Graph, Sequence[Array]], Arrays]
"""Runs the body of a Scan: its inputs to what its outputs read."""


def fused(node: Node, x: Array) -> Arrays:
    """`x` behind the activation that the node ends with."""
    return [FUNCTIONS[node["activation"]](x)]


def _add_bias(node: Node, x: Array, axis: int) -> Array:
    bias = node.tensors.get("bias")
    return x if bias is None else x + bias.astype(np.float64).reshape(-1, *[1] * (x.ndim - 1 - axis))


def linear(node: Node, reads: Reads) -> Arrays:
    """``x W^T + b`` over the last axis."""
    sums = reads[0] @ node.tensors["weight"].T.astype(np.float64)
    return fused(node, _add_bias(node, sums, sums.ndim - 1))


def conv(node: Node, reads: Reads) -> Arrays:
    """Cross-correlation, as torch and ONNX call convolution."""
    weight = node.tensors["weight"].astype(np.float64)
    found = windows.windows(reads[0], weight.shape[2:], node["stride"], node["padding"], node["dilation"], 0.0)
    return fused(node, _add_bias(node, windows.convolve(found, weight, node["groups"]), 1))


def accumulate(node: Node, reads: Reads) -> Arrays:
    """The sum of all segments, then the bias."""
    total = np.zeros(1)
    for n, x in enumerate(reads):
        part = segment(node, n)
        if part is not None:
            (x,) = conv(part, [x]) if part.op == "Conv" else linear(part, [x])
        total = total + x
    return fused(node, _add_bias(node, total, 1 if by_channel(node) else total.ndim - 1))


def pool(reduce: Callable[..., Array], outside: float) -> Callable[[Node, Reads], Arrays]:
    """Reduce each window; zeros around a map count in an average."""

    def run(node: Node, reads: Reads) -> Arrays:
        found = windows.windows(reads[0], node["kernel"], node["stride"], node["padding"], node["dilation"], outside)
        return [reduce(found, axis=tuple(range(-len(node["kernel"]), 0)))]

    return run


def affine(node: Node, reads: Reads) -> Arrays:
    """``x · scale + offset``."""
    return fused(node, reads[0] * node.tensors["scale"] + node.tensors["offset"])


def fake_quantize(node: Node, x: Array) -> Array:
    """Multiples of ``2**exponent``, halves to even, as quantization-aware training rounds."""
    scale = float(2.0 ** node["exponent"])
    steps: Array = np.clip(np.rint(x / scale), node["low"], node["high"])
    return steps * scale


def concat(node: Node, reads: Reads) -> Arrays:
    """Side by side; constants are repeated for each sample."""
    batch = max(len(value) for value in reads)
    same = [np.broadcast_to(value, (batch, *value.shape[1:])) for value in reads]
    return [np.concatenate(same, axis=node["axis"] + 1)]


def slice_(node: Node, reads: Reads) -> Arrays:
    """Some places along one axis."""
    axis = node["axis"] + 1
    part = reads[0][(slice(None),) * axis + (slice(node["begin"], node["end"], node["step"]),)]
    return [part.squeeze(axis) if node["drop"] else part]


def pad(node: Node, reads: Reads) -> Arrays:
    """Zeros around."""
    return [np.pad(reads[0], [(0, 0), *zip(node["before"], node["after"], strict=True)])]


def rows(node: Node, reads: Reads) -> Array:
    """A row of the table for each index."""
    return node.tensors["table"].astype(np.float64)[reads[0].astype(np.int64)]


def scan(node: Node, reads: Reads, run: Run) -> Arrays:
    """The body over the steps, backwards if `reverse`; states go from each step to the next."""
    assert node.body is not None
    count, steps = node["sequences"], range(reads[0].shape[1])
    batch = max(len(value) for value in reads)
    states = [np.broadcast_to(value, (batch, *value.shape[1:])) for value in reads[count:]]
    stacked: list[Arrays] = []
    for step in reversed(steps) if node["reverse"] else steps:
        made = run(node.body, [*(value[:, step] for value in reads[:count]), *states])
        first = len(made) - len(states)
        stacked.append(made[:first])
        states = made[first:]
    if node["reverse"]:
        stacked.reverse()
    return [np.stack(parts, axis=1) for parts in zip(*stacked, strict=True)] + states
