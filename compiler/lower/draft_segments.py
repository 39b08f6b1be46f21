"""Segments of operators: weights over a window, and one weight for each channel, for each part of what is read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compiler.graph.ir import Node
from compiler.lower.program import Pair, Segment, segment_of
from compiler.lower.views import View, Views
from hw.params import Params

__all__ = ["Key", "Segments", "conv_part", "linear_part", "pair", "same"]

Int = NDArray[np.int64]
Key = tuple[str, str]
"""A value, and the order of its axes."""

Segments = list[tuple[Key, Segment]]
"""Segments, and what each reads."""


def pair(values: Sequence[int]) -> Pair:
    """A number for each axis of a map: a sequence is a map of one row."""
    first, second = values if len(values) == 2 else (1, values[0])
    return int(first), int(second)


def weighted(
    view: View, codes: NDArray[np.uint8], codebook: NDArray[np.int16], params: Params,
    stride: Pair = (1, 1), dilation: Pair = (1, 1), origin: Pair = (0, 0),
) -> Segments | None:  # fmt: skip
    """Segments of weights (outputs, rows, columns, channels of the view); None if the array has no such codebook."""
    size = 1 << params.code_bits
    if len(codebook) > size:
        if codebook[size:].any() and int(codes.max()) >= size:
            return None
        codebook = codebook[:size]
    book = np.zeros(size, np.int16)
    book[: len(codebook)] = codebook
    found: Segments = []
    first = 0
    for part in view.parts:
        end = first + len(part.channels)
        at = origin[0] - part.offset[0], origin[1] - part.offset[1]
        made = segment_of(-1, codes[..., first:end], book, stride=stride, dilation=dilation, origin=at)
        found.append(((part.value, part.axes), dataclasses.replace(made, channel=part.channels[made.channel])))
        first = end
    return found


def same(
    view: View, weights: int | Int, params: Params, kernel: Pair = (1, 1), stride: Pair = (1, 1),
    dilation: Pair = (1, 1), origin: Pair = (0, 0),
) -> Segments | None:  # fmt: skip
    """Segments with which each channel reads itself, with one weight of its own everywhere in its window.

    None if the channels have more different weights than a codebook.
    """
    each = np.broadcast_to(np.asarray(weights, np.int64), (view.channels,))
    distinct = np.unique(each[each != 0])
    book = np.zeros(1 << params.code_bits, np.int16)
    if len(distinct) >= len(book):
        return None
    book[1 : len(distinct) + 1] = distinct
    codes = np.where(each != 0, np.searchsorted(distinct, each) + 1, 0)
    taps = np.where(each != 0, math.prod(kernel), 0)
    found: Segments = []
    first = 0
    for part in view.parts:
        here = slice(first, first + len(part.channels))
        counts = np.zeros(view.channels, np.int64)
        counts[here] = taps[here]
        starts = np.concatenate([[0], np.cumsum(counts)])
        tap = np.arange(int(starts[-1])) - np.repeat(starts[:-1], counts)
        at = origin[0] - part.offset[0], origin[1] - part.offset[1]
        channel, code = np.repeat(part.channels, taps[here]), np.repeat(codes[here], taps[here]).astype(np.uint8)
        made = Segment(-1, kernel, stride, dilation, at, starts, tap, channel, code, book)
        found.append(((part.value, part.axes), made))
        first = here.stop
    return found


def linear_part(node: Node, name: str, views: Views, axes: str, params: Params) -> Segments | None:
    """Segments of a Linear, or of one that is part of an Accumulate; None if the array cannot read its value."""
    view = views.view(name, axes)
    if view is None:
        return None
    codes = node.tensors["codes"]
    outputs = len(codes)
    if not view.flat:
        return weighted(view, codes.reshape(outputs, 1, 1, -1), node.tensors["codebook"], params)
    if view.axes[0] == "C":
        codes = codes.reshape(outputs, view.channels, view.height, view.width).transpose(0, 2, 3, 1)
    else:
        codes = codes.reshape(outputs, view.height, view.width, view.channels)
    return weighted(view, codes, node.tensors["codebook"], params)


def conv_part(node: Node, name: str, views: Views, axes: str, params: Params) -> Segments | None:
    """Segments of a Conv, or of one that is part of an Accumulate; None if the array cannot read its value."""
    view = views.view(name, axes)
    if view is None or view.flat:
        return None
    codes, groups = node.tensors["codes"], node["groups"]
    outputs, inputs, *kernel = codes.shape
    codes = codes.reshape(outputs, inputs, *pair(kernel)).transpose(0, 2, 3, 1)
    if groups > 1:
        every = np.zeros((*codes.shape[:3], view.channels), np.uint8)
        for group, (out, read) in enumerate(
            zip(np.split(np.arange(outputs), groups), np.split(np.arange(view.channels), groups), strict=True)
        ):
            every[out[0] : out[-1] + 1, :, :, read[0] : read[-1] + 1] = codes[group * len(out) : (group + 1) * len(out)]
        codes = every
    axes_count = len(kernel)
    before = (0,) * (2 - axes_count) + tuple(node["padding"][:axes_count])
    return weighted(
        view, codes, node.tensors["codebook"], params,
        pair(node["stride"]), pair(node["dilation"]), (-before[0], -before[1]),
    )  # fmt: skip
