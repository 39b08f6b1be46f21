"""Translation of what slides over maps or reduces axes: convolution, pooling, mean, sum and maximum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from compiler.frontend.torch_call import Call, Refused, Result, Translation, Value
from compiler.frontend.torch_moves import reshaped, transposed
from compiler.frontend.torch_products import tensors_of

__all__ = ["MAPS"]


def _axes(given: Any, count: int) -> tuple[int, ...]:
    """A number for each axis; torch writes one number, or a list of one, for all of them."""
    numbers = [given] if isinstance(given, int) else list(given)
    return tuple(int(n) for n in (numbers * count if len(numbers) == 1 else numbers))


def _map(x: Any, axes: int) -> Value:
    """A value that is (samples, channels, *sizes)."""
    if not isinstance(x, Value):
        raise Refused("not supported: a constant map")
    if x.rank != axes + 2 or x.samples != 0:
        raise Refused(f"its input has shape {x.shape}; expected (samples, channels, {'height, ' * (axes - 1)}width)")
    return x


def _conv(axes: int) -> Callable[[Call], Value]:
    def translate(call: Call) -> Value:
        x, weight = _map(call["input"], axes), call["weight"]
        tensors = tensors_of(weight, call["bias"])
        dilation, padding = _axes(call["dilation"], axes), call["padding"]
        if padding == "same":  # an odd number in all: torch puts the larger half behind
            total = [step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True)]
            around = (*(n // 2 for n in total), *(n - n // 2 for n in total))
        else:
            around = (0,) * (2 * axes) if padding == "valid" else _axes(padding, axes) * 2
        numbers: dict[str, Any] = {
            "stride": _axes(call["stride"], axes),
            "dilation": dilation,
            "groups": call["groups"],
        }
        return call.value(call.emit("Conv", x.name, tensors=tensors, padding=around, **numbers), 0)

    return translate


def _convolution(call: Call) -> Value:
    if call["transposed"]:
        raise Refused("not supported: transposed convolution")
    return _conv(call.x.rank - 2)(call)


def _pool(op: str, axes: int, *, several: bool = False) -> Translation:
    def translate(call: Call) -> Result:
        x = _map(call.x, axes)
        kernel = _axes(call["kernel_size"], axes)
        stride = _axes(call["stride"] or kernel, axes)
        dilation, padding = _axes(call.get("dilation", 1), axes), _axes(call["padding"], axes)
        made = (call.shape if not several else tuple(call.node.meta["val"][0].shape))[2:]
        after = []
        for n, size in enumerate(x.shape[2:]):  # ceil_mode: windows that begin in the map and end outside
            beyond = (made[n] - 1) * stride[n] + dilation[n] * (kernel[n] - 1) + 1 - size - padding[n]
            after.append(max(beyond, padding[n]) if call["ceil_mode"] else padding[n])
        if op == "AveragePool" and any(after) and (tuple(after) != padding or not call["count_include_pad"]):
            raise Refused("not supported: windows over the edge that count fewer values; set count_include_pad=True")
        numbers: dict[str, Any] = {
            "kernel": kernel,
            "stride": stride,
            "padding": (*padding, *after),
            "dilation": dilation,
        }
        pooled = call.emit(op, x.name, **numbers)
        divisor = call.get("divisor_override")
        if divisor:
            tensors = {"scale": np.array(math.prod(kernel) / divisor), "offset": np.array(0.0)}
            pooled = call.emit("Affine", pooled, tensors=tensors, suffix=".scaled")
        value = call.value(pooled, 0, 0 if several else None)
        return (value,) if several else value

    return translate


def _adaptive(op: str, axes: int) -> Translation:
    def translate(call: Call) -> Result:
        x = _map(call.x, axes)
        several = isinstance(call.node.meta["val"], tuple | list)
        made = (call.node.meta["val"][0] if several else call.node.meta["val"]).shape[2:]
        if any(size % count for size, count in zip(x.shape[2:], made, strict=True)):
            raise Refused(f"not supported: {x.shape[2:]} into {tuple(made)} windows, which differ in size")
        kernel = tuple(size // count for size, count in zip(x.shape[2:], made, strict=True))
        value = call.value(call.emit(op, x.name, kernel=kernel, stride=kernel), 0, 0 if several else None)
        return (value,) if several else value

    return translate


def _reduce(op: str, *, total: bool = False, several: bool = False) -> Translation:
    """Mean, sum or maximum along axes, as a pool whose window is all of them."""

    def translate(call: Call) -> Result:
        x, dims = call.x, call.get("dim")
        if dims is None or dims == []:
            raise Refused("it reduces every axis, the samples' too; name the axes")
        axes = sorted({x.axis(dim) for dim in ([dims] if isinstance(dims, int) else dims)})
        pooled = _pooled(call, op, x, axes)
        if total:
            count = math.prod(call.builder.shape(x.name)[axis] for axis in axes)
            tensors = {"scale": np.array(float(count)), "offset": np.array(0.0)}
            pooled = call.emit("Affine", pooled, tensors=tensors, suffix=".sum")
        gone = [] if call["keepdim"] else [axis + (axis >= x.samples) for axis in axes]
        samples = x.samples - sum(dim < x.samples for dim in gone)
        shape = [1 if axis in axes else n for axis, n in enumerate(call.builder.shape(x.name))]
        kept = shape if call["keepdim"] else [n for axis, n in enumerate(shape) if axis not in axes]
        value = call.value(reshaped(call, pooled, kept, ".flat"), samples, 0 if several else None)
        return (value,) if several else value

    return translate


def _pooled(call: Call, op: str, x: Value, axes: Sequence[int]) -> str:
    """The axes reduced: of a map as they lie, of anything else as a map of one row."""
    shape = call.builder.shape(x.name)
    if len(shape) in (2, 3) and axes == list(range(1, len(shape))):
        return call.emit(op, x.name, kernel=shape[1:])
    others = [axis for axis in range(len(shape)) if axis not in axes]
    row = (math.prod(shape[axis] for axis in others), math.prod(shape[axis] for axis in axes))
    ordered = transposed(call, x.name, [*others, *axes], ".order")
    return call.emit(op, reshaped(call, ordered, row, ".row"), kernel=(row[1],))


MAPS: dict[str, Translation] = {
    "conv1d": _conv(1),
    "conv2d": _conv(2),
    "convolution": _convolution,
    "max_pool1d": _pool("MaxPool", 1),
    "max_pool2d": _pool("MaxPool", 2),
    "max_pool1d_with_indices": _pool("MaxPool", 1, several=True),
    "max_pool2d_with_indices": _pool("MaxPool", 2, several=True),
    "avg_pool1d": _pool("AveragePool", 1),
    "avg_pool2d": _pool("AveragePool", 2),
    "adaptive_avg_pool1d": _adaptive("AveragePool", 1),
    "adaptive_avg_pool2d": _adaptive("AveragePool", 2),
    "adaptive_max_pool1d": _adaptive("MaxPool", 1),
    "adaptive_max_pool2d": _adaptive("MaxPool", 2),
    "mean": _reduce("AveragePool"),
    "sum": _reduce("AveragePool", total=True),
    "amax": _reduce("MaxPool"),
    "max": _reduce("MaxPool", several=True),
}
"""ATen name → translation."""
