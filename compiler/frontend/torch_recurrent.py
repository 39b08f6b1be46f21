"""Translation of recurrent layers: LSTM, GRU and RNN over a sequence are Scans, their cells are single steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from compiler.frontend import cells
from compiler.frontend.cells import CELLS, Weights
from compiler.frontend.torch_call import Call, Refused, Result, Translation, Value, array
from compiler.frontend.torch_products import weight_of

__all__ = ["RECURRENT"]


def _weights(call: Call, tensors: Sequence[Any]) -> Weights:
    """Input, state, and both biases or none; the same object for the same tensors."""
    if any(isinstance(tensor, Value) for tensor in tensors):
        raise Refused("its weights depend on the input")
    key = tuple(map(id, tensors))
    if key not in call.builder.shared:
        biases = [None if tensor is None else array(tensor) for tensor in tensors[2:]]
        call.builder.shared[key] = Weights(weight_of(tensors[0]), weight_of(tensors[1]), *biases)
    found: Weights = call.builder.shared[key]
    return found


def _sequence(cell: str) -> Translation:
    def translate(call: Call) -> tuple[Value, ...]:
        if "data" in call.arguments:
            raise Refused("not supported: packed sequences; pass them padded, all of one length")
        x, first = call["input"], bool(call["batch_first"])
        hx = call["hx"] if isinstance(call["hx"], list) else [call["hx"]]
        names = CELLS[cell][1]
        if not isinstance(x, Value) or x.rank != 3:
            raise Refused("not supported: a sequence without samples; expected three axes")
        if x.samples != (0 if first else 1):
            raise Refused(
                f"it takes axis {x.samples} for the steps, but the samples lie along it: example inputs have the "
                f"samples first; build it with batch_first={not first}, or permute its input"
            )
        directions = 2 if call["bidirectional"] else 1
        each = 4 if call["has_biases"] else 2
        params = call["params"]
        if len(params) != call["num_layers"] * directions * each:
            raise Refused("not supported: proj_size; apply a Linear to the outputs instead")
        value = x.name
        finals: list[list[str]] = [[] for _ in names]
        for layer in range(call["num_layers"]):
            made = []
            for direction in range(directions):
                place = layer * directions + direction
                suffix = f".l{layer}" + "_reverse" * direction
                weights = _weights(call, params[place * each : (place + 1) * each])
                states = [
                    _initial(call, state, place, f"{suffix}.{name}0") for state, name in zip(hx, names, strict=True)
                ]
                scan = cells.scan(
                    call.builder, call.name + suffix, cell, value, states, weights, reverse=direction == 1
                )
                made.append(scan[0])
                for found, final in zip(finals, scan[1:], strict=True):
                    found.append(final)
            value = made[0] if len(made) == 1 else call.emit("Concat", *made, axis=1, suffix=f".l{layer}.both")
        results = [call.value(value, x.samples, 0)]
        for number, (found, name) in enumerate(zip(finals, names, strict=True), start=1):
            rows = [
                call.emit("Reshape", final, shape=(1, *call.builder.shape(final)), suffix=f".{name}.{n}")
                for n, final in enumerate(found)
            ]
            joined = rows[0] if len(rows) == 1 else call.emit("Concat", *rows, axis=0, suffix=f".{name}")
            results.append(call.value(joined, 1, number))
        return tuple(results)

    return translate


def _initial(call: Call, state: Any, place: int, suffix: str) -> str:
    """One layer's and direction's state before the first step, of (layers · directions, samples, hidden)."""
    if isinstance(state, Value):
        if state.samples != 1:
            raise Refused(f"its initial state has the samples along axis {state.samples}; expected axis 1")
        return call.emit("Slice", state.name, axis=0, begin=place, end=place + 1, drop=True, suffix=suffix)
    part: torch.Tensor = state[place]
    return call.constant(part, part.shape, 0, suffix)


def _cell(cell: str) -> Translation:
    """One step; a loop over it in the forward is unrolled, and the steps share their weights."""

    def translate(call: Call) -> Result:
        x, hx = call["input"], call["hx"] if isinstance(call["hx"], list) else [call["hx"]]
        shapes = {item.samples for item in (x, *hx) if isinstance(item, Value)}
        if shapes != {0}:
            raise Refused("it expects samples along axis 0 of its input and states")
        if not isinstance(x, Value):
            x = Value(call.constant(x, x.shape, 0, ".x"), 0, tuple(x.shape))
        step, names = CELLS[cell]
        states = [
            item.name if isinstance(item, Value) else call.constant(item, item.shape, 0, f".{name}0")
            for item, name in zip(hx, names, strict=True)
        ]
        weights = _weights(call, [call["w_ih"], call["w_hh"], call["b_ih"], call["b_hh"]])
        made = step(call.builder, f"{call.name}.", x.name, states, weights)
        if len(made) == 1:
            return call.value(made[0], 0)
        return tuple(call.value(name, 0, number) for number, name in enumerate(made))

    return translate


_KINDS = ("lstm", "gru", "rnn_tanh", "rnn_relu")

RECURRENT: dict[str, Translation] = {
    **{name: _sequence(name) for name in _KINDS},
    **{f"{name}_cell": _cell(name) for name in _KINDS},
}
"""ATen name → translation."""
