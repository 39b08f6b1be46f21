"""Windows of maps: shapes, and the arrays that convolution and pooling reduce.

Every sequence has a number for each spatial axis; `padding` those before each axis, then those after each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["convolve", "output_shape", "windows"]

Array = NDArray[Any]


def output_shape(
    sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """How many windows there are along each axis."""
    axes = len(sizes)
    return tuple(
        (size + padding[n] + padding[n + axes] - dilation[n] * (kernel[n] - 1) - 1) // stride[n] + 1
        for n, size in enumerate(sizes)
    )


def windows(
    x: Array,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    outside: float,
) -> Array:
    """(batch, channels, *sizes) → a view (batch, channels, *windows, *kernel); `outside` stands around the map."""
    axes = len(kernel)
    if any(padding):
        around = [(0, 0), (0, 0), *((padding[n], padding[n + axes]) for n in range(axes))]
        x = np.pad(x, around, constant_values=outside)
    reach = tuple(dilation[n] * (kernel[n] - 1) + 1 for n in range(axes))
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=tuple(range(2, 2 + axes)))
    return view[(slice(None), slice(None), *(slice(None, None, n) for n in (*stride, *dilation)))]


def convolve(found: Array, weight: Array, groups: int) -> Array:
    """(batch, channels, *windows, *kernel) with (out, channels / groups, *kernel) → (batch, out, *windows)."""
    axes = weight.ndim - 2
    batch, channels, *rest = found.shape
    ahead = found.reshape(batch, groups, channels // groups, *rest)
    # (batch, groups, *windows, channels · kernel): each group is one matrix product.
    columns = ahead.transpose(0, 1, *range(3, 3 + axes), 2, *range(3 + axes, 3 + 2 * axes))
    columns = columns.reshape(batch, groups, int(np.prod(rest[:axes])), -1)
    matrices = weight.reshape(groups, weight.shape[0] // groups, -1).transpose(0, 2, 1)
    return (columns @ matrices).transpose(0, 1, 3, 2).reshape(batch, weight.shape[0], *rest[:axes])
