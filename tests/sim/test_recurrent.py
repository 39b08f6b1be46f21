"""Recurrent networks on the array: whole loops, against the integer graph and, cycle by cycle, against the hardware."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler.graph.passes import run_passes
from compiler.lower.calibrate import quantize_calibrated
from compiler.lower.pipeline import compile_graph
from compiler.network import Network
from hw.params import Params
from sim import golden
from sim.network import run_network
from tests.sim.recurrent import KINDS, recurrent, small_array

NUMBER = 3


def compiled(seed: int, kind: str, *, most: int = 16, **sizes: int) -> tuple[Network, Any, dict[str, Any]]:
    """A random network, an input for it, and every output as the integer graph makes it."""
    rng = np.random.default_rng(seed)
    graph, data = recurrent(rng, kind, **sizes)
    graph = run_passes(graph)
    params = small_array(rng, most)
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
    network, x, _ = compiled(seed, kind, most=4, steps=3, size=9)
    model = run_network(network, x, engine="cycles")
    found = run_network(network, x, engine="amaranth")
    values = all(np.array_equal(found.values[name], raw) for name, raw in model.values.items())
    return values and [ran.records for ran in found.runs] == [ran.records for ran in model.runs]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_hardware_computes_them_in_the_cycles_of_the_model(kind: str, seed: int) -> None:
    assert same_in_hardware(seed, kind)
