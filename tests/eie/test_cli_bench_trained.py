"""`eie bench trained`: the accuracies are those of the run and of its integers, and a fault in them shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim.run
from compiler.errors import InputError
from compiler.image.image import Image
from compiler.train import recipe
from compiler.train.run import train_recipe
from hw.params import preset
from sim.benchmarks import trained
from sim.benchmarks.trained import interval, measure_runs
from sim.golden_array import Layer, Operation, Program
from sim.network import NetworkResult, run_network

SMALL = recipe.parse(
    {
        "name": "small",
        "data": "digits",
        "model": {"name": "resnet", "widths": [4, 8], "stride": 2},
        "stages": [
            {"kind": "dense", "epochs": 6, "learning_rate": 0.01},
            {"kind": "prune", "epochs": 2, "learning_rate": 0.01, "density": 0.6},
            {"kind": "fold"},
            {"kind": "share", "epochs": 1, "learning_rate": 0.001},
        ],
    },
    "small",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    train_recipe(SMALL, folder)
    return folder


@pytest.mark.verifies("trained-runs-accuracy-stage-integers")
def test_accuracies_of_a_run_stage_by_stage(run: Path, invoke: Any) -> None:
    result = invoke("bench", "trained", str(run), "--json")
    assert result.exit_code == 0, result.output
    [row] = json.loads(result.stdout)["rows"]
    stages = {stage["stage"]: stage["test"] for stage in row["stages"]}
    assert list(stages) == ["dense", "prune", "fold", "share"]
    assert stages["dense"] > 0.7
    assert abs(row["golden"] - stages["share"]) < 0.012
    assert row["golden_samples"] == 359
    assert row["floats"] == pytest.approx(stages["share"])
    assert row["shared_anew"] == []
    assert row["nonzeros"] < 0.65 * row["weights"]


@pytest.mark.verifies("trained-runs-accuracy-stage-integers")
def test_samples_come_in_parts(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [whole] = measure_runs([run], preset("BALANCED_4"), samples=30)
    monkeypatch.setattr(trained, "AT_ONCE", 7)
    [parts] = measure_runs([run], preset("BALANCED_4"), samples=30)
    assert whole == parts
    assert whole["golden_samples"] == 30


@pytest.mark.verifies("trained-runs-accuracy-stage-integers")
def test_planted_fault_a_wrong_operator_shows(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Average pooling, one weight in all of its window, with the wrong sign."""
    honest = sim.run.decode  # type: ignore[attr-defined]
    [right] = measure_runs([run], preset("BALANCED_4"), samples=100)
    changed = []

    def negated(image: Image) -> Program:
        program = honest(image)
        layers: list[Layer | Operation] = []
        for layer in program.layers:
            if layer.name == "pool":
                assert isinstance(layer, Layer)
                parts = tuple(replace(segment, weight=-segment.weight) for segment in layer.segments)
                layers.append(replace(layer, segments=parts))
                changed.append(layer.name)
            else:
                layers.append(layer)
        return replace(program, layers=tuple(layers))

    monkeypatch.setattr(sim.run, "decode", negated)
    [row] = measure_runs([run], preset("BALANCED_4"), samples=100)
    assert changed
    assert row["golden"] < right["golden"] - 0.2


def stand_in(monkeypatch: pytest.MonkeyPatch, wrong: int) -> list[int]:
    """Let the cycle model stand for Verilog, with a bit of so many of its values turned; the samples that it ran."""
    ran: list[int] = []

    def engine(network: Any, inputs: Any, *, engine: str = "golden") -> NetworkResult:
        if engine != "rtl":
            return run_network(network, inputs, engine=engine)
        ran.append(len(inputs))
        honest = run_network(network, inputs, engine="cycles")
        name = next(iter(honest.runs[0].values))
        turned = np.array(honest.values[name])
        turned.reshape(-1)[:wrong] ^= 1
        return replace(honest, values={**honest.values, name: turned})

    monkeypatch.setattr(trained, "run_network", engine)
    return ran


@pytest.mark.verifies("trained-runs-accuracy-stage-integers")
@pytest.mark.parametrize("wrong", [0, 3])
def test_samples_in_verilog_and_planted_fault_a_wrong_bit(
    wrong: int, run: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = stand_in(monkeypatch, wrong)
    result = invoke("bench", "trained", str(run), "--samples", "4", "--rtl", "2", "--preset", "BALANCED_4", "--json")
    assert result.exit_code == (1 if wrong else 0), result.output
    rtl = json.loads(result.stdout)["rows"][0]["rtl"]
    assert ran == [rtl["samples"]] == [2]
    assert rtl["values_different"] == wrong
    assert rtl["records_different"] == 0
    assert all(rtl[counted] > 0 for counted in ("values", "records", "cycles"))
    assert rtl["equal"] is not bool(wrong)
    assert rtl["utilization"] == pytest.approx(rtl["products"] / (4 * rtl["cycles"]))
    assert 0.2 < rtl["utilization"] < 1


def test_an_interval_is_that_of_a_count() -> None:
    assert interval(0.9, 100) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    low, high = interval(1.0, 100)
    assert (low, high) == pytest.approx((0.9630, 1), abs=1e-4)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected what `eie train` wrote"):
        list(measure_runs([tmp_path], preset("BALANCED_4")))
