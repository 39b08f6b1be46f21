"""Hash tables: the small recipes end to end on less, and what the reports say of results that are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.errors import RecipeError
from compiler.experiments import load
from compiler.experiments.base import Env, Summary
from compiler.experiments.hashing import Hashing
from compiler.experiments.hashing_rival import dense_products
from compiler.experiments.hashing_wide import WAYS, HashingWide, seconds_to, windows
from compiler.train.loop import reproducible

RECIPES = Path(__file__).parents[3] / "recipes" / "experiments"


def changed(tmp_path: Path, name: str, *changes: tuple[str, str]) -> Any:
    """A small recipe with some of its text replaced."""
    text = (RECIPES / "small" / f"{name}.toml").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def run(experiment: Hashing | HashingWide, told: list[str]) -> dict[str, Any]:
    env = Env(None, told.append)
    with reproducible(1):
        results = {trial.key: experiment.run(trial, env) for trial in experiment.trials()}
    return dict(json.loads(json.dumps(results)))


@pytest.mark.parametrize("name", ["hashing", "hashing-fashion", "hashing-wide", "small/hashing", "small/hashing-wide"])
def test_the_recipes_are_legal(name: str) -> None:
    trials = load(RECIPES / f"{name}.toml").trials()
    assert len({trial.key for trial in trials}) == len(trials) > 0


@pytest.mark.verifies("hashing-experiment-small")
def test_the_small_recipe_of_hidden_layers_runs_and_reports(tmp_path: Path) -> None:
    less = ("seeds = [1, 2, 3]", "seeds = [1, 2]"), ("samples = 1200", "samples = 240"), ("epochs = 6", "epochs = 1")
    experiment: Hashing = changed(tmp_path, "hashing", *less, ("[200, 200]", "[40, 40]"))
    told: list[str] = []
    results = run(experiment, told)
    assert results["0.-1.1"]["products"] == dense_products([64, 40, 40, 10]) == 3 * (64 * 40 + 40 * 40 + 400) - 64 * 40
    hashed = results["0.0.1"]
    assert hashed["products"] == pytest.approx(sum(hashed["counts"].values()))
    assert hashed["counts"]["query"] > 0 < hashed["counts"]["rehash"]
    # The small network is as wide as the multiplications allow, and not much narrower.
    assert 0.7 * hashed["products"] < hashed["small"]["products"] <= 1.05 * hashed["products"]
    assert results["0.2.1"]["counts"]["query"] == 0
    again = experiment.run(next(t for t in experiment.trials() if t.key == "0.0.1"), Env(None, told.append))
    assert again["products"] == hashed["products"]
    summary = experiment.summarize(results)
    assert len(summary.tables[0].rows) == 1 + 4
    assert summary.findings[0] == "digits: 2 seeds; 240 training samples, 8.3% of which validate; 1 epochs."
    assert set(summary.plots) == {"errors"}


@pytest.mark.verifies("hashing-wide-experiment-small")
def test_the_small_recipe_of_a_wide_output_runs_and_reports(tmp_path: Path) -> None:
    experiment: HashingWide = changed(
        tmp_path, "hashing-wide", ("full = 4000", "full = 400"), ("= 8000", "= 600"), ("= 3000", "= 400")
    )  # fmt: skip
    results = run(experiment, [])
    assert all(len(one["curve"]) == 5 for one in results.values())
    losses = {way: results[f"{way}.1"]["loss"] for way in WAYS}
    assert max(losses.values()) < np.log(400), losses  # better than every word alike
    assert results["hashing.1"]["products"] < results["full.1"]["products"]
    assert len(experiment.summarize(results).tables[0].rows) == len(WAYS)


def wide_results(experiment: HashingWide, seconds: dict[str, float]) -> dict[str, Any]:
    """Every way is at the loss of the full softmax after so many seconds; with 0 it never is."""
    found = {}
    for trial in experiment.trials():
        way, more = trial.options["way"], 1 + 0.01 * trial.options["seed"]
        curve = [[seconds[way] * more / 2, 6.0], [seconds[way] * more, 5.0 if seconds[way] else 5.5]]
        found[trial.key] = {"curve": curve, "words": 9, "samples": 9, "loss": curve[-1][1], "products": 1.0}
    return found


def wide_summary(tmp_path: Path, seeds: str, seconds: dict[str, float]) -> Summary:
    experiment: HashingWide = changed(tmp_path, "hashing-wide", ("[1, 2]", seeds))
    return experiment.summarize(wide_results(experiment, seconds))


@pytest.mark.verifies("hashing-reports")
def test_the_report_of_a_wide_output_says_how_many_seeds_and_what_was_missed(tmp_path: Path) -> None:
    fast = {"full": 8.0, "sampled": 4.0, "hashing": 2.0, "uniform": 0.0}
    many = wide_summary(tmp_path, "[1, 2, 3]", fast)
    assert "4.0 times fewer CPU seconds, at worst of 3 seeds: at least the 3 times" in many.findings[0]
    assert [finding.partition(":")[0] for finding in many.findings[1:]] == [
        "sampled / full", "hashing / full", "hashing / sampled",
    ]  # fmt: skip
    assert many.tables[0].rows[3][4:] == [None] * 3  # the uniform sample never comes there
    one = wide_summary(tmp_path, "[1]", fast)
    assert "with the one seed that ran" in one.findings[0]
    assert "one seed, no interval" in one.tables[0].title
    assert not any("worst" in finding for finding in one.findings)
    assert len(one.findings) == len(one.tables) == 1  # no intervals of one seed
    assert len(many.tables) == 2
    # Planted: a hashing that is too slow, and one that does not come there at all.
    slow = wide_summary(tmp_path, "[1, 2, 3]", {**fast, "hashing": 4.0}).findings[0]
    assert "2.0 times fewer" in slow
    assert "less than the 3 times" in slow
    never = wide_summary(tmp_path, "[1, 2, 3]", {**fast, "hashing": 0.0})
    assert "does not reach" in never.findings[0]


def hidden_summary(tmp_path: Path, seeds: str, lost: float, noise: float = 0.01) -> Summary:
    """Dense training has 3 % wrong; hashing `lost` points more, and one more than its small rival.

    noise : how much more of `lost` each next seed has.
    """
    experiment: Hashing = changed(tmp_path, "hashing", ("[1, 2, 3]", seeds))
    results = {}
    for trial in experiment.trials():
        arm, error = trial.options["arm"], 3.0 + 0.01 * trial.options["seed"]
        if arm < 0:
            results[trial.key] = {"errors": {"test": error}, "products": 1000}
            continue
        mine = {"test": error + lost * (1 + noise * (trial.options["seed"] - 1) + 0.01)}
        results[trial.key] = {"errors": mine, "all_active": mine, "products": 40 if arm == 0 else 80}
        if arm < 2:
            results[trial.key]["small"] = {
                "width": 7,
                "errors": {"test": mine["test"] - 1 - 0.001 * trial.options["seed"]},
            }
    return experiment.summarize(results)


@pytest.mark.verifies("hashing-reports")
def test_the_report_of_hidden_layers_gives_a_verdict_over_seeds_and_none_over_one(tmp_path: Path) -> None:
    good, bad = (hidden_summary(tmp_path, "[1, 2, 3]", lost).findings for lost in (0.5, 2.0))
    assert "best of hashing is hashing 10 % at 4.0%" in good[1]
    assert good[1].endswith("Within one point: holds.")
    assert bad[1].endswith("Within one point: does not hold.")
    noisy = hidden_summary(tmp_path, "[1, 2, 3]", 2.0, noise=0.5).findings
    assert noisy[1].endswith("Within one point: does not hold on average, its interval reaches below.")
    assert "against a small dense network of as many multiplications: worse" in bad[2]
    one = hidden_summary(tmp_path, "[1]", 2.0)
    assert one.findings[0].startswith("digits: one seed, no interval; 1,200 training samples")
    assert "+2.02 points against dense, +1.00 against a small dense network" in one.findings[1]
    assert one.findings[1].endswith("that is no verdict.")
    assert not any("hold" in finding for finding in one.findings)
    assert len(one.tables) == 1


def test_windows_and_seconds() -> None:
    contexts, targets = windows(np.array([4, 5, 6, 7]), 2, 10)
    assert contexts.tolist() == [[4, 15], [5, 16]]
    assert targets.tolist() == [6, 7]
    with pytest.raises(RecipeError, match="more than the 4 of a context"):
        windows(np.arange(4), 4, 10)
    curve = [[1.0, 6.0], [3.0, 5.0], [4.0, 4.0]]
    assert seconds_to(curve, 5.5) == 2.0
    assert seconds_to(curve, 7.0) == 1.0
    assert seconds_to(curve, 3.9) is None


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("hashing", 'name = "top-k 10 %"', 'name = "dense"', "one is called dense"),
        ("hashing", '"mlp", hidden = [200, 200]', '"gru", hidden = 6', "expected mlp"),
        ("hashing-wide", "vocabulary = 3000", "vocabulary = 150", "at least the 200 of a sample"),
        ("hashing-wide", "want = 60", "want = 2999", "more than the 2999 of the tables"),
        ("hashing-wide", '"pydoc"', '"moby"', "expected one of|one of bible"),
    ],
)  # fmt: skip
def test_wrong_recipes_are_refused(tmp_path: Path, name: str, old: str, new: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        changed(tmp_path, name, (old, new))
