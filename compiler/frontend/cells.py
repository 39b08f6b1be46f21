"""Recurrent cells as operators: one step of LSTM, GRU and RNN, and the Scan over them.

Every gate of a step comes from one Linear over the input beside the state, with one joint bias. Weights are in torch's
order of gates: input, forget, cell, output for LSTM; reset, update, new for GRU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.frontend.builder import Builder

__all__ = ["CELLS", "Weights", "scan"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Weights:
    """Of one layer and direction.

    Attributes
    ----------
    inputs : (gates · hidden, inputs).
    state : (gates · hidden, hidden).
    input_bias, state_bias : (gates · hidden,), or None.
    """

    inputs: Array
    state: Array
    input_bias: Array | None = None
    state_bias: Array | None = None

    @cached_property
    def joint(self) -> dict[str, Array]:
        """Of one Linear over the input beside the state; the same arrays for every step that is unrolled."""
        given = [bias.astype(np.float64) for bias in (self.input_bias, self.state_bias) if bias is not None]
        weight = np.concatenate([self.inputs, self.state], axis=1)
        return {"weight": weight} | ({"bias": sum(given[1:], given[0])} if given else {})

    @cached_property
    def gru(self) -> dict[str, Array]:
        """As `joint`, the rows of the new state in two parts: from the input, and from the state."""
        old, size = 2 * self.state.shape[1], self.state.shape[1]
        weight = np.block([
            [self.inputs[:old], self.state[:old]],
            [self.inputs[old:], np.zeros((size, size), self.state.dtype)],
            [np.zeros((size, self.inputs.shape[1]), self.inputs.dtype), self.state[old:]],
        ])  # fmt: skip
        if "bias" not in self.joint:
            return {"weight": weight}
        parts = [np.zeros(size) if bias is None else bias[old:] for bias in (self.input_bias, self.state_bias)]
        return {"weight": weight, "bias": np.concatenate([self.joint["bias"][:old], *parts]).astype(np.float64)}


Cell = Callable[[Builder, str, str, Sequence[str], Weights], list[str]]
"""(builder, prefix of names, input, states, weights) → states after the step; the first is the cell's output."""


def _linear(builder: Builder, name: str, x: str, h: str, tensors: dict[str, Array]) -> str:
    beside = builder.add("Concat", f"{name}inputs", x, h)
    return builder.add("Linear", f"{name}gates", beside, tensors=tensors)


def _gates(builder: Builder, name: str, gates: str, names: Sequence[str]) -> list[str]:
    size = builder.shape(gates)[0] // len(names)
    return [
        builder.add("Slice", name + gate, gates, begin=number * size, end=(number + 1) * size)
        for number, gate in enumerate(names)
    ]


def _apply(builder: Builder, function: str, value: str) -> str:
    return builder.add("Activation", f"{value}.{function}", value, function=function)


def lstm(builder: Builder, name: str, x: str, states: Sequence[str], weights: Weights) -> list[str]:
    """``c' = f·c + i·g``, ``h' = o·tanh(c')``."""
    h, c = states
    gates = _linear(builder, name, x, h, weights.joint)
    i, f, g, o = _gates(builder, name, gates, ["input", "forget", "cell", "output"])
    i, f, o = (_apply(builder, "sigmoid", gate) for gate in (i, f, o))
    kept = builder.add("Multiply", f"{name}kept", f, c)
    added = builder.add("Multiply", f"{name}added", i, _apply(builder, "tanh", g))
    c = builder.add("Add", f"{name}c", kept, added)
    return [builder.add("Multiply", f"{name}h", o, _apply(builder, "tanh", c)), c]


def gru(builder: Builder, name: str, x: str, states: Sequence[str], weights: Weights) -> list[str]:
    """``n = tanh(Wx + r·(Uh))``, ``h' = (1 − z)·n + z·h``.

    Rows of the Linear: reset and update, then the new state's part from the input and its part from the state, with
    zeros where each does not read.
    """
    (h,) = states
    gates = _linear(builder, name, x, h, weights.gru)
    r, z, from_input, from_state = _gates(builder, name, gates, ["reset", "update", "new_input", "new_state"])
    r, z = _apply(builder, "sigmoid", r), _apply(builder, "sigmoid", z)
    part = builder.add("Multiply", f"{name}reset_state", r, from_state)
    n = _apply(builder, "tanh", builder.add("Add", f"{name}new", from_input, part))
    return [_blended(builder, name, z, n, h)]


def gru_reset_first(builder: Builder, name: str, x: str, states: Sequence[str], weights: Weights) -> list[str]:
    """``n = tanh(Wx + U(r·h))``: the GRU as it was published, and ONNX's unless it says `linear_before_reset`."""
    (h,) = states
    size = weights.state.shape[1]
    joint = weights.joint
    both, new = (
        {key: tensor[part] for key, tensor in joint.items()} for part in (slice(2 * size), slice(2 * size, None))
    )
    r, z = _gates(builder, name, _linear(builder, name, x, h, both), ["reset", "update"])
    r, z = _apply(builder, "sigmoid", r), _apply(builder, "sigmoid", z)
    beside = builder.add("Concat", f"{name}new_inputs", x, builder.add("Multiply", f"{name}reset_state", r, h))
    n = _apply(builder, "tanh", builder.add("Linear", f"{name}new", beside, tensors=new))
    return [_blended(builder, name, z, n, h)]


def _blended(builder: Builder, name: str, z: str, n: str, h: str) -> str:
    """``(1 − z)·n + z·h``."""
    rest = builder.add("Affine", f"{name}rest", z, tensors={"scale": np.array(-1.0), "offset": np.array(1.0)})
    fresh = builder.add("Multiply", f"{name}fresh", rest, n)
    kept = builder.add("Multiply", f"{name}kept", z, h)
    return builder.add("Add", f"{name}h", fresh, kept)


def _rnn(function: str) -> Cell:
    def step(builder: Builder, name: str, x: str, states: Sequence[str], weights: Weights) -> list[str]:
        gates = _linear(builder, name, x, states[0], weights.joint)
        return [_apply(builder, function, gates)]

    return step


CELLS: dict[str, tuple[Cell, tuple[str, ...]]] = {
    "lstm": (lstm, ("h", "c")),
    "gru": (gru, ("h",)),
    "gru_reset_first": (gru_reset_first, ("h",)),
    "rnn_tanh": (_rnn("tanh"), ("h",)),
    "rnn_relu": (_rnn("relu"), ("h",)),
}
"""Name → step and states, the output first."""


def scan(
    builder: Builder, name: str, cell: str, sequence: str, states: Sequence[str], weights: Weights, *, reverse: bool
) -> list[str]:
    """Add a cell over a sequence (steps, features): the outputs of all steps, then the states as they end."""
    step, names = CELLS[cell]
    inside = Builder()
    inside.source = builder.source
    x = _input(inside, "x", builder.types[sequence].shape[1:])
    before = [_input(inside, f"{state}0", builder.shape(value)) for state, value in zip(names, states, strict=True)]
    after = step(inside, "", x, before, weights)
    for number, value in enumerate([after[0], *after]):
        inside.add("Output", f"out{number}", value)
    first = builder.add("Scan", name, sequence, *states, body=inside.graph(), results=names, reverse=reverse)
    return list(next(node for node in reversed(builder.nodes) if node.name == first).outputs)


def _input(builder: Builder, name: str, shape: tuple[int, ...]) -> str:
    return builder.add("Input", name, shape=shape)
