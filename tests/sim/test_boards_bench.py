"""Networks of small boards: their shapes, what is counted of a line and of streams, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from compiler.graph.operators import types
from eie.cli import cli
from hw.params import Params
from sim.benchmarks import boards
from sim.benchmarks.boards import NETWORKS, line_bytes, measure_boards, stream_beats
from sim.driver.driver import Driver
from sim.driver.port import Port
from sim.program import chunks
from tests.sim.test_stream_io import STREAMED, connected

SIZES = {"autoencoder": (264_192, 264_192), "ds-cnn": (2_656_768, 22_016), "resnet-8": (12_501_632, 77_360),
         "lenet-300-100": (266_200, 266_200)}  # fmt: skip
"""Multiplications and weights, as MLPerf Tiny's reference has them."""


@pytest.mark.verifies("inferences-second-small-networks-published")
@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_are_the_published_ones(name: str) -> None:
    graph = NETWORKS[name].make(1.0, np.random.default_rng(1))
    shapes = types(graph)
    weights = [(node.tensors["weight"], shapes[node.output].shape) for node in graph if "weight" in node.tensors]
    assert sum(weight.size * math.prod(shape[1:]) for weight, shape in weights) == SIZES[name][0]
    assert sum(weight.size for weight, _ in weights) == SIZES[name][1]


@pytest.mark.verifies("inferences-second-small-networks-published")
def test_a_row_has_the_time_of_the_model_at_the_clock() -> None:
    arrays = {"large": Params(pes=16), "small": Params(pes=16, weight_words=8, refill=False)}
    large, small = measure_boards(["lenet-300-100"], arrays, mhz=40, baud=1_000_000, densities={}, samples=2)
    assert large["fits"]
    assert large["equal"]
    assert large["per_second"] == 40e6 / large["cycles"]
    # Each entry takes a cycle of its PE: no run is shorter.
    assert large["cycles"] >= large["busy"] * large["cycles"] > 0.2 * large["cycles"]
    assert large["stream_beats"] == 98
    assert not small["fits"]
    assert "weight memory needs" in small["why"]


class Counting(Port):
    """Registers that say nothing; words and requests as a serial line has them."""

    def __init__(self) -> None:
        self.bytes = 0

    def read32(self, offset: int) -> int:
        self.bytes += boards._OVERHEAD + 4
        return 0

    def write32(self, offset: int, value: int) -> None:
        self.write_block(offset, [value])

    def read_block(self, offset: int, count: int) -> list[int]:
        self.bytes += 4 * count + boards._OVERHEAD * -(-count // boards.MOST_WORDS)
        return [0] * count

    def write_block(self, offset: int, values: object) -> None:
        count = len(values)  # type: ignore[arg-type]
        self.bytes += 4 * count + boards._OVERHEAD * -(-count // boards.MOST_WORDS)

    def send(self, beats: object, ends: object) -> int:
        return 0


@pytest.mark.verifies("inferences-second-small-networks-published")
def test_bytes_of_a_line_are_those_of_the_driver() -> None:
    from compiler.options import DEFAULT

    image, x, _ = connected(DEFAULT)
    port = Counting()
    driver = Driver(port)
    (chunk,) = chunks(image, [x[:1]])
    output = image.maps[image.outputs[0]]
    info = image.maps[image.inputs[0]]
    for unit in range(image.params.groups):
        lines = chunk.inputs[info.base : info.base + info.lines, unit]
        given = [int.from_bytes(line.astype("<i2").tobytes(), "little") for line in lines]
        driver.load_words(image.params, boards_memory(), unit, info.base, given)
        driver.fetch_words(image.params, boards_memory(), unit, output.base, output.lines)
    assert port.bytes == line_bytes(image)
    assert stream_beats(connected(STREAMED)[0]) == stream_beats(image) == 7


def boards_memory() -> object:
    from hw.layouts import Memory

    return Memory.ACTIVATIONS


@pytest.mark.verifies("inferences-second-small-networks-published")
@pytest.mark.parametrize(("given", "source"), [
    ({"mhz": 61.5, "board": "ours", "part": "a part", "seed": 3}, "a part, seed 3"),
    ({"min_mhz": 61.5, "median_mhz": 70, "device": "a part"}, "a part, the slowest of all seeds"),
])  # fmt: skip
def test_the_command_writes_its_result_with_the_source_of_its_clock(
    tmp_path: Path, given: dict[str, object], source: str
) -> None:  # fmt: skip
    report = {"params": Params(pes=16).asdict(), **given}
    (tmp_path / "report.json").write_text(json.dumps(report))
    done = CliRunner().invoke(cli, [
        "bench", "boards", "--networks", "lenet-300-100", "--placed", str(tmp_path / "report.json"), "--samples", "1",
        "-o", str(tmp_path / "inferences"),
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "inferences.json").read_text())
    assert document["clock_mhz"] == 61.5
    assert document["clock_source"] == f"place and route by nextpnr, {source}"
    page = (tmp_path / "inferences.md").read_text()
    assert f"| {document['rows'][0]['per_second']:,.0f} |" in page


@pytest.mark.verifies("inferences-second-small-networks-published")
@pytest.mark.parametrize(("given", "message"), [
    (["--placed", "{missing}"], "is no report of place and route"),
    (["--placed", "{missing}", "--clock", "3"], "has array and clock"),
    (["--density", "ds-cnn=2"], "expected NETWORK=SHARE"),
    (["--networks", "vgg"], "unknown network vgg"),
])  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path: Path, given: list[str], message: str) -> None:
    done = CliRunner().invoke(cli, ["bench", "boards", *(each.format(missing=tmp_path / "none") for each in given)])
    assert done.exit_code != 0
    assert message in done.output + str(done.exception or "")
