"""What the experiment on parallel training concludes from results that are known, and one small real run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from compiler.errors import RecipeError
from compiler.experiments import load, parallel
from compiler.experiments.base import Env
from compiler.experiments.parallel import WAYS, Parallel
from compiler.train.terngrad.hosts import LOOPBACK, NAMESPACES, Way, ways
from compiler.train.terngrad.job import parse

ENV = Env(None, lambda text: None)
RECIPES = Path(__file__).parents[3] / "recipes" / "experiments"


def shipped(name: str = "parallel") -> Parallel:
    experiment = load(RECIPES / f"{name}.toml")
    assert isinstance(experiment, Parallel)
    return experiment


def said(experiment: Parallel, monkeypatch: pytest.MonkeyPatch, difference: float, kept: str) -> dict[str, Any]:
    """Trials whose workers say: two seconds a step where one process takes one; "1f1b" of the CNN as is given."""

    def workers(module: str, plan: Any, count: int, way: Way, seconds: float) -> list[dict[str, Any]]:
        found = []
        for rank in range(count):
            results = []
            for one in plan["measurements"]:
                wrong = one["way"] == "1f1b" and parse(one["job"], "plan").name == "CNN" and rank == 1
                results.append({
                    "difference": difference if wrong else 1e-7, "seconds": [2.0 - rank] * plan["steps"], "cpu": 1.5,
                    "alone": [1.0] * plan["steps"], "cpu_alone": 1.0, "sent": 1000 * plan["steps"], "whole": 4000,
                    "held": 4000 if one["way"] == "data" else 1000 * (rank + 1),
                })  # fmt: skip
            found.append({"results": results})
        return found

    monkeypatch.setattr(parallel, "ways", lambda: Way(kept, False, ""))
    monkeypatch.setattr(parallel, "run_workers", workers)
    return {trial.key: experiment.run(trial, ENV) for trial in experiment.trials()}


@pytest.mark.verifies("parallel-experiment")
@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (9e-5, "are those of one process to float rounding (largest relative difference 9.0e-05, limit 0.0001)"),
        (2e-4, "ARE NOT those of one process (limit 0.0001): 1f1b with CNN (2.0e-04)"),
        (float("nan"), "ARE NOT those of one process (limit 0.0001): 1f1b with CNN (nan)"),
    ],
)
def test_the_verdict_follows_from_the_largest_difference(
    difference: float, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = shipped()
    summary = experiment.summarize(said(experiment, monkeypatch, difference, NAMESPACES))
    assert summary.findings[0] == f"In 54 cases of way, network and seed the gradients {verdict}."
    assert "in 0 of 18 cases" in summary.findings[1]
    rows = {row[0]: row[1:] for row in summary.tables[0].rows}  # of the MLP
    assert list(rows) == list(WAYS)
    # Processes, gradients, seconds by the slowest worker, CPU of all, kB that one sends, weights of the fullest.
    assert rows["data"] == [2, 1e-7, 2.0, 2.0, 2.0, 3.0, 1.0, 100.0]
    assert rows["tensor"] == [2, 1e-7, 2.0, 2.0, 2.0, 3.0, 1.0, 50.0]
    assert rows["data-tensor"] == [4, 1e-7, 2.0, 2.0, 2.0, 6.0, 1.0, 100.0]


@pytest.mark.verifies("parallel-experiment")
def test_bytes_at_one_loopback_interface_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = shipped("small/parallel")
    summary = experiment.summarize(said(experiment, monkeypatch, 0.0, LOOPBACK))
    assert [row[7] for row in summary.tables[0].rows] == [0.5] * 4


@pytest.mark.parametrize(("given", "named"), [('["data", "data"]', "data, data"), ('["none"]', "none"), ("[]", "none")])
def test_ways_that_there_are_not_are_refused(given: str, named: str, tmp_path: Path) -> None:
    text = (RECIPES / "small/parallel.toml").read_text().replace('["data", "sharded", "tensor", "1f1b"]', given)
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(RecipeError, match=f"ways are {named}; expected some of data, sharded"):
        load(tmp_path / "x.toml")


@pytest.mark.slow
@pytest.mark.verifies("parallel-experiment")
@pytest.mark.skipif(not ways().name, reason=f"workers cannot be kept apart here: {ways().missing}")
def test_two_real_processes_are_measured() -> None:
    experiment = dataclasses.replace(shipped("small/parallel"), ways=("tensor",), steps=3)
    (trial,) = experiment.trials()
    (found,) = experiment.run(trial, ENV).values()
    assert found["difference"] < 1e-5
    assert found["whole"] == 4 * 6570
    assert 0.5 * found["whole"] <= found["held"] < 0.55 * found["whole"]
    # The sums that the row layer's outputs are, and gathered outputs of the last: kilobytes a step, not none.
    assert 5e3 < found["sent"] / 3 < 2e5
    assert len(found["seconds"]) == len(found["alone"]) == 3
