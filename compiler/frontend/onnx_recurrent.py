"""Translation of ONNX's LSTM, GRU and RNN: a Scan for each direction."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.frontend import cells
from compiler.frontend.cells import CELLS, Weights
from compiler.frontend.onnx_call import Call, Refused, Result, Translation, Value
from compiler.frontend.onnx_moves import reshaped

__all__ = ["RECURRENT"]

Array = NDArray[Any]

_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Where torch's gates are among ONNX's: input, output, forget, cell; update, reset, new."""

_ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


def _cell(call: Call, directions: int) -> str:
    """Name of the cell, after everything that the cells do not have is refused."""
    for key in ("clip", "input_forget", "activation_alpha", "activation_beta"):
        if call.attributes.get(key):
            raise Refused(f"not supported: {key}")
    usual = _ACTIVATIONS[call.op]
    given = [name.lower() for name in call.attributes.get("activations", usual * directions)]
    if call.op == "RNN" and given == ["relu"] * directions:
        return "rnn_relu"
    if given != usual * directions:
        raise Refused(f"not supported: activations {given}; expected {usual}")
    if call.op == "GRU":
        return "gru" if call.attributes.get("linear_before_reset", 0) else "gru_reset_first"
    return "lstm" if call.op == "LSTM" else "rnn_tanh"


def _weights(call: Call, place: int, hidden: int, inputs: int) -> Weights:
    order = _GATES[call.op]
    rows = np.concatenate([np.arange(hidden) + gate * hidden for gate in order])
    found: list[Array | None] = []
    directions, both = len(call.weight(1, 3)), call.constant(3)
    for given, shape in (
        (call.weight(1, 3), (directions, len(rows), inputs)),
        (call.weight(2, 3), (directions, len(rows), hidden)),
        (both, (directions, 2 * len(rows))),
    ):
        if given is not None and given.shape != shape:
            raise Refused(f"a tensor of weights has shape {given.shape}; expected {shape}")
    weight, state = call.weight(1)[place][rows], call.weight(2)[place][rows]
    if both is not None:
        found = [both[place, : len(rows)][rows], both[place, len(rows) :][rows]]
    return Weights(np.ascontiguousarray(weight), np.ascontiguousarray(state), *found)


def _initial(call: Call, place: int, position: int, samples: int, hidden: int, suffix: str) -> str:
    """A state before the first step, of (directions, samples, hidden) or with the samples first."""
    given = call.get(position)
    if isinstance(given, Value):
        if given.samples != samples:
            raise Refused(f"its initial state has the samples along axis {given.samples}; expected {samples}")
        return call.emit("Slice", call.value(position).name, axis=0, begin=place, end=place + 1, drop=True)
    if given is None:
        state = np.zeros(hidden)
    elif given.ndim == 3 and given.shape[samples] in (1, call.batch) and given.shape[-1] == hidden:
        state = call.same_samples(given, samples)[place].astype(np.float64)
    else:
        raise Refused(f"its initial state has shape {given.shape}")
    return call.emit("Constant", tensors={"value": state}, suffix=suffix)


def _sequence(call: Call) -> Result:
    x = call.value()
    samples = 0 if call.attributes.get("layout", 0) else 1
    if call.rank(x) != 3 or x.samples != samples:
        raise Refused(
            f"its input has {call.rank(x)} axes with the samples along axis {x.samples}; expected three, with the "
            f"samples along axis {samples}: export a model whose inputs have the samples first"
        )
    steps, inputs = call.builder.shape(x.name)
    reverse = _DIRECTIONS.get(call.attributes.get("direction", "forward"))
    if reverse is None or len(call.weight(1, 3)) != len(reverse):
        raise Refused(f"its direction is {call.attributes.get('direction')!r}, with weights for {len(call.weight(1))}")
    lengths = call.constant(4)
    if lengths is not None and bool((lengths != steps).any()):
        raise Refused("not supported: sequences of different lengths; pass them padded")
    if call.get(7) is not None:
        raise Refused("not supported: peepholes")
    cell, hidden = _cell(call, len(reverse)), call.weight(2, 3).shape[-1]
    if call.attributes.get("hidden_size", hidden) != hidden:
        raise Refused(f"its hidden_size is {call.attributes['hidden_size']}; its weights have {hidden}")
    states = CELLS[cell][1]
    made: list[list[str]] = []
    for place, backwards in enumerate(reverse):
        suffix = "_reverse" * backwards
        first = [_initial(call, place, 5 + n, samples, hidden, f"{suffix}.{name}0") for n, name in enumerate(states)]
        weights = _weights(call, place, hidden, inputs)
        scan = cells.scan(call.builder, call.name + suffix, cell, x.name, first, weights, reverse=backwards)
        outputs = reshaped(call, scan[0], (steps, 1, hidden))
        made.append([outputs, *(reshaped(call, final, (1, hidden)) for final in scan[1:])])
    joined = [
        parts[0] if len(parts) == 1 else call.emit("Concat", *parts, axis=0 if n else 1)
        for n, parts in enumerate(zip(*made, strict=True))
    ]
    sequence = Value(joined[0], 2 if samples else 0)
    return [sequence, *(Value(final, samples) for final in joined[1:])]


RECURRENT: dict[str, Translation] = {name: _sequence for name in _GATES}
"""ONNX name → translation."""
