"""Tiles that the exact cycle model decides on: what it says of a layer is what the layer takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler.graph.passes import run_passes
from compiler.lower import judge
from compiler.lower.canonical import canonical
from compiler.lower.layout import input_placement
from compiler.lower.partition import partition
from compiler.lower.pipeline import compile_graph
from compiler.lower.program import Program
from compiler.lower.quantize import quantize_graph
from compiler.lower.tiles import densities, plan_tiles
from compiler.network import Network
from compiler.options import DEFAULT
from sim.benchmarks.convolutions import ConvShape, make_conv
from sim.network import run_network
from tests.compiler.test_tiles import PARAMS, SHAPES


def compiled(shape: ConvShape, seed: int, **options: bool) -> tuple[Network, Program]:
    """A layer, and its program."""
    graph = run_passes(make_conv(shape, seed).graph)
    known = dict.fromkeys(("x", "y"), shape.activations)
    (program,) = partition(quantize_graph(graph, PARAMS).graph, PARAMS, known).programs
    return compile_graph(graph, PARAMS, densities=known, options=DEFAULT.replace(**options)), canonical(program)


def activations(program: Program) -> list[np.ndarray[Any, Any]]:
    """Maps (1, channels, height, width) that are zero where those of the judge are."""
    rng = np.random.default_rng([1, 0])
    found = {}
    for n in dict.fromkeys(segment.source for segment in program.layers[0].segments):
        form = program.maps[n]
        mask = judge._mask(rng, input_placement(form, PARAMS), densities(program)[n])
        lanes = np.unpackbits(mask[..., np.newaxis], axis=-1, bitorder="little").reshape(form.height, form.width, -1)
        found[form.name] = lanes[np.newaxis, ..., : form.channels].transpose(0, 3, 1, 2).astype(np.int16)
    return [found[program.maps[n].name] for n in program.inputs]


@pytest.mark.verifies("judge-tiles-says-layer-layer")
@pytest.mark.parametrize("name", SHAPES)
def test_the_judge_is_right_to_the_cycle(name: str, seed: int) -> None:
    network, program = compiled(SHAPES[name], seed)
    given = activations(program)
    ran = run_network(network, given if len(given) > 1 else given[0], engine="cycles")
    assert network.only.layers[0].expected == ran.cycles


@pytest.mark.verifies("planted-faults-activations-slowest-preferred")
def test_a_judge_that_sees_other_activations_is_wrong(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = judge._seen
    monkeypatch.setattr(judge, "_seen", lambda mask, *rest: seen(mask & 0x7F, *rest))
    network, program = compiled(SHAPES["3x3"], seed)
    ran = run_network(network, activations(program)[0], engine="cycles")
    assert network.only.layers[0].expected < (ran.cycles or 0)


def test_the_next_best_tiles_are_not_faster(seed: int) -> None:
    for shape in SHAPES.values():
        (info, *_) = compiled(shape, seed)[0].only.layers
        assert info.other[2] >= info.expected


@pytest.mark.verifies("planted-faults-activations-slowest-preferred")
def test_a_judge_that_prefers_the_slowest_is_seen(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, cycles = [], judge.Judge.cycles
    for fault in (False, True):
        if fault:
            monkeypatch.setattr(judge.Judge, "cycles", lambda *of: 1e9 / cycles(*of))
        network, program = compiled(SHAPES["strided"], seed)
        taken.append(run_network(network, activations(program)[0], engine="cycles").cycles or 0)
    assert taken[0] < taken[1]


@pytest.mark.verifies("judge-tiles-says-layer-layer")
def test_of_a_large_layer_some_rows_of_tiles_are_timed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = SHAPES["3x3"]
    whole, _ = compiled(shape, seed)
    monkeypatch.setattr(judge, "SCANNED", 200)
    part, _ = compiled(shape, seed)
    first, second = whole.only.layers[0].expected, part.only.layers[0].expected
    assert first != second
    assert abs(first - second) < 0.05 * first


def test_layers_too_large_to_be_encoded_again_are_estimated(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = compiled(SHAPES["3x3"], seed, judged=False)
    monkeypatch.setattr(judge, "ENTRIES", 10)
    judged, _ = compiled(SHAPES["3x3"], seed)
    assert judged.only.layers[0].expected == plain.only.layers[0].expected


@pytest.mark.verifies("judge-tiles-says-layer-layer")
def test_plans_ask_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan for less memory takes what is known of the layer already."""
    _, program = compiled(SHAPES["3x3"], seed)
    asked: list[Any] = []
    timed = judge.Judge._cycles
    monkeypatch.setattr(judge.Judge, "_cycles", lambda self, *of: asked.append(of) or timed(self, *of))
    one = judge.Judge(program, PARAMS, DEFAULT, densities(program))
    plans = [plan_tiles(program, PARAMS, DEFAULT, scale, one) for scale in (1.0, 0.9)]
    assert plans[0].choices == plans[1].choices
    assert len({(number, choice.cut) for number, choice, _ in asked}) == len(asked) > 1
