"""Recurrent networks on the array: whole loops, against the integer graph and, cycle by cycle, against the hardware."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from compiler.errors import ImageError
from compiler.graph.passes import run_passes
from compiler.image import check_steps, order, steps
from compiler.image.check import check
from compiler.image.image import Image
from compiler.lower import assemble, draft, layout, pack
from compiler.lower.calibrate import quantize_calibrated
from compiler.lower.loops import Looped, State
from compiler.lower.pipeline import compile_graph
from compiler.lower.program import MapForm
from compiler.network import Network
from hw.layouts import descriptor, elementwise, fields, loop
from hw.params import Params
from sim import decode, golden
from sim.network import run_network
from sim.recurrent_cases import KINDS, recurrent, small_array
from tests.arrays import COMMON

NUMBER = 3


def compiled(seed: int, kind: str, *, array: Params | None = None, **sizes: int) -> tuple[Network, Any, dict[str, Any]]:
    """A random network on `array` or a random one, an input for it, and every output as the integer graph makes it."""
    rng = np.random.default_rng(seed)
    graph, data = recurrent(rng, kind, **sizes)
    graph = run_passes(graph)
    params = array or small_array(rng)
    network = compile_graph(graph, params, data)
    x = data[: int(rng.integers(1, 4))]
    made = quantize_calibrated(graph, params, [data]).graph
    raw, _ = golden.quantize_input(x, made.inputs[0]["exponent"])
    values = golden.run_graph(made, [raw], params.acc_bits)
    return network, x, {node.inputs[0]: values[node.inputs[0]].raw for node in made.outputs}


def differs(seed: int, kind: str) -> list[str]:
    """Outputs that are not what the integer graph makes."""
    network, x, right = compiled(seed, kind)
    assert {node.op for node in network.host} <= {"Shift"}  # initial states, where these meet values of the loop
    found = run_network(network, x).values
    return [name for name, raw in right.items() if not np.array_equal(found[name], raw)]


@pytest.mark.parametrize("kind", KINDS)
def test_images_compute_the_integer_graph(kind: str, seed: int) -> None:
    assert [n for n in range(NUMBER) if differs(1000 * seed + n, kind)] == []


def same_in_hardware(seed: int, kind: str) -> bool:
    """Whether the hardware writes what the golden model does, in the cycles of the model."""
    network, x, _ = compiled(seed, kind, array=COMMON, steps=3, size=9)
    model = run_network(network, x, engine="cycles")
    found = run_network(network, x, engine="rtl")
    values = all(np.array_equal(found.values[name], raw) for name, raw in model.values.items())
    return values and [ran.records for ran in found.runs] == [ran.records for ran in model.runs]


@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_hardware_computes_them_in_the_cycles_of_the_model(kind: str, seed: int) -> None:
    assert same_in_hardware(seed, kind)


def kept_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step begins with the initial state."""
    place = assemble._Assembly.state

    def forgetful(self: Any, state: State, loop: Looped, places: dict[Any, Any]) -> None:
        place(self, state, loop, places)
        (old,) = places[state.old, "C"]
        places[state.old, "C"] = (dataclasses.replace(old, moves=False),)

    monkeypatch.setattr(assemble._Assembly, "state", forgetful)


def no_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    """All rounds read and write the lines of the first."""
    monkeypatch.setattr(decode, "executions", lambda program: ((n, 0) for n, _ in steps.executions(program)))


def gates_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gates of a layer lie in the opposite order."""
    shared = layout._shared

    def turned(form: MapForm, units: Any) -> Any:
        return shared(form, units).reshape(form.parts, -1)[::-1].reshape(-1)

    monkeypatch.setattr(layout, "_shared", turned)


def functions_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates have each other's function."""
    functions = draft._functions

    def swapped(node: Any, channels: int) -> Any:
        different, which = functions(node, channels)
        return different, np.where(which > 0, len(different) + 1 - which, 0)

    monkeypatch.setattr(draft, "_functions", swapped)


@pytest.mark.parametrize("fault", [kept_nowhere, no_offset, gates_turned, functions_swapped])
def test_faults_of_loops_are_caught(fault: Any, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    assert any(differs(1000 * seed + n, "lstm") for n in range(NUMBER))


@pytest.mark.slow
def test_a_missing_barrier_is_caught(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(image: Any) -> tuple[set[int], set[int]]:
        return order.flags(image)[0], set()

    monkeypatch.setattr(pack, "flags", without)
    monkeypatch.setattr(check_steps, "flags", without)
    assert not all(same_in_hardware(1000 * seed + n, "lstm") for n in range(2))


def test_a_barrier_that_a_file_leaves_out_is_refused(seed: int) -> None:
    network, _, _ = compiled(1000 * seed, "lstm")
    image = network.images[0]
    number = next(n for n, step in enumerate(image.program) if isinstance(step, steps.Step) and step.barrier)
    assert refused(image, number, descriptor(image.params), "barrier", 0) == "barrier is 0; expected 1"


@pytest.mark.parametrize(
    ("kind", "field", "value", "message"),
    [
        ("loop", "first", 60, "ends a loop that begins at descriptor 60; expected 0 to"),
        ("loop", "count", 0, "a loop of"),
        ("loop", "count", 60000, "lines|barrier"),
        ("loop", "pitch", 999, "lines|barrier"),
        ("elementwise", "a", 999, "is lines"),
        ("elementwise", "result", 999, "is lines"),
        ("elementwise", "lines", 999, "is lines"),
        ("elementwise", "frame", 1, "frame is 1"),
    ],
)
def test_lies_about_loops_and_operations_are_refused(
    kind: str, field: str, value: int, message: str, seed: int
) -> None:
    network, _, _ = compiled(1000 * seed, "lstm")
    image = network.images[0]
    wanted = steps.LoopStep if kind == "loop" else steps.ElementwiseStep
    number = next(n for n, step in enumerate(image.program) if isinstance(step, wanted))
    form = loop(image.params) if kind == "loop" else elementwise(image.params)
    assert re.search(message, refused(image, number, form, field, value))


def refused(image: Image, number: int, form: Any, field: str, value: int) -> str:
    """What the check says of an image with one field of a descriptor changed."""
    ((first, width),) = ((first, width) for name, first, width in fields(form) if name == field)
    rows = image.descriptors.copy()
    word = int.from_bytes(rows[number].tobytes(), "little") & ~(((1 << width) - 1) << first)
    rows[number] = np.frombuffer((word | value << first).to_bytes(rows.shape[1], "little"), np.uint8)
    with pytest.raises(ImageError) as error:
        check(dataclasses.replace(image, descriptors=rows))
    return str(error.value).split(": ", 1)[-1] if field == "barrier" else str(error.value)
