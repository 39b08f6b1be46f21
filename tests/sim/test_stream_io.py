"""Inputs and outputs by the activation streams: what the compiler makes of the option, models and hardware."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.graph.ir import Graph
from compiler.graph.operators import make
from compiler.image.check import check
from compiler.image.check_streams import check_streams
from compiler.image.image import Image
from compiler.image.rings import off_chip
from compiler.lower import spill
from compiler.network_file import load, save
from compiler.options import DEFAULT, Options
from hw.params import Params
from sim import golden
from sim.benchmarks.whole import Builder, compile_whole
from sim.cases import random_options
from sim.decode import decode
from sim.graph_cases import random_float_graph
from sim.network import run_network
from sim.program import chunks
from sim.stream_cases import random_ends_case
from sim.verify import SUITES, run_graph_case, verify

PARAMS = SUITES["ends"].arrays[0]
assert PARAMS is not None
STREAMED = Options(stream_io=True)
SAMPLES = 24


@cache
def connected(options: Options = STREAMED) -> tuple[Image, NDArray[np.int16], NDArray[np.int16]]:
    """Two fully connected layers: the image, raw inputs (samples, 1, 1, 50), and what comes out (samples, 12)."""
    rng = np.random.default_rng(5)

    def linear(name: str, source: str, outputs: int, inputs: int, activation: str) -> object:
        weight = (rng.normal(size=(outputs, inputs)) * (rng.random((outputs, inputs)) < 0.3)).astype(np.float32)
        return make("Linear", name, source, tensors={"weight": weight, "bias": rng.normal(size=outputs)},
                    activation=activation)  # fmt: skip

    from sim.graph_cases import lower_case

    nodes = (make("Input", "x", shape=(50,)), linear("one", "x", 30, 50, "relu"), linear("two", "one", 12, 30, "none"))
    graph = Graph((*nodes, make("Output", "output", "two")))  # type: ignore[arg-type]
    data = rng.normal(size=(SAMPLES, 50)).astype(np.float32)
    assert PARAMS is not None
    lowered = lower_case(graph, data, PARAMS, options)
    assert lowered is not None
    made, network = lowered
    x = golden.quantize_input(data, made.inputs[0]["exponent"] or 0)[0]
    right = golden.run_graph(made, [x], PARAMS.acc_bits)["two"].raw
    return network.only, x.reshape(SAMPLES, 1, 1, 50), right


def pictures() -> Graph:
    of = Builder((3, 10, 10), 0.5, np.random.default_rng(3))
    last = of.conv("second", of.conv("first", "image", 8, 3, 1, 1), 6, 3, 2)
    return Graph((*of.nodes, make("Output", "output", last)))


@pytest.mark.verifies("inputs-outputs-stream-goes-off")
def test_inputs_and_outputs_go_off_chip_and_all_else_stays() -> None:
    image, x, _ = connected()
    check(image)
    assert [each.off_chip for each in image.maps] == [True, False, True]
    assert [(len(each.reads), each.writes >= 0) for each in off_chip(image)] == [(1, False), (0, True)]
    plain = connected(DEFAULT)[0]
    assert not any(each.off_chip for each in plain.maps)
    # What a run may hold: only the map between the layers lies on chip for each sample.
    assert image.frame < plain.frame
    (part,) = chunks(image, [x])
    assert part.count == SAMPLES


@pytest.mark.verifies("inputs-outputs-stream-goes-off")
def test_pictures_stream_with_as_many_rows_as_there_is_room_for() -> None:
    assert PARAMS is not None
    made = compile_whole(pictures(), PARAMS.replace(act_lines=2048), STREAMED, count=3)
    image = made.network.only
    check(image)
    assert [image.maps[n].off_chip for n in (*image.inputs, *image.outputs)] == [True, True]
    right = golden.run_graph(made.graph, [made.x], PARAMS.acc_bits)
    found = run_network(made.network, made.x, engine="cycles").values
    assert all(np.array_equal(found[name], right[name].raw) for name in ("first", "second"))


@pytest.mark.verifies("inputs-outputs-stream-goes-off")
def test_random_networks_stream_at_both_ends_and_equal_their_graphs(seed: int) -> None:
    counts: Counter[str] = Counter()
    for n in range(8):
        params = SUITES["ends"].arrays[n % len(SUITES["ends"].arrays)]
        assert params is not None
        made = random_ends_case(1000 * seed + n, params)
        found, counted = run_graph_case(made, "golden")
        assert found is None, f"seed {1000 * seed + n}"
        counts["rings"] += counted["rings"]
        for image in made.network.images:
            assert all(image.maps[n].off_chip for n in (*image.inputs, *image.outputs))
            counts["vectors"] += any(each.off_chip and each.height == 1 for each in image.maps)
            counts["maps"] += any(each.off_chip and each.height > 1 for each in image.maps)
    assert counts["rings"] >= 8
    assert min(counts["vectors"], counts["maps"]) > 0


@pytest.mark.verifies("inputs-outputs-stream-goes-off")
def test_hardware_equals_models_in_every_value_and_cycle(seed: int) -> None:
    assert PARAMS is not None
    found, counted = run_graph_case(random_ends_case(1000 * seed, PARAMS), "amaranth")
    assert found is None
    assert counted["records"] > 0


@pytest.mark.verifies("inputs-outputs-stream-goes-off")
def test_networks_of_indices_are_drawn_again() -> None:
    """Indices do not stream; once such a draw ended the regression with an error."""

    def first(seed: int) -> str:
        rng = np.random.default_rng([seed, 13])
        random_options(rng)
        return str(random_float_graph(rng).inputs[0]["kind"])

    seed = next(seed for seed in range(1000) if first(seed) == "index")
    assert random_ends_case(seed, PARAMS).network.images  # type: ignore[arg-type]


@pytest.mark.verifies("planted-faults-ring-row-less")
def test_a_ring_of_one_row_less_is_refused() -> None:
    """A vector needs a ring of two: the next sample comes while this one is scanned."""
    from tests.compiler.test_off_chip import rings_of

    image = connected()[0]
    assert (image.steps[0][0].height, image.steps[0][0].ring_rows >= 2) == (1, True)
    check_streams(rings_of(image, 0, 2))
    with pytest.raises(ImageError, match="a ring of 1 rows; its windows need 2"):
        check_streams(rings_of(image, 0, 1))


@pytest.mark.verifies("inputs-outputs-stream-cannot-refused")
def test_a_network_that_cannot_stream_says_why() -> None:
    assert PARAMS is not None
    with pytest.raises(ImageError, match=r"stream_io.*no streams for maps \(--set streams=true\)"):
        compile_whole(pictures(), PARAMS.replace(streams=False), STREAMED)


@pytest.mark.verifies("inputs-outputs-stream-cannot-refused")
def test_a_loop_cannot_stream_and_names_the_map() -> None:
    import torch

    import eie

    class Reader(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(4, 8, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.lstm(x)[0])

    x = torch.randn(4, 3, 4)
    with pytest.raises(ImageError, match=r"stream_io, inputs and outputs must stream, but .*loop"):
        eie.compile(Reader(), (x,), params=Params(pes=4), options=STREAMED)


@pytest.mark.verifies("inputs-outputs-stream-cannot-refused")
def test_a_plan_without_legal_tiles_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill._Work, "fits", lambda *args: False)
    assert PARAMS is not None
    with pytest.raises(ImageError, match="first: no tiles of it leave in one block"):
        compile_whole(pictures(), PARAMS, STREAMED)


@pytest.mark.verifies("inputs-outputs-stream-cannot-refused")
def test_files_keep_the_option_and_those_without_it_are_as_before(tmp_path: Path) -> None:
    from tests.sim.test_streams import small

    network = small().network
    save(network, tmp_path / "plain.eie")
    assert b"stream_io" not in (tmp_path / "plain.eie").read_bytes()
    assert load(tmp_path / "plain.eie").options == DEFAULT
    assert Options.from_dict(STREAMED.stored()) == STREAMED
    assert "stream_io" in STREAMED.stored()


@pytest.mark.verifies("inputs-outputs-stream-start-batch")
@pytest.mark.rtl
def test_a_batch_streams_through_the_verilog_under_back_pressure(seed: int) -> None:
    """One start for all samples; both streams wait at random, and the outputs are those of the graph."""
    from sim.rtl.engine import run_rtl

    image, x, right = connected()
    for pauses in (0.0, 0.4):
        ran = run_rtl(image, [x], decode(image), pauses=pauses, seed=seed)
        assert len(ran.records) == 1
        assert np.array_equal(ran.values["two"].reshape(SAMPLES, -1), right)


@pytest.mark.verifies("inputs-outputs-stream-start-batch")
@pytest.mark.rtl
@pytest.mark.slow
def test_random_networks_in_verilog_equal_graph_and_models(seed: int) -> None:
    report = verify("ends", seed, trials=SUITES["ends"].sample)
    assert report.failures == []
    assert report.rings >= report.trials


@pytest.mark.verifies("planted-faults-ring-row-less")
def test_fault_a_beat_lost_on_its_way_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault: the host gives the vectors of the second sample twice and those of the first never."""
    from sim.streams import Outside, Transfer

    made = random_ends_case(3, PARAMS)  # type: ignore[arg-type]
    while len(made.x) < 2 or np.array_equal(made.x[0], made.x[1]):
        made = random_ends_case(made.seed + 1, PARAMS)  # type: ignore[arg-type]
    order = Outside._beats

    def turned(self: Outside, each: Transfer) -> list[tuple[int, int]]:
        found = order(self, each)
        size = each.height * each.row
        return found[size : 2 * size] + found[size:]

    monkeypatch.setattr(Outside, "_beats", turned)
    found, _ = run_graph_case(made, "amaranth")
    assert found is not None
