"""Operations that read parts of a map: the map is in parts of one size, and what does not lie so is copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler.errors import ModelError
from compiler.frontend.builder import Builder
from compiler.graph.passes import run_passes
from compiler.lower import partition
from compiler.lower.operations import Operations
from compiler.options import DEFAULT
from hw.params import Params
from sim.recurrent_cases import recurrent_layer
from tests.compiler.array_runs import Ran, run_float

PARAMS = Params(pes=4, rows=64)


def half(build: Builder, value: str, number: int, axis: int = 0) -> str:
    size = build.shape(value)[axis] // 2
    return build.add(
        "Slice", f"{value}.{number}", value, axis=axis, step=1, drop=False, begin=number * size, end=(number + 1) * size
    )


def gated(build: Builder, value: str) -> str:
    """A half of a value times a function of the other."""
    gate = build.add("Activation", f"{value}.gate", half(build, value, 1), function="tanh")
    return build.add("Multiply", f"{value}.gated", half(build, value, 0), gate)


def run(build: Builder, value: str, *shape: int) -> Ran:
    rng = np.random.default_rng(5)
    weight = rng.normal(size=(5, build.shape(value)[-1])).astype(np.float32)
    build.add("Output", "y", build.add("Linear", "fc", value, tensors={"weight": weight}))
    return run_float(run_passes(build.graph()), [rng.normal(size=(8, *shape))], PARAMS, DEFAULT)


def squared(fold: bool) -> Ran:
    """Halves of a square, which a clamp follows or not."""
    build = Builder()
    value = build.add("Input", "x", shape=(8,))
    value = build.add("Multiply", "square", value, value)
    if fold:
        value = build.add("Clamp", "clamped", value, low=-0.5, high=0.7)
    return run(build, gated(build, value), 8)


def after_loop(kind: str, which: int, length: int) -> Ran:
    """Halves of the last step (0) or of a state at its end."""
    build = Builder()
    sequence = build.add("Input", "x", shape=(length, 6))
    ends = recurrent_layer(build, np.random.default_rng(3), "loop", kind, sequence, 8, reverse=False)
    end = ends[which]
    if which == 0:
        end = build.add("Slice", "last", end, axis=0, begin=length - 1, end=length, step=1, drop=True)
    return run(build, gated(build, end), length, 6)


@pytest.mark.verifies("parts-of-maps")
@pytest.mark.parametrize("fold", [False, True])
def test_halves_of_what_an_operation_makes_whole(fold: bool) -> None:
    """The map that is read in halves is made as one by an operation: halves are copied."""
    ran = squared(fold)
    assert (ran.wrong, ran.host, len(ran.images)) == ([], [], 1)


@pytest.mark.verifies("parts-of-maps")
@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize(("kind", "which"), [("lstm", 0), ("lstm", 1), ("lstm", 2), ("gru", 0), ("gru", 1)])
def test_halves_of_what_a_loop_leaves(kind: str, which: int, length: int) -> None:
    ran = after_loop(kind, which, length)
    assert (ran.wrong, ran.host, len(ran.images)) == ([], [], 1)


@pytest.mark.verifies("parts-of-maps")
def test_halves_of_what_a_loop_gives_to_another_loop() -> None:
    """One loop multiplies halves of a result, which the next one reads whole: it is not in parts."""
    rng = np.random.default_rng(8)
    build = Builder()
    sequence = build.add("Input", "x", shape=(3, 4))
    zero = build.add("Constant", "zero", tensors={"value": np.zeros(4)})
    first, second = Builder(), Builder()
    read, state = first.add("Input", "x", shape=(4,)), first.add("Input", "s", shape=(4,))
    weight = rng.normal(size=(8, 8)).astype(np.float32)
    both = first.add("Linear", "both", first.add("Concat", "beside", read, state), tensors={"weight": weight})
    new = first.add("Multiply", "new", half(first, both, 0), half(first, both, 1))
    for number, value in enumerate((both, new)):
        first.add("Output", f"out{number}", value)
    loop = build.add("Scan", "one", sequence, zero, body=first.graph(), results=("both",), reverse=False)
    made = next(node for node in build.nodes if node.name == loop).outputs[0]
    wide = build.add("Constant", "wide", tensors={"value": np.zeros(8)})
    read, state = second.add("Input", "x", shape=(8,)), second.add("Input", "s", shape=(8,))
    new = second.add("Add", "new", second.add("Multiply", "square", read, read), state)
    second.add("Output", "out0", new)
    last = build.add("Scan", "two", made, wide, body=second.graph(), results=(), reverse=False)
    ran = run(build, next(node for node in build.nodes if node.name == last).outputs[-1], 3, 4)
    assert ran.wrong == []


def test_forgotten_parts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: what is known of parts is lost where a node is folded in, and where a loop leaves a state."""

    def forget(*_: Any) -> None:
        return None

    with monkeypatch.context() as fault:
        fault.setattr(partition, "renamed", forget)
        with pytest.raises(ModelError, match="in a layout of others"):
            squared(fold=True)
    real = Operations.__post_init__

    def no_states(operations: Operations) -> None:
        real(operations)
        operations.units.clear()

    monkeypatch.setattr(Operations, "__post_init__", no_states)
    with pytest.raises(ModelError, match="in a layout of others"):
        after_loop("lstm", 2, 4)
