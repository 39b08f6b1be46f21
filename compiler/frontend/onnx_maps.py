"""Translation of ONNX operations that slide over maps or reduce axes: convolution, pooling, mean, sum, maximum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.frontend.onnx_call import Call, Refused, Result, Translation, Value
from compiler.frontend.onnx_elementwise import affine
from compiler.frontend.onnx_file import MAX_NUMBERS
from compiler.frontend.onnx_moves import ordered, reshaped

__all__ = ["MAPS"]

Array = NDArray[Any]


def _map(call: Call) -> tuple[Value, tuple[int, ...]]:
    """A value that is (samples, channels, *sizes), and its sizes."""
    x = call.value()
    if call.rank(x) not in (3, 4) or x.samples != 0:
        raise Refused(f"its input has {call.rank(x)} axes; expected (samples, channels, width) or with a height")
    return x, call.shape(x)[2:]


def _numbers(call: Call, key: str, axes: int, least: int = 1) -> tuple[int, ...]:
    found = call.attributes.get(key, [1] * axes)
    if len(found) != axes or min(found) < least or max(found) > 1 << 20:
        raise Refused(f"its {key} are {found}; expected {axes} numbers of at least {least}")
    return tuple(found)


def _padding(
    call: Call, sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """Before each axis, then after each."""
    auto, axes = call.attributes.get("auto_pad", "NOTSET"), len(sizes)
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max(0, (-(-size // step) - 1) * step + spread * (width - 1) + 1 - size)
            for size, width, step, spread in zip(sizes, kernel, stride, dilation, strict=True)
        ]
        less, more = tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
        return less + more if auto == "SAME_UPPER" else more + less
    if auto == "VALID":
        return (0,) * (2 * axes)
    if auto != "NOTSET":
        raise Refused(f"its auto_pad is {auto!r}")
    found = call.attributes.get("pads", [0] * (2 * axes))
    if len(found) != 2 * axes or min(found) < 0 or max(found) > 1 << 20:
        raise Refused(f"its pads are {found}; expected {2 * axes} numbers of at least 0")
    return tuple(found)


def _conv(call: Call) -> Result:
    x, sizes = _map(call)
    weight, axes = call.weight(1, len(sizes) + 2), len(sizes)
    bias = call.constant(2)
    if tuple(call.attributes.get("kernel_shape", weight.shape[2:])) != weight.shape[2:]:
        raise Refused(f"its kernel_shape is {call.attributes['kernel_shape']}; its weight has {weight.shape[2:]}")
    stride, dilation = _numbers(call, "strides", axes), _numbers(call, "dilations", axes)
    padding = _padding(call, sizes, weight.shape[2:], stride, dilation)
    tensors = {"weight": weight} | ({} if bias is None else {"bias": bias.astype(np.float64)})
    made = call.emit(
        "Conv", x.name, tensors=tensors, stride=stride, dilation=dilation, padding=padding,
        groups=call.attributes.get("group", 1),
    )  # fmt: skip
    return Value(made)


def _pool(op: str) -> Translation:
    def translate(call: Call) -> Result:
        x, sizes = _map(call)
        axes = len(sizes)
        if "kernel_shape" not in call.attributes:
            raise Refused("its kernel_shape is missing")
        if call.results > 1:
            raise Refused("not supported: the places of the largest values")
        kernel, stride, dilation = (_numbers(call, key, axes) for key in ("kernel_shape", "strides", "dilations"))
        given = _padding(call, sizes, kernel, stride, dilation)
        padding = given[:axes] + _after(call, sizes, kernel, stride, given, dilation)
        made = call.emit(op, x.name, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
        if op == "MaxPool" or not any(padding):
            return Value(made)
        known = given if call.attributes.get("count_include_pad", 0) else (0,) * (2 * axes)
        counts = [
            _counted(sizes[n], (known[n], known[n + axes]), padding[n], kernel[n], stride[n], dilation[n], windows)
            for n, windows in enumerate(call.builder.shape(made)[1:])
        ]
        count = counts[0] if axes == 1 else np.outer(*counts)
        scale = math.prod(kernel) / count[np.newaxis]
        return Value(made) if bool((scale == 1).all()) else affine(call, Value(made), scale, 0.0)

    return translate


def _counted(
    size: int, known: tuple[int, int], before: int, kernel: int, stride: int, dilation: int, windows: int
) -> Array:
    """How many places of each window along one axis count: those of the map, and padding if that is `known`."""
    if windows * kernel > MAX_NUMBERS:
        raise Refused(f"{windows} windows of {kernel} places are too many")
    at = np.arange(windows)[:, None] * stride + np.arange(kernel) * dilation - before
    inside: Array = ((at >= -known[0]) & (at < size + known[1])).sum(axis=1)
    return inside


def _after(
    call: Call,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, ...]:
    """Padding after each axis; `ceil_mode` adds windows that begin in the map or its padding, and end outside."""
    axes = len(sizes)
    after = []
    for n in range(axes):
        behind = padding[n + axes]
        if call.attributes.get("ceil_mode", 0):
            reach = dilation[n] * (kernel[n] - 1) + 1
            count = -(-(sizes[n] + padding[n] + behind - reach) // stride[n]) + 1
            if (count - 1) * stride[n] >= sizes[n] + padding[n]:
                count -= 1
            behind = max(behind, (count - 1) * stride[n] + reach - sizes[n] - padding[n])
        after.append(behind)
    return tuple(after)


def _global(op: str) -> Translation:
    def translate(call: Call) -> Result:
        x, sizes = _map(call)
        return Value(call.emit(op, x.name, kernel=sizes))

    return translate


def _reduce(op: str, *, total: bool = False) -> Translation:
    """Mean, sum or maximum along axes, as a pool whose window is all of them."""

    def translate(call: Call) -> Result:
        x, dims = call.value(), call.integers("axes", 1)
        if not dims and call.attributes.get("noop_with_empty_axes", 0):
            return x
        if not dims:
            raise Refused("it reduces every axis, the samples' too; name the axes")
        axes = sorted({call.axis(x, dim) for dim in dims})
        shape = call.builder.shape(x.name)
        if len(shape) in (2, 3) and axes == list(range(1, len(shape))):
            made = call.emit(op, x.name, kernel=shape[1:])
        else:
            others = [axis for axis in range(len(shape)) if axis not in axes]
            row = (math.prod(shape[axis] for axis in others), math.prod(shape[axis] for axis in axes))
            made = call.emit(op, reshaped(call, ordered(call, x.name, [*others, *axes]), row), kernel=(row[1],))
        if total:
            count = float(math.prod(shape[axis] for axis in axes))
            made = call.emit("Affine", made, tensors={"scale": np.array(count), "offset": np.array(0.0)})
        if call.attributes.get("keepdims", 1):
            return Value(reshaped(call, made, [1 if n in axes else size for n, size in enumerate(shape)]), x.samples)
        gone = sum(call.dim(dim, call.rank(x)) < x.samples for dim in set(dims))
        kept = [size for n, size in enumerate(shape) if n not in axes]
        return Value(reshaped(call, made, kept), x.samples - gone)

    return translate


MAPS: dict[str, Translation] = {
    "Conv": _conv,
    "MaxPool": _pool("MaxPool"),
    "AveragePool": _pool("AveragePool"),
    "GlobalAveragePool": _global("AveragePool"),
    "GlobalMaxPool": _global("MaxPool"),
    "ReduceMean": _reduce("AveragePool"),
    "ReduceSum": _reduce("AveragePool", total=True),
    "ReduceMax": _reduce("MaxPool"),
}
"""ONNX name → translation."""
