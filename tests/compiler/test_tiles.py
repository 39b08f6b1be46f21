"""The estimate by which tiles are chosen, against the exact cycle model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compiler.graph.passes import run_passes
from compiler.lower import tiles
from compiler.lower.build import _encode
from compiler.lower.pack import pack
from compiler.lower.partition import partition
from compiler.lower.pipeline import compile_graph
from compiler.lower.quantize import quantize_graph
from compiler.options import DEFAULT
from hw.params import Params, preset
from sim.benchmarks.convolutions import ConvShape, make_conv
from sim.benchmarks.sets import roomy
from sim.network import run_network
from sim.run import run

PARAMS = roomy(preset("BALANCED_16"))
SHAPES = {
    "3x3": ConvShape("a", "conv", 32, 32, 16, 16, (3, 3), padding=(1, 1), weights=0.3, activations=0.5),
    "few channels": ConvShape("b", "conv", 3, 16, 24, 24, (3, 3), padding=(1, 1), weights=0.5),
    "pointwise": ConvShape("c", "pointwise", 48, 40, 12, 12, weights=0.4, activations=0.5),
    "depthwise": ConvShape("d", "depthwise", 32, 32, 14, 14, (3, 3), padding=(1, 1), groups=32, activations=0.5),
    "residual": ConvShape("f", "pointwise", 24, 96, 12, 12, weights=0.4, activations=0.5, shortcut=96),
    "strided": ConvShape("e", "conv", 16, 24, 20, 20, (3, 3), 2, (1, 1), weights=0.3, activations=0.5),
}


def judged(
    shape: ConvShape, seed: int, count: int = 12, params: Params = PARAMS, known: Params | None = None
) -> list[tuple[float, int]]:
    """Estimated and modelled cycles of the best tilings of a layer. known : what the estimate takes the array for."""
    case = make_conv(shape, seed)
    quantized = quantize_graph(run_passes(case.graph), params)
    (program,) = partition(quantized.graph, params, dict.fromkeys(("x", "y"), shape.activations)).programs
    found = tiles.tile_choices(program.layers[0], program.maps, known or params, DEFAULT, tiles.densities(program))
    pairs = []
    for choice in found[:count]:
        image = pack(_encode(program, tiles.Plan((choice,), (None,), frozenset()), params, DEFAULT), params, DEFAULT)
        given = {program.maps[n].name: x for n, x in zip(program.inputs, case.inputs, strict=True)}
        ran = run(
            image, {name: np.ascontiguousarray(x.transpose(0, 2, 3, 1)) for name, x in given.items()}, engine="cycles"
        )
        pairs.append((choice.cycles, ran.cycles or 0))
    return pairs


@pytest.mark.verifies("choice-tiles-estimate-20-cycle")
@pytest.mark.parametrize("name", SHAPES)
def test_the_chosen_tiles_are_nearly_the_best(name: str, seed: int) -> None:
    pairs = judged(SHAPES[name], seed)
    assert all(0.85 < estimate / model < 1.2 for estimate, model in pairs), pairs
    assert pairs[0][1] < 1.06 * min(model for _, model in pairs), pairs


@pytest.mark.verifies("tiles-of-slim-arrays-count-fetches")
def test_descriptors_that_a_slim_array_fetches_are_counted(seed: int) -> None:
    """Planted: an estimate that takes the array for one that fetches a descriptor at once."""
    slim = roomy(preset("BOARD_SLIM").replace(rows=256))
    shape = ConvShape("g", "pointwise", 8, 16, 10, 10, weights=0.3, activations=0.5, shortcut=16)
    assert all(0.8 < estimate / model for estimate, model in judged(shape, seed, 5, slim))
    wrong = judged(shape, seed, 5, slim, slim.replace(slim=False))
    assert not all(0.8 < estimate / model for estimate, model in wrong), wrong


@pytest.mark.verifies("planted-faults-products-light-segments")
def test_products_that_are_not_counted_show(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    products = tiles._products
    monkeypatch.setattr(tiles, "_products", lambda *of: 0.7 * products(*of))
    assert min(estimate / model for estimate, model in judged(SHAPES["3x3"], seed, 4)) < 0.85


@pytest.mark.verifies("planted-faults-products-light-segments")
def test_a_light_segment_that_is_scanned_alone_is_seen(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of one row cannot be cut into strips."""
    params = roomy(preset("BALANCED_64"))
    shape = ConvShape("g", "pointwise", 32, 256, 4, 28, weights=0.3, activations=0.5, shortcut=256)
    pairs = judged(shape, seed, 20, params)
    assert pairs[0][1] < 1.06 * min(model for _, model in pairs[:6]), pairs
    monkeypatch.setattr(tiles, "_dry", lambda *of: 0.0)
    worst = min(estimate / model for estimate, model in pairs)
    assert min(estimate / model for estimate, model in judged(shape, seed, 20, params)) < worst - 0.02


def test_densities_of_inputs_decide(seed: int) -> None:
    case = make_conv(SHAPES["3x3"], seed)
    graph = run_passes(case.graph)

    def expected(**rest: Any) -> int:
        return compile_graph(graph, PARAMS, **rest).only.layers[0].expected

    assert expected(densities={"x": 0.5}) < 0.6 * expected()
    assert expected(densities={"x": 0.2}) < 0.6 * expected(densities={"x": 0.5})
    data = [case.inputs[0]]
    assert expected(calibration=data) == pytest.approx(expected(densities={"x": 0.5}), rel=0.05)


def test_depthwise_rows_of_a_lane_are_in_one_pe(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spread over all PEs they would need several times the padding entries."""
    case = make_conv(replace(SHAPES["depthwise"], height=40, width=40), seed)
    graph = run_passes(case.graph)
    monkeypatch.setattr(tiles, "most_planes", lambda program: [1])
    network = compile_graph(graph, PARAMS, densities={"x": 0.5})
    kept = network.only.layers[0].padding
    from compiler.lower.program import ProgramLayer

    monkeypatch.setattr(ProgramLayer, "channelwise", False)
    spread = compile_graph(graph, PARAMS, densities={"x": 0.5})
    assert spread.only.layers[0].padding / spread.only.layers[0].entries > 2 * kept / network.only.layers[0].entries
    both = [run_network(each, list(case.inputs), engine="cycles") for each in (network, spread)]
    assert np.array_equal(both[0].raw, both[1].raw)
    assert (both[0].cycles or 0) < (both[1].cycles or 0)
