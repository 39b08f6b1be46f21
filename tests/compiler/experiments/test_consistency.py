"""What the experiments on bounded staleness conclude from results that are known, and a trial that is run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from compiler.errors import RecipeError
from compiler.experiments import load
from compiler.experiments.base import Env
from compiler.experiments.consistency import Consistency
from compiler.experiments.consistency_faults import ConsistencyFaults

RECIPES = Path(__file__).parents[3] / "recipes" / "experiments"


def shipped(name: str) -> Any:
    return load(RECIPES / f"{name}.toml")


@pytest.mark.parametrize("name", ["consistency", "consistency-tuned", "small/consistency", "consistency-faults"])
def test_shipped_recipes_load_and_their_trials_have_different_keys(name: str) -> None:
    trials = shipped(name).trials()
    assert len({trial.key for trial in trials}) == len(trials) > 0


def results(experiment: Consistency, faster: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Bound 3 is so many times faster than bound 0, by the kind of stragglers; no bound never reaches the loss."""
    found = {}
    for trial in experiment.trials():
        bound, kind = trial.options["bound"], trial.options["stragglers"]
        runs = {}
        for seed in experiment.seeds:
            slow = 100 + (7 if bound else 5) * seed
            runs[str(seed)] = {
                "seconds": None if bound is None else slow / (faster[kind] if bound else 1), "rounds": 10.0, "reads": 5,
                "worst_lag": bound or 0, "mean_lag": 0.5, "waited": 0.1,
            }  # fmt: skip
        tried = [{"rate": rate, "seconds": 100.0} for rate in experiment.rates]
        found[trial.key] = {"tried": tried, "rate": experiment.rates[0], "tuning_seconds": 100.0, "runs": runs}
    return found


@pytest.mark.verifies("staleness-experiment")
def test_speed_ups_follow_from_seconds() -> None:
    experiment: Consistency = shipped("small/consistency")
    summary = experiment.summarize(results(experiment, {"fixed": 1.0, "random": 1.5, "rotating": 1.2}))
    assert summary.figures["speedups"]["mlp-digits.random"]["3"][0] == pytest.approx(1.5, rel=0.05)
    assert summary.findings[0].startswith("90 reads, each checked: the bound holds in every one.")
    assert summary.findings[0].endswith("Worst lag by bound: 0: 0, 3: 3, none: 0.")
    by_kind = dict(zip(("fixed", "random", "rotating"), summary.findings[1:4], strict=True))
    assert "bound 3, which the tuning seed prefers, is 1.46 times as fast" in by_kind["random"]
    assert "goal 1.3: reached, by the interval's lower end reached" in by_kind["random"]
    assert "goal 1.4: missed, by the interval's lower end missed" in by_kind["rotating"]
    assert "goal" not in by_kind["fixed"]
    assert summary.tables[0].rows[2][2:4] == [None, None]  # no bound: not reached
    assert summary.findings[4] == "The chosen rate is at an end of the grid in 9 of 9 cases."
    assert summary.findings[5].startswith("Of 3 paired comparisons, p below 0.05 after Holm's correction")
    assert len(summary.figures["comparisons"]) == 3
    assert [line.get_label() for line in summary.plots["speedups"].axes[0].containers] == [
        f"mlp-digits, {kind}" for kind in by_kind
    ]


@pytest.mark.verifies("staleness-experiment")
def test_a_trial_takes_the_rate_that_is_fastest_with_the_tuning_seed() -> None:
    experiment: Consistency = dataclasses.replace(shipped("small/consistency"), rates=(0.2, 0.4, 1e-4), seeds=(1,))
    trial = next(trial for trial in experiment.trials() if trial.key == "mlp-digits.random.3")
    found = experiment.run(trial, Env(None, lambda word: None))
    slow, fast, never = (one["seconds"] for one in found["tried"])
    assert fast < slow
    assert never is None  # given up as soon as it is slower than the best
    assert (found["rate"], found["tuning_seconds"]) == (0.4, fast)
    run = found["runs"]["1"]
    assert run["seconds"] > 0
    assert run["worst_lag"] == 3


def test_the_tuning_seed_is_none_of_the_seeds() -> None:
    with pytest.raises(RecipeError, match="tuning_seed is 11"):
        dataclasses.replace(shipped("small/consistency"), seeds=(1, 11)).trials()


@pytest.mark.verifies("staleness-experiment")
def test_what_is_lost_or_does_not_go_on_is_said() -> None:
    experiment: ConsistencyFaults = shipped("consistency-faults")
    good: dict[str, dict[str, Any]] = {
        trial.key: {
            "seconds": 9.0, "reads": 50, "worst_lag": 1, "lost": 0, "goes_on": None if "none" in trial.key else 4.0,
            "replaced": [],
        }
        for trial in experiment.trials()
    }  # fmt: skip
    good |= {key: {"caught": "the bound on staleness does not hold: x"} for key in good if key.startswith("late")}
    said = experiment.summarize(good).findings
    assert "No update is lost." in said[0]
    assert said[1] == "After a worker that was killed it goes on in 4.0 s at most."
    assert said[-1].startswith(
        "Servers that let a read pass one clock too stale are caught in 2 of 2 trainings: the bound"
    )
    bad = {**good, "late.0.1": {"caught": None}, "killed.0.1": {**good["killed.0.1"], "lost": 2, "goes_on": None}}
    said = experiment.summarize(bad).findings
    assert "2 updates are LOST." in said[0]
    assert "does NOT go on in 1 of 2" in said[1]
    assert "are caught in 1 of 2 trainings" in said[-1]
    without: dict[str, Any] = {key: {"skipped": "no Ray"} for key in good}
    assert experiment.summarize(without).findings == ["SKIPPED, nothing was run: no Ray"]


@pytest.mark.parametrize(
    ("change", "said"),
    [("bounds = [0, 3]", "bounds = [3]"), ("bounds = [0, 3]", "bounds = [0, 3, 3]"), ("workers = 4", "workers = 0")],
)
def test_wrong_recipes_say_what_is_wrong(change: str, said: str, tmp_path: Path) -> None:
    text = (RECIPES / "small" / "consistency.toml").read_text()
    (tmp_path / "x.toml").write_text(text.replace(change, said))
    with pytest.raises(RecipeError, match=f"{said.split(' =')[0]} is"):
        load(tmp_path / "x.toml")
