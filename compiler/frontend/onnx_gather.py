"""Translation of ONNX operations that look up places: in a table by indices from outside, in a value by constants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compiler.frontend.onnx_call import Call, Refused, Result, Translation, Value
from compiler.frontend.onnx_moves import picked, reshaped

__all__ = ["GATHER"]


def _gather(call: Call) -> Result:
    data, places, dim = call.get(0), call.get(1), call.attributes.get("axis", 0)
    if isinstance(places, Value):
        table = call.weight(0)
        if table.ndim == 0 or dim not in (0, -table.ndim):
            raise Refused("not supported: indices into another axis of a table than its rows")
        if call.builder.types[places.name].kind != "index":
            raise Refused("its indices are computed; expected an integer input of the model")
        flat = {"table": table.reshape(len(table), -1)}
        made = call.emit("Gather", places.name, tensors=flat)
        return Value(reshaped(call, made, (*call.builder.shape(made)[:-1], *table.shape[1:])), places.samples)
    x = call.value()
    if places is None or places.dtype.kind not in "iu" or isinstance(data, np.ndarray):
        raise Refused("its indices are not integers")
    axis, dim = call.axis(x, dim), call.dim(dim, call.rank(x))
    size = call.builder.shape(x.name)[axis]
    wanted = [int(n) for n in places.reshape(-1)]
    if not wanted or any(not -size <= n < size for n in wanted):
        raise Refused(f"its indices are not among the {size} places of axis {dim}")
    wanted = [n % size for n in wanted]
    value = picked(call, x.name, axis, wanted)
    sample = call.builder.shape(value)
    value = reshaped(call, value, (*sample[:axis], *places.shape, *sample[axis + 1 :]))
    return Value(value, x.samples + (places.ndim - 1) * (dim < x.samples))


def _gather_nd(call: Call) -> Result:
    """With one index for each place: a Gather along the first axis."""
    places = call.get(1)
    if isinstance(places, Value):  # each index in a list of its own
        shape = call.shape(places)
        if shape[-1] != 1 or places.samples == len(shape) - 1 or call.attributes.get("batch_dims", 0):
            raise Refused("not supported: indices into several axes at once")
        alone = Value(reshaped(call, places.name, call.builder.shape(places.name)[:-1]), places.samples)
        return _gather(replace(call, inputs=[call.get(0), alone], attributes={"axis": 0}))
    if places is None or places.ndim != 2 or places.shape[1] != 1 or call.attributes.get("batch_dims", 0):
        raise Refused("not supported: indices into several axes at once")
    return _gather(replace(call, inputs=[call.get(0), places[:, 0]], attributes={"axis": 0}))


def _one_hot(call: Call) -> Result:
    places, depth, values = call.value(), call.integers("depth", 1), call.weight(2, 1)
    if call.builder.types[places.name].kind != "index" or call.attributes.get("axis", -1) not in (
        -1,
        call.rank(places),
    ):
        raise Refused("not supported: expected an integer input of the model, and the last axis")
    if not depth or not 0 < depth[0] <= 1 << 12 or values.shape != (2,):
        raise Refused(f"its depth is {depth}, its values have shape {values.shape}")
    table = np.where(np.eye(depth[0], dtype=bool), values[1], values[0]).astype(np.float32)
    return Value(call.emit("Gather", places.name, tensors={"table": table}), places.samples)


GATHER: dict[str, Translation] = {"Gather": _gather, "GatherND": _gather_nd, "OneHot": _one_hot}
"""ONNX name → translation."""
