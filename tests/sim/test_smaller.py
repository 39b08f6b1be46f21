"""Smaller layers against pruning: every network is measured, equal cycles and equal errors are what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compiler.errors import RecipeError
from compiler.experiments import load
from compiler.experiments.base import Env
from sim.search.kinds import KINDS
from sim.search.smaller import Smaller

torch = pytest.importorskip("torch")

RECIPE = """
kind = "smaller-layers"
seeds = [1, 2]
preset = "BALANCED_4"
densities = [0.3]
ways = { channels = [0.5] }
ignore = ["fc3"]
finetune = { epochs = 1, batch = 50, learning_rate = 1e-3 }
rates = [1e-2, 1e-9]

[[networks]]
name = "tiny"
data = "digits"
samples = 200
validation = 0.25
model = { name = "mlp", hidden = [24, 16] }
dense = { epochs = 2, batch = 50, learning_rate = 1e-2 }
"""


def recipe(tmp_path: Path, old: str = "", new: str = "") -> Smaller:
    path = tmp_path / "smaller.toml"
    path.write_text(RECIPE.replace(old, new) if old else RECIPE)
    experiment = load(path, KINDS)
    assert isinstance(experiment, Smaller)
    return experiment


@pytest.mark.verifies("smaller-layers")
def test_all_networks_of_a_seed_are_measured(tmp_path: Path) -> None:
    experiment = recipe(tmp_path)
    points = experiment.run(experiment.trials()[0], Env(None, lambda word: None))["points"]
    assert list(points) == ["dense", "pruned 0.3", "trained on", "channels 0.5"]
    whole = 64 * 24 + 24 * 16 + 16 * 10
    assert points["dense"]["weights"] == points["trained on"]["weights"] == whole
    assert points["pruned 0.3"]["weights"] == round(0.3 * 64 * 24) + round(0.3 * 24 * 16) + 160
    assert points["channels 0.5"]["weights"] == 8 * (64 + 24) + 4 * (24 + 16) + 160
    assert points["pruned 0.3"]["cycles"] < points["dense"]["cycles"]
    assert all(points[name]["rate"] in experiment.rates for name in points if name != "dense")


def point(cycles: float | None, validation: float, test: float) -> dict[str, Any]:
    return {"cycles": cycles, "validation": validation, "test": test, "weights": 1, "stored": 1}


@pytest.mark.verifies("smaller-layers")
def test_equal_cycles_and_equal_errors_are_what_they_say(tmp_path: Path) -> None:
    experiment = recipe(tmp_path)

    def told(cycles: float | None, validation: float = 7.0) -> Any:
        points = {
            "dense": point(900, 5, 5), "trained on": point(400, 4, 4), "pruned 0.3": point(100, 7, 10),
            "channels 0.5": point(cycles, validation, 9),
        }  # fmt: skip
        other = {**points, "channels 0.5": point(cycles, validation, 9.5)}
        return experiment.summarize({"tiny.1": {"points": points}, "tiny.2": {"points": other}})

    # Half way between on the logarithm pruning makes 7 % errors; with as few validation errors it takes 100 cycles.
    assert told(200).tables[0].rows[-1][-2:] == [2.25, 2.0]
    assert told(200).figures["pairs"]["channels 0.5 - pruned at its cycles"]["mean"] == pytest.approx(2.25)
    assert told(800, 3).tables[0].rows[-1][-2:] == [5.25, None]  # more than the dense one takes
    assert told(50).tables[0].rows[-1][-2:] == [None, 0.5]
    assert "no pruned network has as few cycles" in told(50).findings[1]
    assert told(None).tables[0].rows[-1][3:] == [None, None, None, None]  # it does not fit the array


@pytest.mark.verifies("smaller-layers")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("ways = { channels = [0.5] }", "", "expected ways or forms"),
        ("rates =", "imitate = 1\nrates =", "imitate is 1; expected less than the 1 epochs of finetune"),
        ("ways = { channels", "ways = { svd", "svd"),
        ("densities = [0.3]", 'densities = [0.3]\nforms = ["round"]', "forms names round; expected some of small"),
    ],
)
def test_recipes_that_are_wrong_are_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(tmp_path, old, new)
    assert said in str(caught.value)
