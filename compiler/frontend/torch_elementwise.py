"""Translation of what works on each number alone: arithmetic, activations, normalization with fixed statistics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compiler.frontend.torch_call import Call, Refused, Translation, Value, array, number, same_for_all
from compiler.frontend.torch_products import expanded

__all__ = ["ELEMENTWISE", "OF_THE_BATCH"]


def _affine(call: Call, x: Value, scale: Any, offset: Any, suffix: str = "") -> str:
    """``x · scale + offset`` with constants that broadcast to the tensor."""
    tensors = {"scale": _aligned(x, scale), "offset": _aligned(x, offset)}
    return call.emit("Affine", x.name, suffix=suffix, tensors=tensors)


def _aligned(x: Value, constant: Any) -> NDArray[np.float64]:
    """A constant for each number of one sample, without the axis of the samples."""
    values = array(constant) if isinstance(constant, Tensor) else np.asarray(constant, np.float64)
    if not bool(np.isfinite(values).all()):
        raise Refused("its constant is not finite everywhere")
    samples = x.samples - (x.rank - values.ndim)
    return values if samples < 0 else same_for_all(values, samples)


def _combine(call: Call, op: str, x: Value, other: Value, factor: float) -> Value:
    """Add or Multiply two values; the second one scaled."""
    if x.rank != other.rank or x.samples != other.samples:
        raise Refused(f"it combines shapes {x.shape} and {other.shape}; expected equal ranks, samples at one axis")
    x, other = expanded(call, x, call.shape), expanded(call, other, call.shape)
    second = other.name if factor == 1 else _affine(call, other, factor, 0.0, ".scaled")
    return call.value(call.emit(op, x.name, second), x.samples)


def _with_constant(call: Call, x: Value, scale: Any, offset: Any) -> Value:
    if call.shape != x.shape:
        raise Refused(f"a constant widens its input from shape {x.shape} to {call.shape}; expand the input before")
    return call.value(_affine(call, x, scale, offset), x.samples)


def _add(sign: float) -> Translation:
    def translate(call: Call) -> Value:
        first, second, alpha = call["self"], call["other"], sign * float(call.get("alpha", 1))
        if isinstance(first, Value) and isinstance(second, Value):
            return _combine(call, "Add", first, second, alpha)
        if isinstance(first, Value):
            return _with_constant(call, first, 1.0, _times(second, alpha))
        return _with_constant(call, second, alpha, first)

    return translate


def _rsub(call: Call) -> Value:
    """``other − alpha · self``."""
    if isinstance(call["other"], Value):
        if isinstance(call["self"], Value):
            return _combine(call, "Add", call["other"], call["self"], -float(call["alpha"]))
        return _with_constant(call, call["other"], 1.0, _times(call["self"], -float(call["alpha"])))
    return _with_constant(call, call.x, -float(call["alpha"]), call["other"])


def _times(constant: Any, factor: float) -> Any:
    return constant.to(torch.float64) * factor if isinstance(constant, Tensor) else float(constant) * factor


def _multiply(call: Call) -> Value:
    first, second = call["self"], call["other"]
    if isinstance(first, Value) and isinstance(second, Value):
        return _combine(call, "Multiply", first, second, 1.0)
    value, constant = (first, second) if isinstance(first, Value) else (second, first)
    return _with_constant(call, value, constant, 0.0)


def _divide(call: Call) -> Value:
    divisor = call["other"]
    if isinstance(divisor, Value) or call.get("rounding_mode") is not None:
        raise Refused("not supported: only division by a constant is, without rounding")
    inverse = 1 / divisor.to(torch.float64) if isinstance(divisor, Tensor) else 1 / divisor if divisor else math.inf
    return _with_constant(call, call.x, inverse, 0.0)


def _negate(call: Call) -> Value:
    return _with_constant(call, call.x, -1.0, 0.0)


def _square(call: Call) -> Value:
    exponent = call.get("exponent", 2)
    if number(exponent) != 2 or isinstance(call["self"], Tensor):
        raise Refused(f"not supported: a power of {exponent}; only squares are")
    return _combine(call, "Multiply", call.x, call.x, 1.0)


def _apply(name: str) -> Callable[[Call], Value]:
    def translate(call: Call) -> Value:
        return call.value(call.emit("Activation", call.x.name, function=name), call.x.samples)

    return translate


def _gelu(call: Call) -> Value:
    return _apply("gelu_tanh" if call["approximate"] == "tanh" else "gelu")(call)


def _softplus(call: Call) -> Value:
    x, beta = call.x, float(call["beta"])
    if float(call["threshold"]) < 15:
        raise Refused(f"not supported: threshold {call['threshold']}; expected at least 15")
    if beta == 1:
        return _apply("softplus")(call)
    inner = call.emit("Activation", _affine(call, x, beta, 0.0, ".scaled"), function="softplus", suffix=".softplus")
    return call.value(_affine(call, Value(inner, x.samples, x.shape), 1 / beta, 0.0), x.samples)


def _clamp(call: Call, x: Value, low: Any, high: Any) -> Value:
    bounds = [-math.inf if low is None else number(low), math.inf if high is None else number(high)]
    if None in bounds:
        raise Refused("not supported: a bound that differs from number to number")
    least, most = (float(bound) for bound in bounds if bound is not None)
    if call.shape != x.shape:
        raise Refused(f"a constant widens its input from shape {x.shape} to {call.shape}")
    if least > most:
        raise Refused(f"its lower bound {least} is above its upper bound {most}")
    if (least, most) == (0.0, math.inf):
        return call.value(call.emit("Activation", x.name, function="relu"), x.samples)
    return call.value(call.emit("Clamp", x.name, low=least, high=most), x.samples)


def _between(low: float | str | None, high: float | str | None) -> Translation:
    """Clamp; a text is the name of the argument that says the bound."""

    def translate(call: Call) -> Value:
        bounds = [call.get(bound) if isinstance(bound, str) else bound for bound in (low, high)]
        if any(isinstance(bound, Value) for bound in bounds):
            raise Refused("not supported: a bound that depends on the input")
        return _clamp(call, call.x, *bounds)

    return translate


def _extreme(*, upper: bool) -> Translation:
    """``maximum`` (the constant is a lower bound) or ``minimum`` of a value and a constant."""

    def translate(call: Call) -> Value:
        values = [item for item in (call["self"], call["other"]) if isinstance(item, Value)]
        constants = [item for item in (call["self"], call["other"]) if not isinstance(item, Value)]
        if len(values) != 1:
            raise Refused("not supported: the larger or smaller of two values that both depend on the input")
        return _clamp(call, values[0], *((None, constants[0]) if upper else (constants[0], None)))

    return translate


def _threshold(call: Call) -> Value:
    if call["threshold"] != call["value"]:
        raise Refused(f"not supported: threshold {call['threshold']} with value {call['value']}; expected them equal")
    return _clamp(call, call.x, call["threshold"], None)


def _two_slopes(slope: Callable[[Call], Any]) -> Translation:
    """``relu(x) − slope · relu(−x)``: leaky ReLU, PReLU, and the magnitude with slope −1."""

    def translate(call: Call) -> Value:
        x = call.x
        positive = call.emit("Activation", x.name, function="relu", suffix=".positive")
        mirror = _affine(call, x, -1.0, 0.0, ".mirrored")
        negative = call.emit("Activation", mirror, function="relu", suffix=".negative")
        scaled = _affine(call, Value(negative, x.samples, x.shape), _times(slope(call), -1.0), 0.0, ".scaled")
        return call.value(call.emit("Add", positive, scaled), x.samples)

    return translate


def _prelu(call: Call) -> Any:
    weight = call["weight"]
    if isinstance(weight, Value):
        raise Refused("not supported: slopes that depend on the input")
    return weight if weight.numel() == 1 else weight.reshape(-1, *[1] * (call.x.rank - 2))


OF_THE_BATCH = "normalization with the statistics of the batch; set track_running_stats=True"


def _batch_norm(call: Call, place: int | None = None) -> Value:
    """The statistics are constants in evaluation: a scale and an offset for each channel.

    place : of the value among several results; None where it is the only one.
    """
    x = call["input"]
    if call.get("training"):
        raise Refused(f"not supported: {OF_THE_BATCH}")
    terms = [call[key] for key in ("running_mean", "running_var", "weight", "bias")]
    if not isinstance(x, Value) or any(isinstance(term, Value) for term in terms) or terms[0] is None:
        raise Refused(f"not supported: {OF_THE_BATCH}")
    if x.axis(1) != 0:
        raise Refused("it expects samples along axis 0 and channels along axis 1")
    mean, variance = (array(term) for term in terms[:2])
    weight = np.ones_like(mean) if terms[2] is None else array(terms[2])
    scale = weight / np.sqrt(variance + call["eps"])
    offset = (0.0 if terms[3] is None else array(terms[3])) - mean * scale
    each = (-1, *[1] * (x.rank - 2))
    tensors = {"scale": scale.reshape(each), "offset": offset.reshape(each)}
    return call.value(call.emit("Affine", x.name, tensors=tensors), x.samples, place)


def _fake_quantize(call: Call) -> Value:
    """Rounding to the grid of a quantization-aware module."""
    scale, zero = number(call["scale"]), number(call["zero_point"])
    if scale is None:
        raise Refused("its scale differs from channel to channel of an activation", quantization=True)
    fraction, exponent = math.frexp(scale)
    if fraction != 0.5:
        raise Refused(f"its scale {scale:.4g} is not a power of two", quantization=True)
    if zero != 0:
        raise Refused(f"its zero point is {zero:.0f}, not 0", quantization=True)
    low, high = int(call["quant_min"]), int(call["quant_max"])
    made = call.emit("FakeQuantize", call.x.name, exponent=exponent - 1, low=low, high=high)
    return call.value(made, call.x.samples)


ELEMENTWISE: dict[str, Translation] = {
    "add": _add(1.0),
    "sub": _add(-1.0),
    "rsub": _rsub,
    "mul": _multiply,
    "div": _divide,
    "neg": _negate,
    "square": _square,
    "pow": _square,
    "relu": _apply("relu"),
    "sigmoid": _apply("sigmoid"),
    "tanh": _apply("tanh"),
    "hardsigmoid": _apply("hardsigmoid"),
    "hardswish": _apply("hardswish"),
    "silu": _apply("silu"),
    "gelu": _gelu,
    "softplus": _softplus,
    "clamp": _between("min", "max"),
    "clamp_min": _between("min", None),
    "clamp_max": _between(None, "max"),
    "hardtanh": _between("min_val", "max_val"),
    "relu6": _between(0.0, 6.0),
    "maximum": _extreme(upper=False),
    "minimum": _extreme(upper=True),
    "threshold": _threshold,
    "leaky_relu": _two_slopes(lambda call: call["negative_slope"]),
    "prelu": _two_slopes(_prelu),
    "abs": _two_slopes(lambda call: -1.0),
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": lambda call: (_batch_norm(call, 0),),
    "fake_quantize_per_tensor_affine": _fake_quantize,
    "fake_quantize_per_channel_affine": _fake_quantize,
}
"""ATen name → translation."""
