"""What ``make sim`` runs: that it shows what is there, and ends with 1 when a bit or a cycle is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch")

import sim.network
import sim.run
from eie.commands.demo import demo


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all, so that the network is trained once."""
    return tmp_path_factory.mktemp("demo")


def run_demo(folder: Path, *options: object) -> Result:
    arguments = ["--out", folder, "--engine", "amaranth", "--pes", 4, *options]
    return CliRunner().invoke(demo, [str(argument) for argument in arguments])


def models_as_hardware(monkeypatch, spoil=lambda result: result) -> None:
    """Let the cycle model play the hardware, spoiled, so that a test takes no simulation."""
    honest = sim.run.run

    def run(image, x, *, engine, **options):
        if engine == "amaranth":
            return spoil(replace(honest(image, x, engine="cycles"), engine=engine))
        return honest(image, x, engine=engine, **options)

    monkeypatch.setattr(sim.network, "run", run)


@pytest.mark.verifies("make-sim-wrong-bit-wrong")
@pytest.mark.slow
def test_demo_passes_reports_and_trains_once(folder) -> None:
    result = run_demo(folder, "--samples", 2)
    assert result.exit_code == 0, result.output
    assert "PASS" in result.stdout
    report = json.loads((folder / "digits" / "report.json").read_text())
    assert report["equal"] is True
    assert report["batch"] == 2
    layers = report["layers"]
    assert report["compared"]["values"]["values"] == 2 * (100 + 50 + 10)
    assert report["compared"]["cycles"]["records"] == len(layers) * 11  # one run
    assert report["accuracy"]["golden"]["held_out"] > 0.9
    assert report["accuracy"]["dense"]["held_out"] > 0.9
    entries = sum(layer["counters"]["entries"] for layer in layers)
    assert report["cycles"]["utilization"] == pytest.approx(entries / (4 * report["cycles"]["total"]))
    assert report["cycles"]["microseconds_at_800_mhz"] == pytest.approx(report["cycles"]["total"] / 2 / 800)
    assert all(Path(path).exists() for path in report["files"].values() if path)
    assert any("Verilog was not simulated" in text for text in report["left_out"])
    assert "was not simulated" in result.stdout
    model = Path(report["files"]["run"]) / "model.safetensors"
    before = model.stat().st_mtime_ns
    again = run_demo(folder, "--samples", 1)
    assert again.exit_code == 0
    assert "Taking up" in again.stderr
    assert model.stat().st_mtime_ns == before


def test_demo_says_that_there_are_no_more_samples_and_how_many_it_left_out(folder, monkeypatch) -> None:
    models_as_hardware(monkeypatch)
    result = run_demo(folder, "--samples", 100_000)
    assert result.exit_code == 0, result.output
    assert "100000 samples were asked for" in result.stdout
    assert "4 samples were run" in result.stdout


@pytest.mark.verifies("make-sim-wrong-bit-wrong")
def test_demo_fails_on_one_wrong_bit(folder, monkeypatch) -> None:
    def spoil(result):
        values = {name: raw.copy() for name, raw in result.values.items()}
        values["fc2"][0, 7] ^= 4  # a hidden layer: the answer may well stay right
        return replace(result, values=values)

    models_as_hardware(monkeypatch, spoil)
    result = run_demo(folder, "--samples", 1)
    assert result.exit_code == 1
    assert "FAIL" in result.stdout
    assert "fc2" in result.stdout
    assert "neuron 7, bit 2" in result.stdout
    assert json.loads((folder / "digits" / "report.json").read_text())["equal"] is False


@pytest.mark.verifies("make-sim-wrong-bit-wrong")
def test_demo_fails_on_one_wrong_cycle(folder, monkeypatch) -> None:
    def spoil(result):
        records = [[dict(record) for record in vector] for vector in result.records]
        records[0][2]["finished"] += 1
        return replace(result, records=records)

    models_as_hardware(monkeypatch, spoil)
    result = run_demo(folder, "--samples", 1)
    assert result.exit_code == 1
    assert "fc3, finished" in result.stdout


@pytest.mark.verifies("make-sim-wrong-bit-wrong")
def test_demo_fails_when_nothing_was_compared(folder, monkeypatch) -> None:
    models_as_hardware(monkeypatch, lambda result: replace(result, records=[]))
    result = run_demo(folder, "--samples", 1)
    assert result.exit_code == 1
    assert "NOTHING WAS COMPARED" in result.stdout


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--pes", 3], "power of two"),
        (["--samples", 0], "samples"),
        (["--data", "cifar"], "cifar"),
        (["--waves"], "--engine rtl"),
    ],
)
def test_demo_refuses_wrong_options(options, word, tmp_path) -> None:
    result = run_demo(tmp_path, *options)
    assert result.exit_code == 2
    assert word in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.verifies("make-sim-wrong-bit-wrong")
@pytest.mark.rtl
@pytest.mark.slow
def test_demo_runs_the_verilog_and_writes_a_waveform(folder) -> None:
    arguments = ["--out", folder, "--pes", 1, "--samples", 3, "--waves"]
    result = CliRunner().invoke(demo, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    report = json.loads((folder / "digits" / "report.json").read_text())
    assert report["accuracy"]["rtl"]["samples"] == report["accuracy"]["golden"]["samples"]
    assert Path(report["files"]["waves"]).read_text(encoding="latin-1").startswith("$")
