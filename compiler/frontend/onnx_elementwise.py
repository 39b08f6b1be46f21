"""Translation of ONNX operations on each number alone: arithmetic, activations, normalization, quantization."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.frontend.onnx_call import Call, Refused, Result, Translation, Value
from compiler.frontend.onnx_moves import expanded

__all__ = ["ELEMENTWISE", "affine"]

Array = NDArray[Any]


def affine(call: Call, x: Value, scale: Any, offset: Any) -> Value:
    """``x · scale + offset`` with constants that broadcast with the tensor, which is repeated where they are wider."""
    scale, offset = np.asarray(scale, np.float64), np.asarray(offset, np.float64)
    if not bool(np.isfinite(scale).all() and np.isfinite(offset).all()):
        raise Refused("its constant is not finite everywhere")
    target = np.broadcast_shapes(call.shape(x), scale.shape, offset.shape)
    if target != call.shape(x):
        x = expanded(call, x, target)
    rank = call.rank(x)
    tensors = {
        "scale": call.per_sample(scale, rank, x.samples),
        "offset": call.per_sample(offset, rank, x.samples),
    }
    return Value(call.emit("Affine", x.name, tensors=tensors), x.samples)


def _combine(call: Call, op: str, x: Value, other: Value) -> Value:
    """Add or Multiply of two values, the smaller one repeated."""
    try:
        target = np.broadcast_shapes(call.shape(x), call.shape(other))
    except ValueError as error:
        raise Refused(f"it combines shapes {call.shape(x)} and {call.shape(other)}") from error
    x, other = expanded(call, x, target), expanded(call, other, target)
    if x.samples != other.samples:
        raise Refused("it combines values with the samples along different axes")
    return Value(call.emit(op, x.name, other.name), x.samples)


def _operands(call: Call) -> tuple[Value | Array, Value | Array]:
    """Both inputs, those that depend on the samples checked."""
    first, second = (call.value(n) if isinstance(call.get(n), Value) else call.constant(n) for n in (0, 1))
    if first is None or second is None:
        raise Refused("an input is missing")
    return first, second


def _add(sign: float) -> Translation:
    def translate(call: Call) -> Result:
        first, second = _operands(call)
        if isinstance(first, Value) and isinstance(second, Value):
            return _combine(call, "Add", first, second if sign == 1 else affine(call, second, sign, 0.0))
        if isinstance(first, Value):
            return affine(call, first, 1.0, sign * np.asarray(second, np.float64))
        assert isinstance(second, Value)
        return affine(call, second, sign, first)

    return translate


def _multiply(call: Call) -> Result:
    first, second = _operands(call)
    if isinstance(first, Value) and isinstance(second, Value):
        return _combine(call, "Multiply", first, second)
    value, constant = (first, second) if isinstance(first, Value) else (second, first)
    assert isinstance(value, Value)
    return affine(call, value, constant, 0.0)


def _divide(call: Call) -> Result:
    if isinstance(call.get(1), Value):
        raise Refused("not supported: division by a value; only by a constant")
    with np.errstate(divide="ignore"):
        return affine(call, call.value(), 1 / call.weight(1).astype(np.float64), 0.0)


def _sum(call: Call) -> Result:
    values = [call.value(n) for n in range(len(call.inputs))]
    return reduce(lambda x, other: _combine(call, "Add", x, other), values)


def _power(call: Call) -> Result:
    if call.number("exponent", 1) != 2:
        raise Refused(f"not supported: a power of {call.number('exponent', 1)}; only squares are")
    return _combine(call, "Multiply", call.value(), call.value())


def _apply(function: str) -> Translation:
    def translate(call: Call) -> Result:
        x = call.value()
        return Value(call.emit("Activation", x.name, function=function), x.samples)

    return translate


def _slopes(call: Call, x: Value, negative: Any) -> Value:
    """``max(x, 0) + negative · min(x, 0)``."""
    positive = call.emit("Activation", x.name, function="relu")
    turned = affine(call, x, -1.0, 0.0)
    below = Value(call.emit("Activation", turned.name, function="relu"), x.samples)
    return _combine(call, "Add", Value(positive, x.samples), affine(call, below, -negative, 0.0))


def _leaky_relu(call: Call) -> Result:
    return _slopes(call, call.value(), call.attributes.get("alpha", 0.01))


def _prelu(call: Call) -> Result:
    return _slopes(call, call.value(), call.weight(1).astype(np.float64))


def _gelu(call: Call) -> Result:
    return _apply("gelu_tanh" if call.attributes.get("approximate", "none") == "tanh" else "gelu")(call)


def _swish(call: Call) -> Result:
    if call.attributes.get("alpha", 1.0) != 1:
        raise Refused(f"not supported: alpha {call.attributes['alpha']:g}; expected 1")
    return _apply("silu")(call)


def _clamped(call: Call, x: Value, low: float | None, high: float | None) -> Value:
    least, most = -math.inf if low is None else low, math.inf if high is None else high
    if least > most:
        raise Refused(f"its lower bound {least:g} is above its upper bound {most:g}")
    if (least, most) == (0.0, math.inf):
        return Value(call.emit("Activation", x.name, function="relu"), x.samples)
    return Value(call.emit("Clamp", x.name, low=least, high=most), x.samples)


def _clip(call: Call) -> Result:
    return _clamped(call, call.value(), call.number("min", 1), call.number("max", 2))


def _bound(low: bool) -> Translation:
    """Max or Min with one constant."""

    def translate(call: Call) -> Result:
        values = [n for n, item in enumerate(call.inputs) if isinstance(item, Value)]
        if len(call.inputs) != 2 or len(values) != 1:
            raise Refused("not supported: expected one value and one constant")
        bound = call.number("bound", 1 - values[0])
        return _clamped(call, call.value(values[0]), bound if low else None, None if low else bound)

    return translate


def _hard_sigmoid(call: Call) -> Result:
    alpha, beta = call.attributes.get("alpha", 0.2), call.attributes.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return _apply("hardsigmoid")(call)
    return _clamped(call, affine(call, call.value(), alpha, beta), 0.0, 1.0)


def _batch_norm(call: Call) -> Result:
    x = call.value()
    if call.attributes.get("training_mode", 0):
        raise Refused("it is in training mode; export the model in evaluation mode")
    if call.rank(x) < 2 or x.samples != 0:
        raise Refused("its input has the samples along another axis than the first")
    weight, bias, mean, variance = (call.weight(n, 1).astype(np.float64) for n in range(1, 5))
    channels = call.shape(x)[1]
    if {len(part) for part in (weight, bias, mean, variance)} != {channels}:
        raise Refused(f"its parameters have {len(weight)} numbers for {channels} channels")
    epsilon = call.attributes.get("epsilon", 1e-5)
    if bool((variance + epsilon <= 0).any()):
        raise Refused("a variance is negative")
    scale = weight / np.sqrt(variance + epsilon)
    each = (channels, *[1] * (call.rank(x) - 2))
    return affine(call, x, scale.reshape(each), (bias - mean * scale).reshape(each))


def _identity(call: Call) -> Result:
    found = call.get(0)
    if found is None:
        raise Refused("its input is missing")
    return found


def _dropout(call: Call) -> Result:
    mode = call.constant(2)
    if mode is not None and bool(mode.any()):
        raise Refused("it is in training mode; export the model in evaluation mode")
    return [call.value(), None]


_FLOATS = (1, 10, 11, 16)
_INTEGERS = (2, 3, 4, 5, 6, 7, 12, 13)


def _cast(call: Call) -> Result:
    x, to = call.value(), call.attributes.get("to", 0)
    kind = call.builder.types[x.name].kind
    if to not in (_FLOATS if kind == "real" else _INTEGERS):
        raise Refused("it makes quantities of indices" if kind == "index" else "it rounds to integers")
    return x


def _grid(call: Call) -> tuple[float, int, tuple[int, int]]:
    """Scale, zero point, and smallest and largest integer."""
    scale, zero = call.constant(1), call.constant(2)
    if scale is None or scale.size != 1:
        raise Refused("its scale differs from channel to channel of an activation", quantization=True)
    dtype = np.dtype(np.uint8) if zero is None else zero.dtype
    if dtype not in (np.dtype(np.int8), np.dtype(np.uint8), np.dtype(np.int16), np.dtype(np.uint16)):
        raise Refused(f"its numbers are {dtype}; expected 8 or 16 bits", quantization=True)
    limits = np.iinfo(dtype)
    return float(scale.reshape(-1)[0]), 0 if zero is None else int(zero.reshape(-1)[0]), (limits.min, limits.max)


def _quantize(call: Call) -> Result:
    """To a grid; the value stays that of the number on the grid."""
    x = call.value()
    scale, zero, (low, high) = _grid(call)
    fraction, exponent = math.frexp(scale)
    if fraction != 0.5:
        raise Refused(f"its scale {scale:.4g} is not a power of two", quantization=True)
    made = call.emit("FakeQuantize", x.name, exponent=exponent - 1, low=low - zero, high=high - zero)
    return Value(made, x.samples, grid=(scale, zero))


def _dequantize(call: Call) -> Result:
    x = call.value()
    scale, zero, _ = _grid(call)
    if x.grid != (scale, zero):
        raise Refused("its scale or zero point is not that of the QuantizeLinear before it", quantization=True)
    return Value(x.name, x.samples)


def _tail(then: str) -> Translation:
    """Softmax and its kin: left to the host."""

    def translate(call: Call) -> Result:
        x = call.get(0)
        if not isinstance(x, Value) or (x.tail and (then, x.tail) not in _ABSORBS):
            x = call.value()
        if call.op != "ArgMax" and call.version < 13:  # over all axes from this one on
            dim = call.attributes.get("axis", 1)
            if call.dim(dim, call.rank(x)) != call.rank(x) - 1:
                raise Refused("not supported: before version 13 it works on several axes; expected the last")
        else:
            dim = call.attributes.get("axis", 0 if call.op == "ArgMax" else -1)
        if call.attributes.get("select_last_index", 0):
            raise Refused("not supported: select_last_index")
        axis = call.axis(x, dim)
        if x.tail and axis != x.tail_axis:
            raise Refused(f"it works along another axis than the {x.tail} before it")
        return Value(x.name, x.samples, then, axis)

    return translate


_ABSORBS = {("argmax", "softmax"), ("argmax", "log_softmax")}
"""The largest stays the largest."""


ELEMENTWISE: dict[str, Translation] = {
    "Add": _add(1.0),
    "Sub": _add(-1.0),
    "Mul": _multiply,
    "Div": _divide,
    "Sum": _sum,
    "Pow": _power,
    "Neg": lambda call: affine(call, call.value(), -1.0, 0.0),
    "Relu": _apply("relu"),
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Abs": lambda call: _slopes(call, call.value(), -1.0),
    "Sigmoid": _apply("sigmoid"),
    "Tanh": _apply("tanh"),
    "HardSwish": _apply("hardswish"),
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Swish": _swish,
    "Softplus": _apply("softplus"),
    "Clip": _clip,
    "Max": _bound(True),
    "Min": _bound(False),
    "BatchNormalization": _batch_norm,
    "Identity": _identity,
    "Dropout": _dropout,
    "Cast": _cast,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "Softmax": _tail("softmax"),
    "LogSoftmax": _tail("log_softmax"),
    "ArgMax": _tail("argmax"),
}
"""ONNX name → translation."""
