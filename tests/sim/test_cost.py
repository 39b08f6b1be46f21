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
from sim.recurrent_cases import KINDS, recurrent, recurrent_layer
from tests.arrays import COMMON

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
@pytest.mark.rtl
def test_cycles_are_those_of_the_hardware(tmp_path: Path) -> None:
    graph, data = network(1)
    found = cost(graph, COMMON, [data], [data[:2]], kept=tmp_path)
    ran = run_network(compile_graph(graph, COMMON, [data]), data[:2], engine="rtl")
    assert found.cycles * 2 == sum(part.cycles for part in ran.runs if part.cycles is not None) > 0
    assert found.samples == 2
    assert found.energy == pytest.approx(sum(layer.energy for layer in found.layers))
    assert found.stored == sum(layer.stored for layer in found.layers)


@pytest.mark.verifies("cost-blocks")
def test_blocks_compute_the_network() -> None:
    graph, data = network(2)
    assert [len(block.reads) for block in blocks(graph)] == [1, 1, 1]
    same(graph, [data])


@pytest.mark.verifies("cost-blocks")
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_loops_compute_the_network(kind: str) -> None:
    """Scans with their initial states, which are constants; two directions; what comes behind them."""
    for seed in range(4):
        graph, data = recurrent(np.random.default_rng(seed), kind, steps=3, size=6)
        same(run_passes(graph), [data])


@pytest.mark.verifies("cost-blocks")
def test_blocks_of_two_inputs_and_an_index() -> None:
    rng = np.random.default_rng(6)
    build = Builder()
    row = build.add("Gather", "row", build.add("Input", "word", shape=(), kind="index"),
                    tensors={"table": rng.normal(size=(7, 4)).astype(np.float32)})  # fmt: skip
    other = build.add("Input", "x", shape=(4,))
    both = build.add("Add", "both", row, other)
    for n, read in enumerate((both, other)):
        weight = rng.normal(size=(3, 4)).astype(np.float32)
        build.add("Output", f"y{n}", build.add("Linear", f"fc{n}", read, tensors={"weight": weight}))
    same(build.graph(), [rng.integers(0, 7, 5), rng.normal(size=(5, 4))])


def same(graph: Graph, data: list[NDArray[Any]]) -> None:
    """Each block, given what it reads, makes what the network makes there; together they make its outputs."""
    right = values(graph, data)
    seen = set()
    for block in blocks(graph):
        own = values(block.graph, [right[name] for name in block.reads])
        for node in block.graph.outputs:
            np.testing.assert_array_equal(own[node.inputs[0]], right[node.inputs[0]])
            seen.add(node.inputs[0])
    assert {node.inputs[0] for node in graph.outputs} <= seen


@pytest.mark.verifies("cost-blocks")
def test_what_the_host_computes_costs_nothing(tmp_path: Path) -> None:
    """A loop that the array cannot run without its elementwise unit, and a layer behind it."""
    build = Builder()
    rng = np.random.default_rng(7)
    ends = recurrent_layer(build, rng, "loop", "lstm", build.add("Input", "x", shape=(3, 4)), 4, reverse=False)
    weight = rng.normal(size=(3, 4)).astype(np.float32)
    build.add("Output", "y", build.add("Linear", "fc", ends[1], tensors={"weight": weight}))
    graph, data = run_passes(build.graph()), rng.normal(size=(8, 3, 4))
    params = PARAMS.replace(elementwise=False)
    found = block_costs(graph, params, [data], kept=tmp_path)
    assert found.blocks["loop"].layers == ()
    assert found.blocks["loop"].host
    assert found.cycles == found.blocks["fc"].cycles > 0
    assert cost(graph, params, [data], kept=tmp_path).host


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
