"""The three ways down to a density: at once, in rounds, along a ramp; by layer and by one threshold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from compiler.train import recipe
from compiler.train.run import train_recipe
from compiler.train.schedule import Schedule
from compiler.train.stages import Prune
from compiler.train.stages.prune import density_at

COUNTS = {"fc1": 64 * 20, "fc2": 20 * 10}
EPOCHS = 6


def history(folder: Path, prune: dict[str, Any]) -> tuple[list[float], dict[str, Any]]:
    """Density of all weights after each epoch of a pruning stage, and its record."""
    content = {
        "name": "pruned",
        "seed": 6,
        "data": {"name": "digits", "validation": 0.2, "samples": 300},
        "model": {"name": "mlp", "hidden": [20]},
        "stages": [
            {"kind": "dense", "epochs": 1, "learning_rate": 0.01},
            {"kind": "prune", "epochs": EPOCHS, "learning_rate": 0.01, **prune},
        ],
    }
    record = train_recipe(recipe.parse(content, "pruned"), folder)["stages"][1]
    return [epoch["density"] for epoch in record["history"]], record


def kept(densities: dict[str, float]) -> float:
    """Density of all weights together when each layer keeps its whole number of weights."""
    return sum(round(densities[key] * COUNTS[key]) for key in COUNTS) / sum(COUNTS.values())


@pytest.mark.verifies("pruning-densities-once-rounds-along")
def test_iterative_pruning_takes_equal_steps_of_the_logarithm(tmp_path: Path) -> None:
    goal = {"fc1": 0.1, "fc2": 0.4}
    found, record = history(tmp_path / "run", {"method": "iterative", "rounds": 3, "density": goal})
    for epoch, density in enumerate(found):
        share = (epoch // 2 + 1) / 3
        assert density == pytest.approx(kept({key: value**share for key, value in goal.items()}), abs=1e-9), epoch
    assert [layer["nonzeros"] for layer in record["layers"]] == [round(goal[key] * COUNTS[key]) for key in goal]


def test_one_shot_pruning_is_there_from_the_first_epoch(tmp_path: Path) -> None:
    found, _ = history(tmp_path / "run", {"method": "oneshot", "density": 0.25})
    assert found == [pytest.approx(kept(dict.fromkeys(COUNTS, 0.25)))] * EPOCHS


def test_gradual_pruning_follows_the_cubic_curve_and_ends_at_its_goal(tmp_path: Path) -> None:
    found, _ = history(tmp_path / "run", {"method": "gradual", "density": 0.2, "ramp": 0.5})
    assert found == sorted(found, reverse=True)
    assert found[EPOCHS // 2 :] == [pytest.approx(kept(dict.fromkeys(COUNTS, 0.2)))] * (EPOCHS // 2)
    # Four steps an epoch; the ramp is half of the 23 steps after the first one.
    for epoch in range(EPOCHS // 2):
        left = max(0, 1 - (4 * epoch + 3) / 12)
        assert found[epoch] == pytest.approx(kept(dict.fromkeys(COUNTS, 0.2 + 0.8 * left**3))), epoch


def test_global_threshold_takes_more_from_the_layer_of_small_weights(tmp_path: Path) -> None:
    found, record = history(tmp_path / "run", {"method": "oneshot", "density": 0.3, "scope": "global"})
    total = sum(COUNTS.values())
    assert found[-1] == pytest.approx(round(0.3 * total) / total)
    first, second = (layer["density"] for layer in record["layers"])
    assert abs(first - second) > 0.02  # per layer both were 0.3


def stage(method: str, rounds: int, ramp: float) -> Prune:
    schedule = Schedule(10, 10, 0.1, cycles=rounds)
    return Prune(
        kind="prune", name="p", schedule=schedule, density=0.2, scope="layer", method=method, ramp=ramp, rounds=rounds
    )


@pytest.mark.parametrize("method", ["gradual", "oneshot", "iterative"])
@pytest.mark.parametrize("total", [10, 97, 1000])
def test_densities_fall_to_the_goal_and_never_rise(method: str, total: int) -> None:
    for ramp in (0.0, 0.3, 1.0):
        chosen = stage(method, 4, ramp)
        found = [density_at(chosen, step, total, 0.9, 0.05) for step in range(total)]
        densities = [density for density in found if density is not None]
        assert densities == sorted(densities, reverse=True)
        assert densities[-1] == pytest.approx(0.05)
        assert densities[0] <= 0.9 + 1e-12
        if method == "iterative":
            assert densities == [pytest.approx(0.9 * math.pow(0.05 / 0.9, number / 4)) for number in range(1, 5)]
        if method == "oneshot":
            assert len(densities) == 1


def test_the_learning_rate_falls_anew_in_every_round() -> None:
    schedule = stage("iterative", 3, 0.0).schedule
    assert schedule is not None
    rates = [schedule.rate(step, 90) for step in range(90)]
    begins = [0, *(step for step in range(1, 90) if rates[step] > rates[step - 1])]
    assert begins == [0, 30, 60]
    # Each round prunes where its rate is highest.
    chosen = stage("iterative", 3, 0.0)
    assert [step for step in range(90) if density_at(chosen, step, 90, 1.0, 0.1) is not None] == begins


@pytest.mark.verifies("planted-fault-rounds-equal-steps")
def test_planted_fault_equal_steps_of_the_density_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compiler.train.stages import prune

    def linear(stage: Prune, step: int, total: int, start: float, goal: float) -> float | None:
        length = -(-total // stage.rounds)
        return None if step % length else start + (goal - start) * (step // length + 1) / stage.rounds

    monkeypatch.setattr(prune, "density_at", linear)
    with pytest.raises(AssertionError):
        test_iterative_pruning_takes_equal_steps_of_the_logarithm(tmp_path)
