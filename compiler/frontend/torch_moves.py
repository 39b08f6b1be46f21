"""Translation of what moves numbers and changes none: shapes, orders, parts and joins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compiler.frontend.torch_call import Call, Refused, Result, Translation, Value

__all__ = ["MOVES", "reshaped", "transposed"]


def reshaped(call: Call, value: str, shape: Sequence[int], suffix: str = "") -> str:
    """A value in another shape; nothing if it has that shape."""
    shape = tuple(shape)
    return value if call.builder.shape(value) == shape else call.emit("Reshape", value, shape=shape, suffix=suffix)


def transposed(call: Call, value: str, order: Sequence[int], suffix: str = "") -> str:
    """A value with its axes in another order; nothing if that is the order they have."""
    same = list(order) == list(range(len(order)))
    return value if same else call.emit("Transpose", value, order=tuple(order), suffix=suffix)


def _same(call: Call) -> Value:
    """Nothing is done to the numbers."""
    x = call.x
    return Value(x.name, x.samples, x.shape, x.tail, x.tail_axis)


def _cast(call: Call) -> Value:
    """Another number format: nothing, but where it rounds more than float32 does."""
    wanted, given = call["dtype"], call.node.all_input_nodes[0].meta["val"].dtype
    wide = wanted in (None, given, torch.float32, torch.float64)
    if not wide and (given.is_floating_point or wanted not in (torch.int32, torch.int64)):
        raise Refused(f"it turns {_short(given)} into {_short(wanted)}, which rounds; keep the module in one format")
    return _same(call)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _reshape(call: Call) -> Value:
    x, shape = call.x, call.shape
    samples = _samples_after(call, x, shape)
    return call.value(reshaped(call, x.name, shape[:samples] + shape[samples + 1 :]), samples)


def _samples_after(call: Call, x: Value, shape: tuple[int, ...]) -> int:
    """The axis of the samples after a reshape: as long as before, with as many numbers ahead of it."""
    if call.op == "unsqueeze":
        return x.samples + int(call["dim"] % (x.rank + 1) <= x.samples)
    if call.op == "squeeze":
        dims = call.get("dim")
        named = [dims] if isinstance(dims, int) else range(x.rank) if dims is None else dims
        gone: list[int] = [dim % x.rank for dim in named if x.shape[dim] == 1]
        if x.samples in gone:
            raise Refused(
                "it would drop the axis of the samples with a batch of one; name the axes, or give two samples"
            )
        return x.samples - sum(dim < x.samples for dim in gone)
    size, ahead = x.shape[x.samples], math.prod(x.shape[: x.samples])
    fits = [n for n, length in enumerate(shape) if length == size and math.prod(shape[:n]) == ahead]
    if not fits:
        raise Refused(f"it turns {x.shape} into {shape}; the batch must stay an axis of its own")
    return x.samples if x.samples in fits else fits[0]


def _permuted(call: Call, order: Sequence[int]) -> Value:
    x = call.x
    dims = [x.dim(dim) for dim in order]
    moved = transposed(call, x.name, [dim - (dim > x.samples) for dim in dims if dim != x.samples])
    return call.value(moved, dims.index(x.samples))


def _permute(call: Call) -> Value:
    return _permuted(call, call["dims"])


def _transpose(call: Call) -> Value:
    x = call.x
    first, second = (x.dim(call[key]) for key in ("dim0", "dim1"))
    order = list(range(x.rank))
    order[first], order[second] = second, first
    return _permuted(call, order)


def _t(call: Call) -> Value:
    return _permuted(call, range(call.x.rank - 1, -1, -1))


def _part(call: Call, dim: int, begin: int, end: int, step: int = 1, *, drop: bool = False, suffix: str = "") -> str:
    x = call.x
    axis = x.axis(dim)
    if (begin, end, step) == (0, x.shape[x.dim(dim)], 1) and not drop:
        return x.name
    return call.emit("Slice", x.name, suffix=suffix, axis=axis, begin=begin, end=end, step=step, drop=drop)


def _slice(call: Call) -> Value:
    x, dim = call.x, call.x.dim(call["dim"])
    size = x.shape[dim]
    begin, end, step = slice(call["start"], call["end"], call["step"]).indices(size)
    if (begin, end, step) == (0, size, 1):
        return _same(call)
    if end <= begin:
        raise Refused(f"places {begin} to {end} of {size}: it is empty")
    return call.value(_part(call, dim, begin, end, step), x.samples)


def _select(call: Call) -> Value:
    x, dim = call.x, call.x.dim(call["dim"])
    place = call["index"] % x.shape[dim]
    return call.value(_part(call, dim, place, place + 1, drop=True), x.samples - (dim < x.samples))


def _unbind(call: Call) -> tuple[Value, ...]:
    x, dim = call.x, call.x.dim(call["dim"])
    samples = x.samples - (dim < x.samples)
    return tuple(
        call.value(_part(call, dim, place, place + 1, drop=True, suffix=f".{place}"), samples, place)
        for place in range(x.shape[dim])
    )


def _split(call: Call) -> tuple[Value, ...]:
    x, dim = call.x, call.x.dim(call["dim"])
    size = x.shape[dim]
    sizes = call.get("split_sizes") or call.get("split_size")
    ends = np.cumsum(sizes).tolist() if isinstance(sizes, list) else [*range(sizes, size, sizes), size]
    return tuple(
        call.value(_part(call, dim, begin, end, suffix=f".{n}"), x.samples, n)
        for n, (begin, end) in enumerate(pairwise([0, *ends]))
    )


def _places(call: Call, dim: int, index: Any) -> Value:
    """Chosen places along one axis, in slices of equal steps."""
    x, places = call.x, [int(place) % call.x.shape[dim] for place in index.flatten().tolist()]
    runs: list[list[int]] = []
    for place in places:
        last = runs[-1] if runs else []
        step = last[1] - last[0] if len(last) > 1 else place - last[0] if last else 0
        if last and step > 0 and place - last[-1] == step:
            last.append(place)
        else:
            runs.append([place])
    if len(runs) > 64:
        raise Refused(f"not supported: it picks {len(places)} places in no regular order")
    parts = [
        _part(call, dim, run[0], run[-1] + 1, run[1] - run[0] if len(run) > 1 else 1, suffix=f".{n}")
        for n, run in enumerate(runs)
    ]
    return call.value(parts[0] if len(parts) == 1 else call.emit("Concat", *parts, axis=x.axis(dim)), x.samples)


def _index_select(call: Call) -> Value:
    if isinstance(call["index"], Value):
        raise Refused("not supported: places that depend on the input")
    return _places(call, call.x.dim(call["dim"]), call["index"])


def _index(call: Call) -> Value:
    table, used = call["self"], [(dim, index) for dim, index in enumerate(call["indices"]) if index is not None]
    if isinstance(table, Tensor) and len(used) == 1 and used[0][0] == 0 and isinstance(used[0][1], Value):
        indices = used[0][1]  # the rows of a constant, picked by the input: an embedding
        rows = call.emit("Gather", indices.name, tensors={"table": _rows(table)})
        shape = list(call.shape)
        del shape[indices.samples]
        return call.value(reshaped(call, rows, shape, ".rows"), indices.samples)
    if len(used) != 1 or not isinstance(used[0][1], Tensor) or used[0][1].dim() != 1 or used[0][1].dtype == torch.bool:
        raise Refused("not supported: only one list of places, which is constant, along one axis")
    return _places(call, *used[0])


def _flip(call: Call) -> Value:
    if len(call["dims"]) != 1:
        raise Refused("not supported: flipped along several axes at once")
    dim = call.x.dim(call["dims"][0])
    return _places(call, dim, torch.arange(call.x.shape[dim] - 1, -1, -1))


def _joined(call: Call, items: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> tuple[list[str], int]:
    """What values and constants are joined, as values of the graph; and the axis of their samples."""
    values = [item for item in items if isinstance(item, Value)]
    if len({value.samples for value in values}) != 1:
        raise Refused("its parts have their samples along different axes")
    samples = values[0].samples
    names = [
        item.name if isinstance(item, Value) else call.constant(item, shape, samples, f".part{n}")
        for n, (item, shape) in enumerate(zip(items, shapes, strict=True))
    ]
    return names, samples


def _cat(call: Call) -> Value:
    items = [item for item in call["tensors"] if isinstance(item, Value) or item.numel()]
    names, samples = _joined(call, items, [tuple(item.shape) for item in items])
    value = next(item for item in items if isinstance(item, Value))
    return call.value(call.emit("Concat", *names, axis=value.axis(call["dim"])), samples)


def _stack(call: Call) -> Value:
    items = call["tensors"]
    names, before = _joined(call, items, [tuple(item.shape) for item in items])
    dim = call["dim"] % (len(call.shape))
    axis, samples = dim - (dim > before), before + (dim <= before)
    shape = call.builder.shape(names[0])
    wide = (*shape[:axis], 1, *shape[axis:])
    rows = [call.emit("Reshape", name, shape=wide, suffix=f".{n}") for n, name in enumerate(names)]
    return call.value(call.emit("Concat", *rows, axis=axis), samples)


def _pad(call: Call) -> Value:
    x, given, value = call.x, list(call["pad"]), call.get("value")
    if call.get("mode", "constant") != "constant" or value not in (None, 0):
        way = call["mode"] if call.get("mode", "constant") != "constant" else f"with {value}"
        raise Refused(f"not supported: it pads {way}; only zeros are")
    before, after = [0] * x.rank, [0] * x.rank
    for n in range(len(given) // 2):
        before[x.rank - 1 - n], after[x.rank - 1 - n] = given[2 * n : 2 * n + 2]
    if min(given) < 0:
        raise Refused("not supported: it cuts off with negative padding; use a slice")
    if before[x.samples] or after[x.samples]:
        x.axis(x.samples)
    del before[x.samples], after[x.samples]
    return call.value(call.emit("Pad", x.name, before=tuple(before), after=tuple(after)), x.samples)


def _rows(table: Tensor) -> NDArray[Any]:
    """A table of rows, whatever shape a row has."""
    rows = table.detach().cpu()
    return (rows if rows.is_floating_point() else rows.float()).reshape(len(rows), -1).numpy()


def _embedding(call: Call) -> Value:
    table, indices = call["weight"], call["indices"]
    if isinstance(table, Value) or not isinstance(indices, Value):
        raise Refused("not supported: a table that depends on the input")
    made = call.emit("Gather", indices.name, tensors={"table": _rows(table)})
    return call.value(made, indices.samples)


def _one_hot(call: Call) -> Value:
    table = np.eye(call.shape[-1], dtype=np.float32)
    return call.value(call.emit("Gather", call.x.name, tensors={"table": table}), call.x.samples)


def _repeat(call: Call) -> Result:
    x, counts = call.x, list(call["repeats"])
    if len(counts) != x.rank or sum(count > 1 for count in counts) != 1:
        raise Refused("not supported: only repeats along one axis")
    dim = next(n for n, count in enumerate(counts) if count > 1)
    return call.value(call.emit("Concat", *[x.name] * counts[dim], axis=x.axis(dim)), x.samples)


_SAME = ("clone", "detach", "alias")
_RESHAPES = ("view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze")

MOVES: dict[str, Translation] = {
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_RESHAPES, _reshape),
    "_to_copy": _cast,
    "permute": _permute,
    "transpose": _transpose,
    "t": _t,
    "repeat": _repeat,
    "slice": _slice,
    "select": _select,
    "unbind": _unbind,
    "split": _split,
    "split_with_sizes": _split,
    "index_select": _index_select,
    "index": _index,
    "flip": _flip,
    "cat": _cat,
    "stack": _stack,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "embedding": _embedding,
    "one_hot": _one_hot,
}
"""ATen name → translation."""
