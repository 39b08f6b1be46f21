"""From a float node to an integer node: a function an operator.

Each takes the node, what it reads, the context and the exponent that the result must have if it can (None: its own
choice), and returns the integer node, its name and reads unchanged, and the value that it makes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ModelError
from compiler.graph import meaning
from compiler.graph.functions import FUNCTIONS
from compiler.graph.integer import HIGH, LOW, MAX_SHIFT
from compiler.graph.ir import Node
from compiler.graph.operators import OPERATORS
from compiler.lower.formats import exponent_of, peak_of, to_raw, write_back
from compiler.lower.products import products
from compiler.lower.tables import best_table, look_up
from compiler.lower.value import Context, Made, Value
from compiler.lower.weights import Attempt, Target, finest, fixed_bias, settle

__all__ = ["RULES", "Rule", "clamp_exponent", "rescale"]

Int = NDArray[np.int64]
Rule = Callable[[Node, Sequence[Value], Context, Target | None], Made]

_GATES = frozenset({"sigmoid", "tanh", "hardsigmoid"})
"""Functions with results from -1 to 1: 2**-15 is their unit, whatever the data."""


def _each(function: Callable[[Int], Int], read: Value) -> tuple[Int, Int, Int | None]:
    """A function that does not fall, of both ends of a range and of the samples."""
    samples = None if read.samples is None else function(read.samples)
    return function(read.low[None])[0], function(read.high[None])[0], samples


def _clipped(sums: Int | None, shift: int | Int) -> int:
    if sums is None:
        return 0
    rounded = (sums + ((np.int64(1) << shift) >> 1)) >> shift
    return int(np.count_nonzero((rounded > HIGH) | (rounded < LOW)))


def _activated(node: Node, *sums: Int | None) -> list[Any]:
    relu = node["activation"] == "relu"
    return [np.maximum(x, 0) if relu and x is not None else x for x in sums]


def _rounded(
    node: Node,
    op: str,
    unit: int,
    sums: tuple[Int, Int, Int | None],
    context: Context,
    target: Target | None,
    attributes: Mapping[str, Any],
) -> Made:
    """Exact sums at 2**unit of an operator without weights, written back with a shift."""
    zero = np.zeros(1, np.int64)
    bound = np.abs(np.stack(sums[:2])).max(keepdims=True)
    found = settle(
        0, lambda _: Attempt(zero, zero, bound, lambda: sums),
        unit=unit, acc_bits=63, percentile=context.percentile, target=target,
    )  # fmt: skip
    shift = found.shift
    made = node.replace(op=op, attributes={**attributes, "shift": shift, "exponent": unit + shift})
    ends = [write_back(end, shift) for end in sums[:2]]
    samples = None if sums[2] is None else write_back(sums[2], shift)
    return Made(made, Value(unit + shift, ends[0], ends[1], samples), clipped=_clipped(sums[2], shift))


def _affine(node: Node, reads: Sequence[Value], context: Context, target: Target | None) -> Made:
    (x,) = reads
    scale, offset = (node.tensors[name].astype(np.float64) for name in ("scale", "offset"))

    def attempt(exponent: int) -> Attempt | None:
        weights = np.rint(np.ldexp(scale, -exponent)).astype(np.int64)
        bias = fixed_bias(offset, x.scale + exponent)
        if bias is None:
            return None

        def sums() -> tuple[Int, Int, Int | None]:
            ends = np.stack([x.low * weights + bias, x.high * weights + bias])
            samples = None if x.samples is None else x.samples * weights + bias
            low, high, samples = _activated(node, ends.min(axis=0), ends.max(axis=0), samples)
            return low, high, samples

        return Attempt(weights, bias, np.abs(weights) * (1 << 15) + np.abs(bias), sums)

    first = finest(np.append(scale, 0.0), offset, x.scale)
    found = settle(
        first, attempt, unit=x.scale, acc_bits=context.params.acc_bits, percentile=context.percentile, target=target
    )
    exponent, unit = x.scale + found.weight_exponent + found.shift, x.scale + found.weight_exponent
    exact = np.array_equal(np.ldexp(found.weights * 1.0, found.weight_exponent), scale) and np.array_equal(
        np.ldexp(found.bias * 1.0, unit), offset
    )
    made = node.replace(
        attributes={"shift": found.shift, "exponent": exponent, "activation": node["activation"], "exact": exact},
        tensors={"scale": found.weights.astype(np.int16), "offset": found.bias},
    )
    low, high = write_back(found.bottom, found.shift), write_back(found.top, found.shift)
    samples = None if found.sums is None else write_back(found.sums, found.shift)
    clipped = _clipped(found.sums, found.shift)
    return Made(made, Value(exponent, low, high, samples), exact, found.halved, clipped=clipped)


def _both(function: Callable[[Int, Int], Int], a: Value, b: Value) -> tuple[Int, Int, Int | None]:
    """A function of two numbers that is straight in each: its ends are at the ends of the ranges."""
    corners = np.stack([function(x, y) for x in (a.low, a.high) for y in (b.low, b.high)])
    samples = None if a.samples is None or b.samples is None else function(a.samples, b.samples)
    return corners.min(axis=0), corners.max(axis=0), samples


def _add(node: Node, reads: Sequence[Value], context: Context, target: Target | None) -> Made:
    low, high, samples = _activated(node, *_both(lambda x, y: x + y, *reads))
    return _rounded(node, "Add", reads[0].scale, (low, high, samples), context, target, node.attributes)


def _multiply(node: Node, reads: Sequence[Value], context: Context, target: Target | None) -> Made:
    low, high, samples = _activated(node, *_both(lambda x, y: x * y, *reads))
    unit = reads[0].scale + reads[1].scale
    return _rounded(node, "Multiply", unit, (low, high, samples), context, target, node.attributes)


def _average_pool(node: Node, reads: Sequence[Value], context: Context, target: Target | None) -> Made:
    (x,) = reads
    count = math.prod(node["kernel"])
    windows = _each(lambda raw: meaning.pool(np.sum, 0)(node, [raw])[0], x)

    def attempt(exponent: int) -> Attempt:
        weight = np.rint(np.ldexp(np.array([1 / count]), -exponent)).astype(np.int64)
        bound = np.array([count << 15]) * weight
        low, high, samples = windows
        return Attempt(
            weight,
            0 * weight,
            bound,
            lambda: (low * weight, high * weight, None if samples is None else samples * weight),
        )

    found = settle(
        exponent_of(1 / count), attempt,
        unit=x.scale, acc_bits=context.params.acc_bits, percentile=context.percentile, target=target,
    )  # fmt: skip
    shift, exponent = found.shift, x.scale + found.weight_exponent + found.shift
    attributes = {**node.attributes, "weight": int(found.weights[0]), "shift": shift, "exponent": exponent}
    samples = None if found.sums is None else write_back(found.sums, shift)
    value = Value(exponent, write_back(found.bottom, shift), write_back(found.top, shift), samples)
    return Made(
        node.replace(attributes=attributes), value, count & (count - 1) == 0, found.halved,
        clipped=_clipped(found.sums, shift),
    )  # fmt: skip


def _moved(node: Node, reads: Sequence[Value], context: Context, target: Target | None) -> Made:
    """Operators that only move numbers do with raw ones what they do with floats."""

    def run(arrays: list[Int]) -> Int:
        return OPERATORS[node.op].meaning(node, arrays, lambda body, inputs: [])[0]

    low, high = run([read.low[None] for read in reads])[0], run([read.high[None] for read in reads])[0]
    known = [read.samples for read in reads if read.samples is not None]
    samples = run(known) if len(known) == len(reads) else None
    return Made(node, Value(reads[0].exponent, low, high, samples))


def _max_pool(node: Node, reads: Sequence[Value], context: Context, target: Target | None) -> Made:
    low, high, samples = _each(lambda raw: meaning.pool(np.max, LOW)(node, [raw])[0], reads[0])
    return Made(node, Value(reads[0].exponent, low, high, samples))


def _limited(node: Node, x: Value, low: int, high: int) -> Made:
    ends = _each(lambda raw: np.clip(raw, low, high), x)
    made = node.replace(op="Clamp", attributes={"low": low, "high": high}, tensors={})
    return Made(made, Value(x.exponent, *ends))


def _clamp(node: Node, reads: Sequence[Value], context: Context, target: Target | None) -> Made:
    low, high = (int(to_raw(np.array(node[name]), reads[0].scale)) for name in ("low", "high"))
    return _limited(node, reads[0], low, high)


def clamp_exponent(node: Node, x: Value) -> int:
    """The exponent that a Clamp reads at: that of its input, or a coarser one if all results are beyond its reach."""
    beyond = [limit for limit in (node["low"], -node["high"]) if limit > 0]
    return max(x.scale, *(exponent_of(limit) for limit in beyond)) if beyond else x.scale


def _fake_quantize(node: Node, reads: Sequence[Value], context: Context, target: Target | None) -> Made:
    """What was trained with its own scale and bits has them; `quantize_graph` has brought it to that scale."""
    return _limited(node, reads[0], max(node["low"], LOW), min(node["high"], HIGH))


def _activation(node: Node, reads: Sequence[Value], context: Context, target: Target | None) -> Made:
    (x,) = reads
    function = node["function"]
    if function == "none":
        return Made(None, x)
    if function == "relu":
        return _limited(node, x, 0, HIGH)
    low, high = int(x.low.min()), int(x.high.max())
    exponent = _function_exponent(function, x, context) if target is None else target.exponent
    table, left = best_table(function, x.scale, exponent, low, high)
    ends = look_up(table, left, np.arange(low, high + 1))
    made = node.replace(
        op="Table",
        attributes={"left": left, "right": 0, "exponent": exponent},
        tensors={"table": table.astype(np.int16)},
    )
    least, most = np.full(x.low.shape, ends.min()), np.full(x.low.shape, ends.max())
    samples = None if x.samples is None else look_up(table, left, x.samples)
    return Made(made, Value(exponent, least, most, samples), exact=False)


def _function_exponent(function: str, x: Value, context: Context) -> int:
    if function in _GATES:
        return -15
    inputs = np.ldexp(np.arange(int(x.low.min()), int(x.high.max()) + 1, dtype=np.float64), x.scale)
    peaks = [peak_of(FUNCTIONS[function](inputs))]
    if x.samples is not None:
        peaks.append(peak_of(FUNCTIONS[function](x.floats()), context.percentile))
    return min((exponent_of(peak) for peak in peaks if peak), default=0)


def _constant(node: Node, reads: Sequence[Value], context: Context, target: Target | None) -> Made:
    value = node.tensors["value"]
    peak = peak_of(value) if value.size else 0.0
    exponent = target.exponent if target is not None else exponent_of(peak) if peak else 0
    raw = to_raw(value, exponent)
    exact = bool(np.array_equal(np.ldexp(raw * 1.0, exponent), value.astype(np.float64)))
    made = node.replace(
        attributes={"layout": node["layout"], "exponent": exponent}, tensors={"value": raw.astype(np.int16)}
    )
    return Made(made, Value(exponent, raw, raw, raw[None]), exact)


def _gather(node: Node, reads: Sequence[Value], context: Context, target: Target | None) -> Made:
    (x,) = reads
    table = node.tensors["table"].astype(np.float64)
    peak = peak_of(table)
    exponent = target.exponent if target is not None else exponent_of(peak) if peak else 0
    raw = to_raw(table, exponent)
    if x.samples is not None and not 0 <= int(x.samples.min()) <= int(x.samples.max()) < len(raw):
        given = f"{int(x.samples.min())} to {int(x.samples.max())}"
        raise ModelError(f"{node.name}: indices of the calibration data are {given}; its table has {len(raw)} rows")
    exact = bool(np.array_equal(np.ldexp(raw * 1.0, exponent), table))
    made = node.replace(attributes={"exponent": exponent}, tensors={"table": raw.astype(np.int16)})
    low, high = (np.broadcast_to(end, (*x.low.shape, raw.shape[1])) for end in (raw.min(axis=0), raw.max(axis=0)))
    return Made(made, Value(exponent, low, high, None if x.samples is None else raw[x.samples]), exact)


def rescale(name: str, read: str, x: Value, exponent: int) -> tuple[Node, Value]:
    """A Shift that brings a value nearer to another exponent, by `MAX_SHIFT` bits at most."""
    by = max(-MAX_SHIFT, min(MAX_SHIFT, exponent - x.scale))
    left, right = max(-by, 0), max(by, 0)
    low, high, samples = _each(lambda raw: write_back(raw << left, right), x)
    node = Node(name, "Shift", (read,), {"left": left, "right": right, "exponent": x.scale + by})
    return node, Value(x.scale + by, low, high, samples)


RULES: Mapping[str, Rule] = {
    "Accumulate": products,
    "Activation": _activation,
    "Add": _add,
    "Affine": _affine,
    "AveragePool": _average_pool,
    "Clamp": _clamp,
    "Concat": _moved,
    "Constant": _constant,
    "Conv": products,
    "FakeQuantize": _fake_quantize,
    "Gather": _gather,
    "Linear": products,
    "MaxPool": _max_pool,
    "Multiply": _multiply,
    "Output": _moved,
    "Pad": _moved,
    "Reshape": _moved,
    "Slice": _moved,
    "Transpose": _moved,
}
"""Of every operator but Input and Scan, which `quantize_graph` handles itself."""
