"""Growth and large batches as experiments: as many trials and epochs in every arm, choices by validation, words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compiler.errors import RecipeError
from compiler.experiments import load, tuned
from compiler.experiments.base import Env
from compiler.experiments.growth import Growth
from compiler.experiments.growth_arms import Arm, narrowed
from compiler.experiments.large_batch import LargeBatch
from compiler.train.data import DATASETS
from compiler.train.layers import weights
from compiler.train.loop import reproducible
from compiler.train.models import ModelSpec, build

RECIPES = Path(__file__).parents[3] / "recipes" / "experiments"
SMALL = RECIPES / "small"


@pytest.mark.verifies("tuned-by-validation")
def test_validation_alone_chooses_and_the_seed_of_trials_makes_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned, "accuracy", lambda module, lesson, split: module["validation"])
    seen = []

    def train(setting: Mapping[str, Any], seed: int) -> tuple[Any, dict[str, Any]]:
        seen.append((setting["rate"], seed))
        # The worst by validation would be the best by test error.
        module = {"validation": {1: 0.7, 2: 0.9, 3: 0.8}[setting["rate"]]}
        errors = {"validation": 1.0, "test": 10.0 * setting["rate"]}
        made = SimpleNamespace(module=module, lesson=None, errors=lambda module: errors)
        made.dataset = SimpleNamespace(validation=None)
        return made, {"more": seed}

    found = tuned.train_tuned(3, 11, (1, 2), lambda tried: {"rate": len(tried) + 1}, train, lambda text: None)
    assert seen == [(1, 11), (2, 11), (3, 11), (2, 1), (2, 2)]
    assert found["setting"] == {"rate": 2}
    assert found["runs"] == {str(seed): {"validation": 1.0, "test": 20.0, "more": seed} for seed in (1, 2)}
    assert [one["validation"] for one in found["tried"]] == pytest.approx([30, 10, 20])


@pytest.mark.verifies("growth-arms-equal")
def test_every_arm_trains_for_as_many_epochs_and_penalties_are_trimmed() -> None:
    experiment = load(RECIPES / "growth.toml")
    assert isinstance(experiment, Growth)
    base = experiment.network.dense
    for arm in experiment.arms:
        setting = arm.setting([], 0.1)
        stages = arm.stages(base, setting, 0.1, experiment.trimmed)
        assert sum(stage.schedule.epochs for stage in stages if stage.schedule) == base.epochs
        assert {stage.schedule.batch for stage in stages if stage.schedule} == {base.batch}
        if arm.strengths:
            assert [stage.kind for stage in stages] == [arm.kind, "prune"]
            assert {stage.schedule.learning_rate for stage in stages if stage.schedule} == {setting["learning_rate"]}
    assert {arm.kind for arm in experiment.arms} == {"dense", "small", "prune", "rigl", "set", "static", "l1", "l0"}
    assert experiment.sparsities == (0.9, 0.97, 0.98)


@pytest.mark.verifies("growth-arms-equal")
def test_strengths_are_found_by_bisection() -> None:
    arm = Arm("L1", "l1", ({"learning_rate": 0.1},), (1.0, 10_000.0))
    tried: list[dict[str, Any]] = []
    for density in (0.5, 0.2, 0.05):
        tried.append({"setting": arm.setting(tried, 0.1), "reached": density})
    # Too dense at 100, so more; at 1,000 as well; too sparse after that, so less.
    strengths = [one["setting"]["strength"] for one in tried]
    assert strengths == pytest.approx([100, 1000, 3160])
    assert arm.setting(tried, 0.1)["strength"] == pytest.approx((3160 * 1000) ** 0.5, rel=1e-2)


@pytest.mark.verifies("growth-small-dense")
def test_the_small_network_has_no_more_weights_and_few_fewer() -> None:
    spec = ModelSpec("lenet-5", {"channels": (8, 16), "hidden": 128, "padding": 0})

    def count(model: ModelSpec) -> int:
        module = build(model, DATASETS["fashion-mnist"].shape, 10)
        return sum(site.value.numel() for site in weights(module))

    whole = count(spec)
    for share in (0.1, 0.03, 0.02):
        small = narrowed(spec, "fashion-mnist", share * whole)
        assert 0.7 * share * whole < count(small) <= share * whole
        assert small.options["padding"] == 0
    with pytest.raises(RecipeError, match="narrow"):
        narrowed(spec, "fashion-mnist", 20)


def tiny(name: str, **more: Any) -> Any:
    """A small experiment, smaller."""
    found = load(SMALL / f"{name}.toml")
    assert isinstance(found, Growth | LargeBatch)
    spec = dataclasses.replace(
        found.network, samples=150, dense=dataclasses.replace(found.network.dense, epochs=2, batch=20)
    )
    return dataclasses.replace(found, network=spec, seeds=(1,), trials_each=1, **more)


def test_a_trial_of_growth_has_the_weights_that_its_sparsity_leaves() -> None:
    experiment = tiny("growth")
    whole = 6 * 25 + 6 * 12 * 25 + 12 * 4 * 32 + 320
    found = {}
    with reproducible(1):
        for trial in experiment.trials():
            if trial.options["arm"] in ("L0", "small dense", "static"):
                found[trial.options["arm"]] = experiment.run(trial, Env(None, lambda text: None))
    left = {name: one["runs"]["1"]["weights"] for name, one in found.items()}
    assert left["L0"] == round(0.1 * whole)
    assert 0.9 * 0.1 * whole < left["static"] <= round(0.1 * whole) + 4  # grown weights may still be zero
    assert 0.7 * 0.1 * whole < left["small dense"] <= 0.1 * whole


def test_a_trial_of_large_batches_takes_fewer_steps() -> None:
    experiment = tiny("large-batch")
    trials = {(trial.options["arm"], trial.options["factor"]): trial for trial in experiment.trials()}
    with reproducible(1):
        found = experiment.run(trials["LARS", 8], Env(None, lambda text: None))
    assert found["tried"][0]["steps"] == 2  # 120 samples, 160 a batch, two epochs
    assert ("LARS", 1) not in trials
    assert found["setting"]["optimizer"] == "lars"


def runs(validation: float, tests: list[float], **more: Any) -> dict[str, Any]:
    each = {str(seed): {"test": test, "weights": 5, "reached": 0.1} for seed, test in enumerate(tests, start=1)}
    tried = [{"setting": {"rate": 1}, "validation": validation, "reached": 0.1, "steps": 7}]
    return {"tried": tried, "setting": {"rate": 1}, "runs": each, **more}


@pytest.mark.verifies("large-batch-claims")
@pytest.mark.parametrize(
    ("tests", "words"),
    [
        ([10.0, 11.0, 12.1], "Within 0.3 points: holds."),
        ([10.0, 11.0, 12.8], "holds on average, its interval reaches further"),
        ([11.0, 12.0, 13.1], "does not hold"),
    ],
)
def test_the_claim_is_about_what_validation_prefers(tests: list[float], words: str) -> None:
    experiment = dataclasses.replace(load(SMALL / "large-batch.toml"), seeds=(1, 2, 3))
    assert isinstance(experiment, LargeBatch)
    # SGD is better by validation at the small batch, LAMB at the large one; LARS is best by test, which does not count.
    base = [10.0, 11.0, 12.0]
    made = {"SGD.1": (5.0, base), "AdamW.1": (6.0, [9.0] * 3), "SGD.8": (8.0, [15.0] * 3), "AdamW.8": (8.0, [15.0] * 3),
            "LARS.8": (8.0, [1.0] * 3), "LAMB.8": (7.0, tests)}  # fmt: skip
    summary = experiment.summarize({f"{key}.1-2-3": runs(*value) for key, value in made.items()})
    assert summary.figures["small"] == "SGD"
    assert "validation prefers LAMB" in summary.findings[1]
    assert words in summary.findings[1]
    assert "SGD, the best there by validation" in summary.findings[0]
    assert len(summary.figures["differences"]) == 4
    assert "errors" in summary.plots


def test_words_on_growth_follow_from_the_numbers() -> None:
    experiment = dataclasses.replace(load(SMALL / "growth.toml"), seeds=(1, 2, 3))
    assert isinstance(experiment, Growth)
    errors = {"dense": 5.0, "prune": 8.0, "RigL": 7.0, "small dense": 9.5}
    results = {
        trial.key: runs(1.0, [errors.get(trial.options["arm"], 12.0) * wobble for wobble in (1.0, 1.03, 1.01)])
        for trial in experiment.trials()
    }
    summary = experiment.summarize(results)
    assert summary.findings[1].startswith("At 90 % sparsity, mean test error in percent: RigL 7.09, prune 8.11")
    assert summary.figures["differences"]["RigL - prune, 90 %"]["mean"] == pytest.approx(-1.0133, abs=1e-3)
    assert summary.figures["differences"]["L0 - small dense, 90 %"]["mean"] == pytest.approx(2.5333, abs=1e-3)
    assert "prune - prune, 90 %" not in summary.figures["differences"]
    assert len(summary.tables[0].rows) == len(experiment.arms)


@pytest.mark.parametrize("name", ["growth", "large-batch"])
def test_shipped_recipes_have_as_many_trials_in_every_arm(name: str, tmp_path: Path) -> None:
    for path in (RECIPES / f"{name}.toml", SMALL / f"{name}.toml"):
        found = load(path)
        assert isinstance(found, Growth | LargeBatch)
        for arm in found.arms:
            assert len(arm.settings) == (1 if getattr(arm, "strengths", ()) else found.trials_each)
        assert len({trial.key for trial in found.trials()}) == len(found.trials())
    text = (SMALL / f"{name}.toml").read_text()
    for old, new, words in (
        ("trials = 2", "trials = 3", "expected 3"),
        ("tuning_seed = 11", "tuning_seed = 2", "tuning_seed is 2"),
        ("learning_rate = 4e-3", "learning_rat = 4e-3", "learning_rat"),
    ):
        assert old in text
        wrong = tmp_path / "wrong.toml"
        wrong.write_text(text.replace(old, new))
        with pytest.raises(RecipeError, match=words):
            load(wrong)


def test_shipped_recipe_of_large_batches_asks_for_8_and_32_times() -> None:
    found = load(RECIPES / "large-batch.toml")
    assert isinstance(found, LargeBatch)
    assert found.factors == (8, 32)
    assert {arm.name for arm in found.arms} == {"SGD", "AdamW", "LARS", "LAMB"}
