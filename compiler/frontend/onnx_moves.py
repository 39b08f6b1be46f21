"""Translation of ONNX operations that move numbers: reshape, transpose, slice, split, concat, pad and their kin."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from compiler.frontend.onnx_call import Call, Refused, Result, Translation, Value
from compiler.frontend.onnx_file import MAX_NUMBERS

__all__ = ["MOVES", "expanded", "ordered", "picked", "regrouped", "reshaped"]

MAX_PIECES = 256


def reshaped(call: Call, name: str, shape: Sequence[int]) -> str:
    """A value of the graph in another shape."""
    shape = tuple(int(n) for n in shape)
    return name if call.builder.shape(name) == shape else call.emit("Reshape", name, shape=shape)


def ordered(call: Call, name: str, order: Sequence[int]) -> str:
    """A value of the graph with its axes in another order."""
    order = tuple(int(n) for n in order)
    return name if order == tuple(range(len(order))) else call.emit("Transpose", name, order=order)


def regrouped(call: Call, x: Value, target: Sequence[int]) -> Value:
    """A tensor in another shape, where the samples stay apart from everything else."""
    shape = call.shape(x)
    lead = math.prod(shape[: x.samples])
    places = [n for n, size in enumerate(target) if size == call.batch and math.prod(target[:n]) == lead]
    if math.prod(target) != math.prod(shape) or not places:
        raise Refused(
            f"it makes shape {_named(call, target)} of {_named(call, shape)}; expected the samples to stay an axis"
        )
    sample = [*target[: places[0]], *target[places[0] + 1 :]]
    return Value(reshaped(call, x.name, sample), places[0])


def _named(call: Call, shape: Sequence[int]) -> str:
    return f"({', '.join('N' if size == call.batch else str(size) for size in shape)})"


def expanded(call: Call, x: Value, target: Sequence[int]) -> Value:
    """A tensor repeated along axes of one place: a Linear whose weights are ones."""
    extra = len(target) - call.rank(x)
    if extra > 0:
        if x.samples + extra >= len(target):
            raise Refused(f"it widens {_named(call, call.shape(x))} to {_named(call, target)}")
        x = Value(reshaped(call, x.name, (*(1,) * extra, *call.builder.shape(x.name))), x.samples + extra)
    shape = call.shape(x)
    wide = [n for n, (have, want) in enumerate(zip(shape, target, strict=True)) if have != want]
    if any(shape[n] != 1 or n == x.samples for n in wide):
        raise Refused(f"shapes {_named(call, shape)} and {_named(call, target)} do not fit each other")
    if not wide:
        return x
    if math.prod(target) > MAX_NUMBERS * call.batch:
        raise Refused(f"it repeats its input to {_named(call, target)}: too many numbers")
    axes = [call.axis(x, n) for n in wide]
    sample = call.builder.shape(x.name)
    others = [n for n in range(len(sample)) if n not in axes]
    count = math.prod(target[n] for n in wide)
    column = reshaped(call, x.name, (*(sample[n] for n in others), 1))
    row = call.emit("Linear", column, tensors={"weight": np.ones((count, 1), np.float32)})
    apart = reshaped(call, row, (*(sample[n] for n in others), *(target[n] for n in wide)))
    now = [*others, *axes]
    return Value(ordered(call, apart, [now.index(n) for n in range(len(sample))]), x.samples)


def _reshape(call: Call) -> Result:
    x, target = call.value(), call.integers("shape", 1)
    if target is None:
        raise Refused("its shape is missing")
    shape = call.shape(x)
    if not call.attributes.get("allowzero", 0):
        target = [shape[n] if size == 0 and n < len(shape) else size for n, size in enumerate(target)]
    known = math.prod(size for size in target if size != -1)
    if target.count(-1) > 1 or any(size < -1 or size == 0 for size in target):
        raise Refused(f"its shape is {target}")
    target = [math.prod(shape) // known if size == -1 else size for size in target]
    return regrouped(call, x, target)


def _flatten(call: Call) -> Result:
    x = call.value()
    rank, axis = call.rank(x), call.attributes.get("axis", 1)
    shape = call.shape(x)
    if not -rank <= axis <= rank:
        raise Refused(f"axis {axis} of a tensor with {rank} axes")
    axis = axis + rank if axis < 0 else axis
    return regrouped(call, x, (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _squeeze(call: Call) -> Result:
    x, dims = call.value(), call.integers("axes", 1)
    rank, shape = call.rank(x), call.shape(x)
    gone = (
        [n for n, size in enumerate(shape) if size == 1 and n != x.samples]
        if dims is None
        else [call.dim(dim, rank) for dim in dims]
    )
    if any(shape[n] != 1 or n == x.samples for n in gone):
        raise Refused(f"it drops axes {gone} of {_named(call, shape)}; expected axes of one place")
    axes = [call.axis(x, n) for n in gone]
    sample = [size for n, size in enumerate(call.builder.shape(x.name)) if n not in axes]
    return Value(reshaped(call, x.name, sample), x.samples - sum(n < x.samples for n in gone))


def _unsqueeze(call: Call) -> Result:
    x, dims = call.value(), call.integers("axes", 1) or []
    rank = call.rank(x) + len(dims)
    new = {call.dim(dim, rank) for dim in dims}
    if len(new) != len(dims):
        raise Refused(f"its axes are {dims}; expected each once")
    old = iter(range(rank - len(new)))
    origin = [None if n in new else next(old) for n in range(rank)]
    shape = call.shape(x)
    sample = [1 if place is None else shape[place] for place in origin if place != x.samples]
    return Value(reshaped(call, x.name, sample), origin.index(x.samples))


def _transpose(call: Call) -> Result:
    x = call.value()
    rank = call.rank(x)
    order = call.attributes.get("perm", list(range(rank))[::-1])
    if sorted(order) != list(range(rank)):
        raise Refused(f"its order {order} is not one of {rank} axes")
    sample = [call.axis(x, dim) for dim in order if dim != x.samples]
    return Value(ordered(call, x.name, sample), order.index(x.samples))


def _slice(call: Call) -> Result:
    x = call.value()
    begins, ends = call.integers("starts", 1), call.integers("ends", 2)
    if begins is None or ends is None:
        raise Refused("its starts or ends are missing")
    dims = call.integers("axes", 3) or list(range(len(begins)))
    steps = call.integers("steps", 4) or [1] * len(begins)
    if not len(begins) == len(ends) == len(dims) == len(steps):
        raise Refused("its starts, ends, axes and steps differ in number")
    shape, value = call.shape(x), x.name
    for begin, end, dim, step in zip(begins, ends, dims, steps, strict=True):
        size = shape[call.dim(dim, len(shape))]
        if step == 0:
            raise Refused("its step is 0")
        first, last, step = slice(begin, end, step).indices(size)
        if (first, last, step) == (0, size, 1):
            continue
        axis = call.axis(x, dim)
        places = range(first, last, step)
        if not places:
            raise Refused(f"nothing is left of axis {dim}")
        value = picked(call, value, axis, list(places))
    return Value(value, x.samples)


def _split(call: Call) -> Result:
    x = call.value()
    axis = call.axis(x, call.attributes.get("axis", 0))
    size = call.builder.shape(x.name)[axis]
    parts = call.integers("split", 1)
    if parts is None:
        count = call.attributes.get("num_outputs", call.results)
        each = math.ceil(size / count)
        parts = [each] * (count - 1) + [size - each * (count - 1)]
    if sum(parts) != size or min(parts) < 1:
        raise Refused(f"it splits {size} places into {parts}")
    ends = np.cumsum(parts).tolist()
    pieces = zip([0, *ends], ends, strict=False)
    return [Value(call.emit("Slice", x.name, axis=axis, begin=a, end=b), x.samples) for a, b in pieces]


def picked(call: Call, name: str, axis: int, wanted: list[int]) -> str:
    """Some places of an axis, in any order."""
    step = wanted[1] - wanted[0] if len(wanted) > 1 else 1
    if step > 0 and wanted == list(range(wanted[0], wanted[-1] + 1, step)):
        if len(wanted) == call.builder.shape(name)[axis]:
            return name
        return call.emit("Slice", name, axis=axis, begin=wanted[0], end=wanted[-1] + 1, step=step)
    if len(wanted) > MAX_PIECES:
        raise Refused(f"not supported: {len(wanted)} places in no regular order")
    pieces = [call.emit("Slice", name, axis=axis, begin=place, end=place + 1) for place in wanted]
    return call.emit("Concat", *pieces, axis=axis)


def _tile(call: Call) -> Result:
    x, counts = call.value(), call.integers("repeats", 1) or []
    value = x.name
    if len(counts) != call.rank(x) or not all(0 < count <= MAX_PIECES for count in counts):
        raise Refused(f"its repeats are {counts}; expected {call.rank(x)} numbers from 1 to {MAX_PIECES}")
    for dim, count in enumerate(counts):
        if count > 1:
            value = call.emit("Concat", *[value] * count, axis=call.axis(x, dim))
    return Value(value, x.samples)


def _concat(call: Call) -> Result:
    values = [item for item in call.inputs if isinstance(item, Value)]
    if len({value.samples for value in values}) != 1:
        raise Refused("its inputs have the samples along different axes")
    samples, rank = values[0].samples, call.rank(values[0])
    axis = call.axis(values[0], call.attributes.get("axis", 0))
    shape = call.shape(values[0])
    reads = []
    for place, item in enumerate(call.inputs):
        if isinstance(item, Value):
            reads.append(call.value(place).name)
        elif item is not None:
            if item.ndim != rank or item.shape[samples] not in (1, call.batch):
                raise Refused(f"its constant has shape {item.shape}; expected one that fits {_named(call, shape)}")
            constant = call.same_samples(item, samples).astype(np.float64)
            reads.append(call.emit("Constant", tensors={"value": constant}))
    return Value(call.emit("Concat", *reads, axis=axis), samples)


def _pad(call: Call) -> Result:
    x = call.value()
    mode = call.attributes.get("mode", "constant")
    pads, dims = call.integers("pads", 1), call.integers("axes", 3)
    fill = call.number("value", 2) or 0.0
    rank = call.rank(x)
    dims = list(range(rank)) if dims is None else [call.dim(dim, rank) for dim in dims]
    if pads is None or len(pads) != 2 * len(dims) or min(pads) < 0:
        raise Refused(f"its pads are {pads}; expected {2 * len(dims)} numbers of at least 0")
    if mode != "constant" or fill != 0:
        raise Refused(f"not supported: padding with {mode if mode != 'constant' else fill}; expected zeros")
    before, after = [0] * (rank - 1), [0] * (rank - 1)
    for dim, first, last in zip(dims, pads[: len(dims)], pads[len(dims) :], strict=True):
        if first or last:
            before[call.axis(x, dim)], after[call.axis(x, dim)] = first, last
    if not any(before) and not any(after):
        return x
    return Value(call.emit("Pad", x.name, before=tuple(before), after=tuple(after)), x.samples)


def _expand(call: Call) -> Result:
    x, target = call.value(), call.integers("shape", 1)
    shape = call.shape(x)
    if target is None:
        raise Refused("its shape is missing")
    wide = (1,) * (len(target) - len(shape)) + shape
    same = [1] * (len(shape) - len(target)) + target
    return expanded(call, x, [max(have, want) for have, want in zip(wide, same, strict=True)])


MOVES: dict[str, Translation] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Slice": _slice,
    "Split": _split,
    "Tile": _tile,
    "Concat": _concat,
    "Pad": _pad,
    "Expand": _expand,
    "Shape": lambda call: np.array(
        call.shape(call.value())[slice(call.attributes.get("start"), call.attributes.get("end"))], np.int64
    ),
    "Size": lambda call: np.array(math.prod(call.shape(call.value())), np.int64),
}
"""ONNX name → translation."""
