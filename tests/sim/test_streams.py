"""Maps that stream: random networks against the integer graph, the host beside the array, hardware and models."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from compiler.image.image import Image
from compiler.image.rings import off_chip
from compiler.lower import descriptors
from hw.params import Params
from sim import amaranth_engine
from sim.benchmarks import whole
from sim.benchmarks.whole import compile_whole, measure_whole, whole_network
from sim.compare import compare_networks
from sim.graph_cases import GraphCase, graph_case
from sim.network import run_network
from sim.program import SimulationError
from sim.stream_cases import random_stream_case
from sim.streams import BEAT, Outside, Transfer, transfers
from sim.verify import SUITES, run_graph_case, verify

ARRAYS = SUITES["streams"].arrays


def case(seed: int, number: int) -> GraphCase:
    params = ARRAYS[number % len(ARRAYS)]
    assert params is not None
    return random_stream_case(seed, params)


@pytest.mark.verifies("random-networks-stream-equal-integer")
def test_random_networks_that_stream_equal_their_graphs(seed: int) -> None:
    counts: Counter[str] = Counter()
    for n in range(12):
        made = case(1000 * seed + n, n)
        found, counted = run_graph_case(made, "golden")
        assert found is None, f"seed {1000 * seed + n}"
        counts.update(counted)
        for image in made.network.images:
            for each in off_chip(image):
                counts["in"] += bool(each.reads)
                counts["together"] += len(each.reads) > 1
                counts["out"] += each.writes >= 0
                counts["both"] += bool(each.reads) and each.writes >= 0
    assert counts["rings"] >= 12
    assert min(counts["in"], counts["out"], counts["both"], counts["together"]) > 0


@pytest.mark.verifies("planted-faults-rows-exchanged-way")
def test_a_wrong_ring_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault: of maps that stream in together all rows begin where that of the first does."""
    monkeypatch.setattr(descriptors, "_before", lambda *args: 0)
    made = Params(pes=16, act_lines=100, rows=64, weight_words=2048, pointer_blocks=2048, output_words=2048)
    found = []
    for seed in range(40):
        try:
            found.append(run_graph_case(random_stream_case(seed, made), "golden")[0])
        except Exception as error:
            found.append(str(error))
        if any(text is not None for text in found):
            break
    assert any(text is not None and "not of a pixel of" in text for text in found)


def beats(first: int, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.repeat(np.arange(first, first + count, dtype=np.uint8)[:, np.newaxis], BEAT, axis=1)


def test_the_host_sends_rows_in_turn_and_what_came_before() -> None:
    plan = [Transfer(0, 2, ((5, 2),), 6, 4), Transfer(1, 2, ((5, 2), (6, 1)), -1, 0)]
    host = Outside(plan, 1, {5: beats(10, 4)[np.newaxis]})
    sent: list[int] = []

    def send() -> bool:
        beat = host.offer()
        if beat is not None:
            sent.append(beat[0])
            host.sent()
        return beat is not None

    while send():
        pass
    assert sent == [10, 11, 12, 13, 10, 11]  # then the first row of map 6, which has not come
    assert host.left == (4, 4)
    for n in range(4):
        host.take(bytes([20 + n]) * BEAT)
    while send():
        pass
    assert sent[6:] == [20, 12, 13, 21]
    assert host.left == (0, 0)
    with pytest.raises(ValueError, match="sends more activation vectors"):
        host.take(bytes(BEAT))


def small(lines: int = 70) -> GraphCase:
    """A network of few pixels, both for Amaranth's simulator."""
    from compiler.graph.ir import Graph
    from compiler.graph.operators import make

    of = whole.Builder((3, 9, 9), 0.4, np.random.default_rng(3))
    last = of.conv("tail", of.fire("fire", of.conv("conv", "image", 8, 3, 2), 4, 8), 4, 1)
    params = Params(pes=8, rows=64, act_lines=lines, weight_words=1024, pointer_blocks=1024, output_words=1024,
                    queue_depth=8)  # fmt: skip
    made = compile_whole(Graph((*of.nodes, make("Output", "output", last))), params, count=2)
    return graph_case(0, made.graph, made.network, made.x)


@pytest.mark.verifies("random-networks-stream-equal-integer")
def test_hardware_equals_models_in_every_value_and_cycle() -> None:
    made = small()
    image = made.network.only
    assert sum(bool(each.reads) for each in off_chip(image)) > 1
    assert sum(each.writes >= 0 for each in off_chip(image)) > 1
    found, counted = run_graph_case(made, "amaranth")
    assert found is None
    assert counted["records"] >= len(image.layers)


@pytest.mark.verifies("planted-faults-rows-exchanged-way")
def test_fault_rows_exchanged_on_their_way_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault: the host exchanges the first two beats of each row."""
    made = small()
    order = Outside._beats

    def turned(self: Outside, each: Transfer) -> list[tuple[int, int]]:
        found = order(self, each)
        return [found[1], found[0], *found[2:]]

    monkeypatch.setattr(Outside, "_beats", turned)
    found, _ = run_graph_case(made, "amaranth")
    assert found is not None


@pytest.mark.verifies("planted-faults-rows-exchanged-way")
def test_fault_a_write_of_a_ring_at_a_wrong_line_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    made = small()
    words = amaranth_engine.layer_words

    def moved(image: Image, program: object, count: int, log: list[tuple[np.ndarray, np.ndarray]]) -> object:  # type: ignore[type-arg]
        first, second = transfers(image)[:2]  # the one streams in only, the other out only
        assert first.writes < 0 <= second.writes
        step = image.steps[second.layer][0]
        lines = log[0][0].copy()
        before = first.row // image.params.groups * first.height * count
        at = int(np.flatnonzero(lines < image.rings)[before])
        assert lines[at] == step.destination
        lines[at] = step.destination + step.out_rows * step.tile_lines
        return words(image, program, count, [(lines, log[0][1])])  # type: ignore[arg-type]

    monkeypatch.setattr(amaranth_engine, "layer_words", moved)
    with pytest.raises(SimulationError, match="line 32; expected line 0"):
        run_network(made.network, made.x, engine="amaranth")


@pytest.mark.verifies("whole-squeezenet-maps-off-chip")
def test_a_whole_squeezenet_streams_and_equals_its_graph() -> None:
    """Of a reduced image; the figures of a layer are those that bound it, and all add up."""
    params = Params(pes=64, act_lines=190)
    graph = whole_network("squeezenet-1.1", size=35, classes=12)
    assert sum(node.op == "Conv" for node in graph) == 26
    made = compile_whole(graph, params)
    assert {"image", "conv1"} <= {each.name for each in made.network.only.maps if each.off_chip}
    (row,) = measure_whole(["squeezenet-1.1"], params.replace(act_lines=520), size=67, density=0.2)
    assert row["equal"]
    assert row["host"] == []
    assert row["off_chip"] > 0
    streaming = [each for each in row["layers"] if each["reads"] or each["writes"]]
    assert streaming
    for each in row["layers"]:
        assert bool(each["stream"]) == (each in streaming)
        assert each["cycles"] >= each["stream"] - 64
    for name in ("resident", "stream", "refill", "bound"):
        assert row[name] == sum(each[name] for each in row["layers"])
    assert row["cycles"] >= row["resident"]


@pytest.mark.verifies("whole-squeezenet-maps-off-chip")
@pytest.mark.slow
def test_squeezenet_of_227_pixels_equals_its_graph() -> None:
    """64 PEs, and 512 KB of activation memory. Version 1.0 by `eie bench networks --whole squeezenet-1.0`."""
    lines = 4096
    (row,) = measure_whole(["squeezenet-1.1"], Params(pes=64, act_lines=lines))
    assert row["equal"]
    assert row["host"] == []
    assert row["memory"]["act_lines"] <= lines
    assert row["values"] > 3_000_000


@pytest.mark.verifies("whole-squeezenet-maps-off-chip")
@pytest.mark.rtl
@pytest.mark.slow
def test_squeezenet_in_verilog_equals_the_models() -> None:
    """A reduced image on an array with so little activation memory that the same maps stream."""
    graph = whole_network("squeezenet-1.1", size=27, classes=12)
    made = compile_whole(graph, Params(pes=16, act_lines=600), count=2)
    image = made.network.only
    assert len(off_chip(image)) > 3
    model = run_network(made.network, made.x, engine="cycles")
    compared = compare_networks(run_network(made.network, made.x, engine="rtl"), model)
    assert compared.equal
    assert compared.records >= 2 * len(image.layers)


@pytest.mark.verifies("random-networks-stream-equal-integer")
@pytest.mark.rtl
@pytest.mark.slow
def test_random_networks_that_stream_in_verilog_equal_graph_and_models(seed: int) -> None:
    report = verify("streams", seed, trials=SUITES["streams"].sample)
    assert report.failures == []
    assert report.trials == SUITES["streams"].sample
    assert report.rings >= report.trials
