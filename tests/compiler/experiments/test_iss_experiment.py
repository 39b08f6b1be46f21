"""The ISS experiment: a tiny one end to end, and what its summary chooses and says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compiler.errors import RecipeError
from compiler.experiments import load
from compiler.experiments.base import Env, Experiment
from compiler.experiments.iss import Structures
from compiler.experiments.stopwatch import interleaved
from compiler.train.loop import reproducible

RECIPES = Path(__file__).parents[3] / "recipes" / "experiments"

RECIPE = """
kind = "iss"
seeds = [3]
text = "pydoc"
vocabulary = 60
share = 0.05
length = 10
batches = [2]
repeats = 1
dense = { epochs = 1, batch = 8, learning_rate = 1.0 , optimizer = "sgd", momentum = 0.0, shape = "constant" }
sparse = { epochs = 2, batch = 8, learning_rate = 1.0 , optimizer = "sgd", momentum = 0.0, shape = "constant" }
finetune = { epochs = 1, batch = 8, learning_rate = 0.1 , optimizer = "sgd", momentum = 0.0, shape = "constant" }
"""
NETWORK = """
[[networks]]
name = "NAME"
cell = "CELL"
width = 8
hidden = [8, 8]
dropout = 0.1
dropout_sparse = 0.0
strengths = [1e-6, 0.02]
least = 0.01
"""


def recipe(tmp_path: Path, text: str) -> Experiment:
    path = tmp_path / "iss.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


@pytest.mark.verifies("experiment-end-end-small-strengths")
def test_a_tiny_experiment_runs_and_reports(tmp_path: Path) -> None:
    lstm = NETWORK.replace("NAME", "a").replace("CELL", "lstm") + "l1 = [1e-5]\nl1_least = 0.01\n"
    rhn = NETWORK.replace("NAME", "b").replace("CELL", "rhn").replace("[8, 8]", "[8]") + "tied = true\ndepth = 2\n"
    experiment = recipe(tmp_path, RECIPE + lstm + rhn)
    told: list[str] = []
    trials = experiment.trials()
    assert [trial.key for trial in trials] == [
        "a.dense.3", "b.dense.3", "a.l1-1e-05.3", "a.iss-1e-06.3", "a.iss-0.02.3", "b.iss-1e-06.3", "b.iss-0.02.3",
    ]  # fmt: skip
    with reproducible(1):
        results = {trial.key: experiment.run(trial, Env(None, told.append)) for trial in trials}
        again = experiment.run(trials[4], Env(None, told.append))
    results = json.loads(json.dumps(results))
    assert results["a.dense.3"]["widths"] == [8, 8, 8]
    weak, strong = results["a.iss-1e-06.3"], results["a.iss-0.02.3"]
    assert strong["multiplies"] < weak["multiplies"] <= results["a.dense.3"]["multiplies"]
    assert strong["direct"]["widths"] == strong["widths"]
    assert strong["cut"] == pytest.approx(strong["penalized"], rel=1e-4)  # removal changes nothing
    assert results["b.iss-0.02.3"]["widths"][0] == results["b.iss-0.02.3"]["widths"][1] < 8
    assert 0 < results["a.l1-1e-05.3"]["nonzeros"] < results["a.dense.3"]["multiplies"]
    assert again["curve"] == strong["curve"]
    summary = experiment.summarize(results)
    assert set(summary.plots) == {"a-tradeoff", "a-units", "b-tradeoff", "b-units"}
    assert len(summary.findings) == 3 + 2 + 1 + 1  # the last one: which differences of pairs show
    assert len(summary.tables[0].rows) == 1 + 2 * 2 + 1
    assert any("iss 2/2" in words for words in told)


def stub(results: dict[str, Any], way: str, strength: float, validation: float, multiplies: int) -> None:
    found: dict[str, Any] = {
        "validation": validation, "test": 2 * validation, "widths": [8, 8, 8], "parameters": 5 * multiplies,
        "multiplies": multiplies, "curve": [{"units": [8, 8]}],
        "data": {"text": "t", "words": 9, "train": 9, "validation": 9, "test": 9},
    }  # fmt: skip
    if way == "iss":
        found["speed"] = {"2": {part: {"before": 3.0, "after": 1.5} for part in ("whole", "layers")}}
        found["direct"] = {**found, "validation": validation + 5}
    results["a.dense.3" if way == "dense" else f"a.{way}-{strength:g}.3"] = found


@pytest.mark.verifies("experiment-end-end-small-strengths")
def test_the_smallest_within_the_tolerance_is_chosen_and_a_miss_is_said(tmp_path: Path) -> None:
    text = RECIPE + NETWORK.replace("NAME", "a").replace("CELL", "lstm")
    experiment = recipe(tmp_path, text.replace("[1e-6, 0.02]", "[1e-6, 0.02, 0.03]"))
    results: dict[str, Any] = {}
    stub(results, "dense", 0.0, 100.0, 1000)
    stub(results, "iss", 1e-6, 95.0, 900)
    stub(results, "iss", 0.02, 100.9, 400)
    stub(results, "iss", 0.03, 101.1, 300)  # its test perplexity is never asked for
    summary = experiment.summarize(results)
    chosen = summary.figures["networks"]["a"]["chosen"]
    assert chosen["strength"] == 0.02
    assert chosen["equal"]
    assert "2.50x fewer multiplies, measured speed-up 2.00x (layers)" in summary.findings[0]
    assert "worse than by way of ISS (+5.00" in summary.findings[1]
    for key in list(results):
        results[key]["validation"] = 100.0 if "dense" in key else 120.0
    summary = experiment.summarize(results)
    assert not summary.figures["networks"]["a"]["chosen"]["equal"]
    assert "NOT within" in summary.findings[0]


@pytest.mark.parametrize("name", ["iss", "iss-gru", "iss-rhn", "small/iss"])
def test_the_recipes_are_legal(name: str) -> None:
    experiment = load(RECIPES / f"{name}.toml")
    assert isinstance(experiment, Structures)
    assert len({trial.key for trial in experiment.trials()}) == len(experiment.trials())


def test_wrong_recipes_are_refused(tmp_path: Path) -> None:
    network = NETWORK.replace("NAME", "a").replace("CELL", "lstm")
    for text, said in (
        (RECIPE + "networks = []\n", "networks are missing"),
        (RECIPE + network + network, "two have one name"),
        (RECIPE + network.replace("[1e-6, 0.02]", "[]"), "no strengths"),
        (RECIPE.replace("pydoc", "moby") + network, "one of bible-kjv, pydoc"),
        (RECIPE + network.replace("lstm", "elman"), "one of lstm, gru, rhn"),
        (RECIPE + network + "tied = true\n", "is tied; only one rhn layer"),
    ):
        with pytest.raises(RecipeError, match=said):
            recipe(tmp_path, text)


def test_things_are_timed_in_turns() -> None:
    order: list[str] = []
    times = interleaved({name: lambda name=name: order.append(name) for name in "ab"}, 3, least=0.0)
    assert order == ["a", "a", "b", "b", *"ababab"]
    assert all(seconds >= 0 for seconds in times.values())
