"""``make sim NET=…``: whole networks of a size that is trained in seconds, and what must make it fail."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch")

import sim.network
from compiler.network_file import load
from compiler.train import recipe as recipes
from eie.commands.demo import demo
from eie.output import Output
from eie.summary import summary
from sim.clock import Clock
from sim.demo import NETWORKS, Subject

SHOWN = dict(NETWORKS)

SIZES = {
    "lenet5": """
[data]
name = "digits"
validation = 0.15

[model]
name = "lenet-5"
channels = [4, 8]
hidden = 16
padding = 2

[[stages]]
kind = "dense"
epochs = 4
batch = 64
learning_rate = 6e-3

[[stages]]
kind = "prune"
epochs = 2
batch = 64
learning_rate = 4e-3
ramp = 0.5
density = 0.4
""",
    "lstm": """
[data]
name = "next-letter"
validation = 0.1
samples = 600

[model]
name = "lstm"
hidden = 8

[[stages]]
kind = "dense"
epochs = 1
batch = 64
learning_rate = 4e-3
""",
}
SHARE = """
[[stages]]
kind = "share"
epochs = 1
batch = 64
learning_rate = 5e-4
code_bits = 4
labels = "free"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all, so that each network is trained once."""
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(autouse=True)
def small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in SIZES.items():
        path = folder / f"{name}.toml"
        path.write_text(f'name = "{name}"\nseed = 1\nthreads = 1\n{text}{SHARE}')
        monkeypatch.setitem(NETWORKS, name, Subject(path, samples=3, amaranth=1))


def run_demo(folder: Path, name: str, *options: object) -> tuple[Result, dict[str, Any]]:
    arguments = ["--net", name, "--out", folder, "--engine", "amaranth", "--pes", 2, *options]
    result = CliRunner().invoke(demo, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result, json.loads((folder / name / "report.json").read_text())


def models_as_hardware(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable[[sim.run.Result], sim.run.Result] = lambda result: result
) -> None:
    """Let the cycle model play the hardware, spoiled, so that a test takes no simulation."""
    honest = sim.network.run

    def run(image: Any, x: Any, *, engine: str, **options: Any) -> sim.run.Result:
        if engine == "amaranth":
            return spoil(replace(honest(image, x, engine="cycles"), engine=engine))
        return honest(image, x, engine=engine, **options)

    monkeypatch.setattr(sim.network, "run", run)


@pytest.mark.verifies("convolutional-network-trained-pruned-shared")
@pytest.mark.slow
def test_a_convolutional_network_runs_whole_on_the_simulated_array(folder: Path) -> None:
    result, report = run_demo(folder, "lenet5")
    assert result.exit_code == 0, result.output
    assert "PASS: hardware = golden model" in result.stdout
    assert report["host"] == []
    assert [layer["name"] for layer in report["layers"]] == ["conv1", "conv2", "fc1", "fc2"]
    # Pooling is within the layers: 8 x 8 pixels become 4 x 4 and 2 x 2.
    assert report["compared"]["on_array"] == 4 * 16 + 8 * 4 + 16 + 10
    assert report["compared"]["cycles"]["records"] == 4 * 11
    assert report["held_out"] == 359
    assert report["accuracy"]["golden"]["held_out"] > 0.5
    assert any("1 samples were run, 2 of those asked for were not" in text for text in report["left_out"])
    assert [stage["kind"] for stage in report["stages"]] == ["dense", "prune", "share"]


@pytest.mark.verifies("convolutional-network-trained-pruned-shared")
@pytest.mark.rtl
@pytest.mark.slow
def test_a_convolutional_network_runs_whole_in_verilog_with_two_banks(folder: Path) -> None:
    """So many samples that what the banks wrote leaves the buffers of their files."""
    result, report = run_demo(folder, "lenet5", "--engine", "rtl", "--pes", 16, "--samples", 40)
    assert result.exit_code == 0, result.output
    assert report["compared"]["on_array"] == 40 * (4 * 16 + 8 * 4 + 16 + 10)
    assert report["accuracy"]["rtl"]["samples"] == report["accuracy"]["golden"]["samples"]


@pytest.mark.verifies("table-layers-adds-up-finished")
def test_the_table_of_layers_adds_up_and_a_run_is_taken_up_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models_as_hardware(monkeypatch)
    monkeypatch.setenv("COLUMNS", "200")  # a row is a line
    run_demo(folder, "lenet5")
    result, report = run_demo(folder, "lenet5")
    assert "Taking up" in result.stderr
    layers, cycles = report["layers"], report["cycles"]
    assert sum(layer["cycles"] for layer in layers) + cycles["drain"] == cycles["total"]
    assert sum(layer["weights"] for layer in layers) == report["size"]["weights"]
    assert sum(layer["nonzeros"] for layer in layers) == report["size"]["nonzeros"]
    assert sum(layer["bytes"] for layer in layers) == pytest.approx(report["size"]["stored_bytes"], abs=2)
    assert all(0 < layer["utilization"] <= 1 for layer in layers)
    assert layers[0]["products"] == 64 * 25 * 4
    for layer in layers:
        row = next(line for line in result.stdout.splitlines() if line.startswith(f"{layer['name']} "))
        assert "x".join(map(str, layer["tile"])) in row
        assert f"{layer['bytes']:,}" in row
    assert "further weights" not in result.stdout
    fewer = {**report, "size": {**report["size"], "weights": report["size"]["weights"] - 5}}
    assert "5 further weights" in summary(fewer)


@pytest.mark.verifies("planted-faults-wrong-value-convolution")
def test_one_wrong_value_of_a_convolution_makes_it_fail(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(result: sim.run.Result) -> sim.run.Result:
        values = {name: raw.copy() for name, raw in result.values.items()}
        first = next(iter(values))
        values[first][0, 2, 1, 3] ^= 4  # the answer may well stay right
        return replace(result, values=values)

    models_as_hardware(monkeypatch, spoil)
    result, report = run_demo(folder, "lenet5")
    assert result.exit_code == 1
    assert report["equal"] is False
    assert "FAIL: hardware and models differ" in result.stdout
    assert "channel 3, row 2, column 1, bit 2" in " ".join(result.stdout.split())


@pytest.mark.verifies("planted-faults-wrong-value-convolution")
def test_one_wrong_cycle_makes_it_fail(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(result: sim.run.Result) -> sim.run.Result:
        records = [[dict(record) for record in layers] for layers in result.records]
        records[0][1]["written"] += 1
        return replace(result, records=records)

    models_as_hardware(monkeypatch, spoil)
    result, report = run_demo(folder, "lenet5")
    assert result.exit_code == 1
    assert report["equal"] is False
    assert "layer conv2, written" in " ".join(result.stdout.split())


@pytest.mark.verifies("planted-faults-wrong-value-convolution")
def test_nothing_compared_makes_it_fail(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models_as_hardware(monkeypatch, lambda result: replace(result, records=[]))
    result, report = run_demo(folder, "lenet5")
    assert result.exit_code == 1
    assert report["equal"] is False
    assert "NOTHING WAS COMPARED" in result.stdout


@pytest.mark.verifies("host-computes-said")
def test_what_the_host_computes_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models_as_hardware(monkeypatch)
    result, report = run_demo(folder, "lstm", "--samples", 2)
    network = load(folder / "lstm" / "lstm.eie")
    assert report["equal"] is True
    assert report["host"] == [f"{node.name} ({node.op})" for node in network.host]
    on_host = [layer for layer in report["layers"] if layer["on"] == "host"]
    assert len(on_host) == len(network.host)
    assert all(layer["cycles"] is None and layer["bytes"] is None for layer in on_host)
    for text in report["host"]:
        assert text in result.stdout
    assert ("without what the host computes" in result.stdout) == bool(report["host"] and result.exit_code == 0)


@pytest.mark.verifies("report-json-prints-wrong-options")
def test_the_report_is_the_json(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models_as_hardware(monkeypatch)
    result, report = run_demo(folder, "lenet5", "--json")
    assert json.loads(result.stdout) == report


@pytest.mark.verifies("report-json-prints-wrong-options")
@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--net", "alexnet"], "alexnet"),
        (["--net", "lstm", "--data", "mnist"], "brings its own data"),
        (["--net", "lstm", "--mnist-dir", "."], "brings its own data"),
    ],
)
def test_wrong_options_are_refused(options: list[str], word: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(demo, [*options, "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert word in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.verifies("network-recipe-prunes-shares-without")
@pytest.mark.parametrize("name", SHOWN)
def test_every_network_has_its_recipe(name: str) -> None:
    recipe = recipes.load(SHOWN[name].recipe)
    assert {"prune", "share"} <= {stage.kind for stage in recipe.stages}
    assert recipe.dataset in ("digits", "next-letter")  # nothing to download


@pytest.mark.verifies("long-step-says-goes")
def test_a_long_step_says_that_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(Output(), every=0.01)
    with clock.step("wait", "Waiting"):
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Waiting …"
    assert "  wait: 0 s so far" in lines
    assert clock.seconds["wait"] >= 0.2
