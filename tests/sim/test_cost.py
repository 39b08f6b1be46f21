"""What a network costs: the cycles of the hardware, sums that add up, and what is known kept by all it depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import sim.cost
from compiler.errors import InputError
from compiler.frontend.builder import Builder
from compiler.graph.blocks import blocks
from compiler.graph.evaluate import values
from compiler.graph.ir import Graph
from compiler.graph.passes import run_passes
from compiler.lower.pipeline import compile_graph
from hw.params import Params
from sim.cost import block_costs, cost
from sim.network import run_network

PARAMS = Params(pes=4, rows=64)


def network(seed: int, thin: bool = False) -> tuple[Graph, NDArray[Any]]:
    """A convolution, one with a shortcut, an average and a layer, of whose columns `thin` leaves a quarter."""
    rng = np.random.default_rng(seed)
    build = Builder()

    def weight(*shape: int) -> dict[str, NDArray[Any]]:
        made = rng.normal(size=shape) * (rng.random(shape) < 0.4)
        return {"weight": made.astype(np.float32), "bias": rng.normal(size=shape[0])}

    def conv(name: str, source: str, channels: int, to: int) -> str:
        tensors = weight(to, channels, 3, 3)
        return build.add(
            "Conv", name, source, tensors=tensors, stride=(1, 1), padding=(1,) * 4, dilation=(1, 1), groups=1,
            activation="relu",
        )  # fmt: skip

    first = conv("first", build.add("Input", "x", shape=(3, 8, 8)), 3, 8)
    joined = build.add("Add", "joined", conv("second", first, 8, 8), first)
    pooled = build.add(
        "MaxPool", "pooled", joined, kernel=(2, 2), stride=(2, 2), padding=(0,) * 4, dilation=(1, 1)
    )  # fmt: skip
    tensors = weight(5, 128)
    if thin:
        tensors["weight"][:, np.arange(128) % 4 > 0] = 0
    flat = build.add("Reshape", "flat", pooled, shape=(128,))
    build.add("Output", "y", build.add("Linear", "last", flat, tensors=tensors))
    return run_passes(build.graph()), rng.normal(size=(8, 3, 8, 8))


@pytest.mark.verifies("cost-cycles-hardware")
def test_cycles_are_those_of_the_hardware(tmp_path: Path) -> None:
    graph, data = network(1)
    found = cost(graph, PARAMS, [data], [data[:2]], kept=tmp_path)
    ran = run_network(compile_graph(graph, PARAMS, [data]), data[:2], engine="amaranth")
    assert found.cycles * 2 == sum(part.cycles for part in ran.runs if part.cycles is not None) > 0
    assert found.samples == 2
    assert found.energy == pytest.approx(sum(layer.energy for layer in found.layers))
    assert found.stored == sum(layer.stored for layer in found.layers)


@pytest.mark.verifies("cost-blocks")
def test_blocks_compute_the_network() -> None:
    """Each block, given what it reads, makes what the network makes there."""
    graph, data = network(2)
    right = values(graph, [data])
    made = blocks(graph)
    assert [len(block.reads) for block in made] == [1] * len(made)
    assert len(made) >= 3
    seen = set()
    for block in made:
        own = values(block.graph, [right[name] for name in block.reads])
        for node in block.graph.outputs:
            np.testing.assert_array_equal(own[node.inputs[0]], right[node.inputs[0]])
            seen.add(node.inputs[0])
    assert {node.inputs[0] for node in graph.outputs} <= seen


@pytest.mark.verifies("cost-blocks")
def test_a_changed_layer_costs_that_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    real = compile_graph

    def counted(graph: Graph, *rest: Any) -> Any:
        compiled.append(next(node.name for node in graph if node.tensors))
        return real(graph, *rest)

    monkeypatch.setattr(sim.cost, "compile_graph", counted)
    graph, data = network(3)
    before = block_costs(graph, PARAMS, [data], kept=tmp_path)
    assert len(compiled) == len(before.blocks)
    assert block_costs(graph, PARAMS, [data], kept=tmp_path) == before
    assert len(compiled) == len(before.blocks)
    changed, _ = network(3, thin=True)
    after = block_costs(changed, PARAMS, [data], kept=tmp_path)
    assert compiled[len(before.blocks) :] == ["last"]
    assert list(after.blocks) == list(before.blocks)
    assert after.cycles < before.cycles
    whole = cost(graph, PARAMS, [data], kept=tmp_path)
    assert before.error(whole) == before.cycles / whole.cycles - 1
    assert abs(before.error(whole)) < 0.2  # layers of a few hundred cycles wait for one another

    def careless(graph: Graph, *rest: Any) -> str:
        return "same"

    monkeypatch.setattr(sim.cost, "_key", careless)  # planted: a hash that does not see what a cost depends on
    stale = cost(graph, PARAMS, [data], kept=tmp_path / "other")
    assert cost(changed, PARAMS, [data], kept=tmp_path / "other") == stale


@pytest.mark.verifies("cost-cycles-hardware")
@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"key": "0", "layers": [], "samples": 1}'])
def test_a_damaged_file_is_made_again(content: bytes, tmp_path: Path) -> None:
    graph, data = network(4)
    right = cost(graph, PARAMS, [data], kept=tmp_path)
    (file,) = tmp_path.rglob("*.json")
    file.write_bytes(content)
    assert cost(graph, PARAMS, [data], kept=tmp_path) == right
    assert len(file.read_bytes()) > 100


@pytest.mark.verifies("cost-blocks")
def test_too_few_samples_for_a_block_are_refused(tmp_path: Path) -> None:
    graph, data = network(5)
    with pytest.raises(InputError, match="2 samples of calibration data; expected 8 or more"):
        block_costs(graph, PARAMS, [data[:2]], kept=tmp_path)
