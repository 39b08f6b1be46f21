"""Fronts of structured and unstructured sparsity: every network is measured, and compared as the report says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compiler.errors import RecipeError
from compiler.experiments import load
from compiler.experiments.base import Env
from sim.search.fronts import Fronts
from sim.search.kinds import KINDS

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]

RECIPE = """
kind = "sparsity-fronts"
seeds = [1, 2]
presets = ["BALANCED_4", "BALANCED_16"]
densities = [0.3]
left = [0.5]
strengths = [0.2]
groups = [{ by = "filter", strength = 1.0, layers = ["fc1"] }]
lasso = { epochs = 8, batch = 10, learning_rate = 0.1, optimizer = "sgd" }
prune = { epochs = 8, batch = 10, learning_rate = 1e-3 }
tune = { epochs = 1, batch = 16, learning_rate = 1e-3 }

[[networks]]
name = "tiny"
data = "digits"
samples = 200
validation = 0.25
model = { name = "mlp", hidden = [24] }
dense = { epochs = 2, batch = 16, learning_rate = 1e-2 }
"""

NAMES = ["dense", "pruned 0.3", "pruned 1", "SSL 0.2", "SSL 0.2, pruned 0.5"]


def recipe(tmp_path: Path, old: str = "", new: str = "") -> Fronts:
    path = tmp_path / "fronts.toml"
    path.write_text(RECIPE.replace(old, new) if old else RECIPE)
    experiment = load(path, KINDS)
    assert isinstance(experiment, Fronts)
    return experiment


@pytest.mark.verifies("sparsity-fronts")
def test_all_networks_of_a_seed_are_measured(tmp_path: Path) -> None:
    experiment = recipe(tmp_path)
    points = experiment.run(experiment.trials()[0], Env(None, lambda word: None))["points"]
    assert sorted(points) == sorted(NAMES)
    units = {name: points[name]["filters"] - 10 for name in NAMES}
    weights = {name: points[name]["weights"] for name in NAMES}
    assert units["dense"] == 24
    assert 0 < units["SSL 0.2"] < 24, "some units went, not all"
    assert weights["pruned 0.3"] <= round(0.3 * (64 * 24 + 240))
    assert weights["SSL 0.2, pruned 0.5"] < 0.85 * weights["SSL 0.2"]
    assert weights["SSL 0.2"] <= units["SSL 0.2"] * 74 < weights["dense"]
    for array in experiment.presets:
        cycles = {name: points[name]["cycles"][array] for name in NAMES}
        assert cycles["SSL 0.2, pruned 0.5"] < cycles["SSL 0.2"] < cycles["dense"]
        assert cycles["pruned 0.3"] < cycles["dense"]
    assert points["dense"]["cycles"]["BALANCED_16"] < points["dense"]["cycles"]["BALANCED_4"]


def point(cycles: float | None, validation: float, test: float) -> dict[str, Any]:
    found = {"BALANCED_4": cycles, "BALANCED_16": None}
    return {"cycles": found, "validation": validation, "test": test, "weights": 1, "filters": 1}


@pytest.mark.verifies("sparsity-fronts")
def test_fronts_are_chosen_by_validation_and_compared_at_equal_cycles(tmp_path: Path) -> None:
    experiment = recipe(tmp_path, "strengths = [0.2]", "strengths = [0.1, 0.2]")
    one = {
        "dense": point(900, 5, 5), "pruned 0.3": point(100, 7, 10), "pruned 1": point(400, 4, 4),
        "SSL 0.2": point(200, 8, 12), "SSL 0.1": point(800, 6, 6),
        "SSL 0.2, pruned 0.5": point(120, 9, 1),
        "SSL 0.1, pruned 0.5": point(160, 9.5, 0.5),  # few test errors do not bring it into the front
    }  # fmt: skip
    # In the other seed one way makes a quarter of a point more.
    other = {name: {**each, "test": each["test"] + 0.25 * name.startswith("SSL")} for name, each in one.items()}
    told = experiment.summarize({"tiny.1": {"points": one}, "tiny.2": {"points": other}})
    ssl = [name for name in told.figures["pairs"] if name.endswith("SSL - pruned")]
    assert ssl == [f"BALANCED_4, {cycles} cycles: SSL - pruned" for cycles in (200, 400, 800)]
    # Pruning: 7 % half way between on the logarithm, 4 % from 400 on. SSL: 12, 9 and 6 %.
    assert [told.figures["pairs"][name]["mean"] for name in ssl] == pytest.approx([5.125, 5.125, 2.125])
    both = [pair["mean"] for name, pair in told.figures["pairs"].items() if name.endswith("SSL, pruned - pruned")]
    assert both[-1] == pytest.approx(1 - 4 + 0.125)
    assert all(pair["p_holm"] >= pair["p"] for pair in told.figures["pairs"].values())
    assert any("BALANCED_16: the fronts of SSL and of pruning have no cycles" in finding for finding in told.findings)
    beaten = {row[0]: row[-1] for row in told.tables[0].rows}
    assert beaten == {
        "dense": "pruned 1", "pruned 0.3": None, "pruned 1": None, "SSL 0.2": "pruned 0.3", "SSL 0.1": "pruned 1",
        "SSL 0.2, pruned 0.5": "pruned 0.3", "SSL 0.1, pruned 0.5": "pruned 0.3",
    }  # fmt: skip
    assert [row[7] for row in told.tables[1].rows] == [None] * 7


@pytest.mark.verifies("sparsity-fronts")
def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    experiment = recipe(tmp_path)
    points = {name: point(100.0 * number, 9 - number, 9 - number) for number, name in enumerate(NAMES, start=1)}
    told = experiment.summarize({"tiny.1": {"points": points}})
    assert told.figures["pairs"] == {}
    assert [row[3:5] for row in told.tables[0].rows] == [[None, None]] * 5


@pytest.mark.verifies("sparsity-fronts")
@pytest.mark.parametrize("name", ["ssl-array.toml", "small/ssl-array.toml"])
def test_the_recipes_are_legal(name: str) -> None:
    assert isinstance(load(ROOT / "recipes" / "experiments" / name, KINDS), Fronts)


@pytest.mark.verifies("sparsity-fronts")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"BALANCED_16"', '"BALANCED_3"', "presets are BALANCED_3; expected some of"),
        ('presets = ["BALANCED_4", "BALANCED_16"]', "presets = []", "presets are none"),
        ("left = [0.5]", "left = []", "left are empty"),
        ("prune = { epochs = 8", "prune = { epochs = 5", "lasso has 8 epochs and prune 5; expected as many"),
    ],
)
def test_recipes_that_are_wrong_are_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(tmp_path, old, new)
    assert said in str(caught.value)
