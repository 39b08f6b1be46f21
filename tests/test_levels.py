"""One suite of small modules at every level: torch, float graph, passes, integers, file, cycle model, Verilog."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import sim.run
from compiler.graph import evaluate
from compiler.lower.pipeline import lower
from compiler.network_file import load, save
from compiler.source import Source, fit, from_module
from hw.params import LANES
from sim.compare import compare_networks
from sim.golden_array import LayerRun
from sim.network import run_network
from sim.program import map_vectors
from tests.arrays import COMMON
from tests.compiler.zoo import NETWORKS, PATTERNS, SUMS, ZOO, Case

CALIBRATION = 16
ERROR = 0.02
"""Largest root mean square error of an output against float, as a part of its root mean square."""


def read(case: Case, seed: int) -> tuple[Source, list[NDArray[Any]]]:
    """The module's graph behind all passes, and inputs that it never saw, the calibration's first."""
    module, example = case.make(seed)
    drawn = [case.make(seed + 1 + n)[1] for n in range(CALIBRATION // 2)]
    inputs = [torch.cat(parts).numpy() for parts in zip(*drawn, strict=True)]
    source = from_module(module, example)
    return source, list(fit(source.graph, tuple(inputs)))


def relative(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    size = float(np.sqrt(np.mean(np.square(wanted))))
    return float(np.sqrt(np.mean(np.square(found - wanted)))) / (size or 1.0)


@pytest.mark.verifies("suite-modules-level-torch-float")
@pytest.mark.parametrize("case", ZOO, ids=str)
def test_integers_are_close_to_floats(case: Case, seed: int, tmp_path: Path) -> None:
    source, inputs = read(case, seed)
    network, _ = lower(source.graph, COMMON, inputs)
    save(network, tmp_path / "net.eie")
    result = run_network(load(tmp_path / "net.eie"), tuple(inputs) if len(inputs) > 1 else inputs[0])
    wanted = evaluate.outputs(source.graph, inputs)
    for name, values in zip(result.names, wanted, strict=True):
        if result.types[name].kind == "real":
            assert relative(result.real(name), values) < ERROR, name


@pytest.mark.parametrize("case", SUMS, ids=str)
def test_sums_are_one_operator(case: Case, seed: int) -> None:
    graph = read(case, seed)[0].graph
    products = [node.op for node in graph if node.op in ("Linear", "Conv", "Accumulate")]
    assert "Accumulate" in products
    assert products.count("Accumulate") == len(products) or case.name == "recurrent highway"


@pytest.mark.verifies("suite-modules-level-torch-float")
@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.parametrize("case", [*NETWORKS, *PATTERNS], ids=str)
def test_verilog_equals_the_models(case: Case, seed: int) -> None:
    source, inputs = read(case, seed)
    network, _ = lower(source.graph, COMMON, inputs)
    if not network.images:
        pytest.skip("nothing of it runs on the array")
    few = tuple(array[:2] for array in inputs)
    given: Any = few if len(few) > 1 else few[0]
    compared = compare_networks(run_network(network, given, engine="rtl"), run_network(network, given, engine="cycles"))
    assert compared.equal, compared.explain()
    assert compared.values > 0
    assert compared.records > 0


@pytest.mark.verifies("planted-fault-bit-operator-found")
@pytest.mark.parametrize(("name", "layer"), [("lenet-5", "pool1"), ("resnet-8", "block1.add")])
def test_a_fault_in_one_operator_is_found_and_placed(
    name: str, layer: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = next(case for case in NETWORKS if case.name == name)
    source, inputs = read(case, seed)
    network, _ = lower(source.graph, COMMON, inputs)
    right = run_network(network, inputs[0][:2])
    assert layer in right.values
    true = sim.run.run_layers

    def wrong(layers: Any, memory: Any, acc_bits: int, **options: Any) -> Iterator[LayerRun]:
        for each, ran in zip(layers.runs, true(layers, memory, acc_bits, **options), strict=True):
            for image in network.images:
                if image.maps[each.result].name == layer:
                    # Channel 3, row 2, column 1: its line of the frame is one of those that the tiles write.
                    lane = int(np.flatnonzero(image.map_orders[each.result] == 3)[0])
                    vector = int(map_vectors(image.maps[each.result], COMMON.groups)[2, 1, lane // LANES])
                    tile, line = (int(at[0]) for at in np.nonzero(each.lines == vector // COMMON.groups))
                    ran.words[1, tile, line, vector % COMMON.groups, lane % LANES] ^= 8
            yield ran

    monkeypatch.setattr(sim.run, "run_layers", wrong)
    compared = compare_networks(run_network(network, inputs[0][:2]), right)
    assert compared.first is not None
    assert (compared.first.layer, compared.first.sample, compared.first.bit) == (layer, 1, 3)
    assert "sample 1, channel 3, row 2, column 1, bit 3" in compared.explain()[0]
