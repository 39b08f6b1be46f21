"""Dense-sparse-dense against plain training: both see the same steps and rates; the words fit the numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from compiler.errors import RecipeError
from compiler.experiments.base import Env, Trial
from compiler.experiments.dsd import DenseSparseDense
from compiler.experiments.paired import Family, Paired, holm
from compiler.experiments.subject import NetworkSpec
from compiler.train import dsd
from compiler.train.loop import reproducible
from compiler.train.models import ModelSpec
from compiler.train.schedule import Schedule

RECIPES = Path(__file__).parents[3] / "recipes" / "experiments"


def tiny(name: str = "gru", seeds: tuple[int, ...] = (1, 2, 3)) -> DenseSparseDense:
    spec = NetworkSpec(
        name, "digits", 240, "float32", ModelSpec("gru", {"hidden": 6}), Schedule(2, 40, 0.01, shape="constant")
    )
    return DenseSparseDense(name="tiny", seeds=seeds, networks=(spec,), epochs=2, sparsity=0.4, drop=4, rounds=2)


def check_same_rates(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a trial; steps, rates and batches of both ways are the same, one after the other."""
    rates: list[tuple[int, int, float]] = []
    real = Schedule.rate

    def rate(self: Schedule, step: int, total: int) -> float:
        rates.append((step, total, real(self, step, total)))
        return rates[-1][2]

    monkeypatch.setattr(Schedule, "rate", rate)
    with reproducible(1):
        found = tiny().run(Trial("0.1", {"network": "gru", "seed": 1}), Env(None, lambda text: None))
    first, both = rates[: 2 * 6], rates[2 * 6 :]  # 220 samples in batches of 40
    assert {rate for _, _, rate in first} == {0.01}
    assert len(both) == 2 * 4 * 12
    assert both[:48] == both[48:]
    assert [rate for _, _, rate in both[:48]] == [0.01] * 12 + [0.0025] * 12 + [0.01] * 12 + [0.0025] * 12
    return found


@pytest.mark.verifies("dsd-plain-training-same-length")
def test_both_ways_see_the_same_steps_and_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    found = check_same_rates(monkeypatch)
    assert set(found) == {"initial", "dsd", "dsd_first_phase", "plain", "plain_first_phase"}
    assert all(0 <= errors[part] <= 100 for errors in found.values() for part in ("validation", "test"))


@pytest.mark.verifies("planted-fault-drop-rate-only")
def test_planted_fault_a_drop_that_only_one_way_sees_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = dsd.dense_sparse_dense
    monkeypatch.setattr(
        dsd, "dense_sparse_dense", lambda module, train, **options: real(module, train, **{**options, "drop": 10})
    )
    with pytest.raises(AssertionError):
        check_same_rates(monkeypatch)


def test_without_sparsity_both_ways_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # So what differs is the mask alone: not the samples, their order, or the optimizer.
    monkeypatch.setattr(dsd, "sparsify", lambda module, sparsity, only, ignore: None)
    with reproducible(1):
        found = tiny().run(Trial("0.2", {"network": "gru", "seed": 2}), Env(None, lambda text: None))
    assert found["dsd"] == found["plain"]
    assert found["dsd_first_phase"] == found["plain_first_phase"]


def results(differences: list[float]) -> dict[str, dict[str, Any]]:
    def errors(value: float) -> dict[str, float]:
        return {"validation": value, "test": value}

    return {
        f"0.{seed}": {
            "initial": errors(12.0), "plain_first_phase": errors(11.0), "dsd_first_phase": errors(11.5),
            "plain": errors(10.0 + seed), "dsd": errors(10.0 + seed + difference),
        }
        for seed, difference in enumerate(differences, start=1)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("differences", "whole", "single"),
    [
        ([-0.9, -1.0, -1.2], "DSD comes out 1 better (gru) and none worse", "DSD is better by itself"),
        ([0.9, 1.0, 1.2], "DSD comes out none better and 1 worse (gru)", "DSD is worse by itself"),
        ([-1.0, 1.0, 0.1], "DSD comes out none better and none worse", "no difference shows"),
    ],
)
def test_words_follow_from_the_numbers(differences: list[float], whole: str, single: str) -> None:
    summary = tiny().summarize(results(differences))
    assert whole in summary.findings[0]
    assert single in summary.findings[1]
    pair = summary.figures["dsd_minus_plain"]["gru"]
    assert pair["mean"] == pytest.approx(sum(differences) / 3)
    assert pair["low"] < pair["mean"] < pair["high"]
    (row,) = summary.tables[0].rows
    assert row[:6] == ["gru", 12.0, 11.0, 11.5, 12.0, pytest.approx(12 + sum(differences) / 3, abs=1e-3)]
    assert len(row) == len(summary.tables[0].columns)
    (axes,) = summary.plots["differences"].axes
    assert sorted(axes.lines[0].get_xdata()) == pytest.approx(sorted(differences))


@pytest.mark.verifies("dsd-contrast")
def test_a_contrast_compares_by_seed_what_dsd_does_to_two_networks() -> None:
    one = tiny().networks[0]
    both = dataclasses.replace(tiny(), networks=(one, dataclasses.replace(one, name="other")))
    contrasted = dataclasses.replace(both, contrasts=(("gru", "other"),))
    # Each network by itself is noisy, seed by seed in the same way: only pairs by seed show the difference.
    found = results([-1.0, 0.9, 0.1])
    found |= {key.replace("0.", "1."): each for key, each in results([-1.2, 0.72, -0.11]).items()}
    summary = contrasted.summarize(found)
    pair = summary.figures["contrasts"]["gru - other"]
    assert pair["mean"] == pytest.approx((0.2 + 0.18 + 0.21) / 3)
    assert pair["p"] < 0.01 < 0.5 < summary.figures["dsd_minus_plain"]["gru"]["p"]
    assert pair["p_holm"] == pytest.approx(3 * pair["p"])
    assert "Of 2 comparisons" in summary.findings[0]
    assert "corrected for that of all 3 tests" in summary.findings[0]
    assert "none better and none worse" in summary.findings[0]
    assert summary.findings[-1].endswith("what DSD does differs.")
    (row,) = summary.tables[1].rows
    assert row[:2] == ["gru - other", pytest.approx(0.197, abs=1e-3)]
    assert len(both.summarize(found).tables) == 1
    assert contrasted.listed == ("seeds", "contrasts")


def test_a_contrast_of_networks_that_there_are_not_is_refused(tmp_path: Path) -> None:
    from compiler.experiments import load

    recipe = tmp_path / "dsd.toml"
    text = (RECIPES / "small" / "dsd.toml").read_text()
    recipe.write_text(f'contrasts = [{{ first = "GRU, 10 epochs", second = "nothing" }}]\n{text}')
    with pytest.raises(RecipeError, match=r"contrasts\[0\]\.second"):
        load(recipe)


def test_holms_correction_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_recipe_on_optimizers_compares_the_same_network_by_both() -> None:
    from compiler.experiments import load

    found = load(RECIPES / "dsd-optimizers.toml")
    assert isinstance(found, DenseSparseDense)
    adamw, sgd = found.networks
    assert (adamw.model, adamw.samples, adamw.dense.epochs) == (sgd.model, sgd.samples, sgd.dense.epochs)
    assert (adamw.dense.optimizer, sgd.dense.optimizer) == ("adamw", "sgd")
    assert found.contrasts == ((sgd.name, adamw.name),)


@pytest.mark.parametrize("path", [RECIPES / "dsd.toml", RECIPES / "small" / "dsd.toml"], ids=["full", "small"])
def test_shipped_recipes(path: Path) -> None:
    from compiler.experiments import load

    found = load(path)
    assert isinstance(found, DenseSparseDense)
    models = {network.model.name for network in found.networks}
    assert {"gru", "lstm"} < models
    assert len({trial.key for trial in found.trials()}) == len(found.networks) * len(found.seeds)
    assert all(network.dense.shape == "constant" for network in found.networks)


@pytest.mark.verifies("reports-correct-for-all-their-tests")
def test_a_family_of_comparisons_is_corrected_together_and_says_what_shows() -> None:
    sure = ([3.0, 3.1, 3.2, 2.9], [1.0, 1.0, 1.1, 1.0])
    unsure = ([1.0, 2.0, 3.0, 2.5], [1.1, 1.7, 3.3, 2.2])
    family = Family.of({"a": sure, "b": (sure[1], sure[0]), "c": unsure, "one seed": ([1.0], [2.0])})
    assert list(family.pairs) == ["a", "b", "c"]
    assert family.split() == (["b"], ["a"])
    plain = [Paired.of(*each).p for each in (sure, (sure[1], sure[0]), unsure)]
    assert [each["p_holm"] for each in family.asdict().values()] == pytest.approx(holm(plain))
    assert family.asdict()["a"]["p_holm"] == pytest.approx(3 * plain[0])
    assert family.finding() == (
        "Of 3 paired comparisons, p below 0.05 after Holm's correction for their number: below zero: b; above zero: a. "
        "1 show no difference, which is not the same as none; with 4 seeds only large differences can show."
    )
    assert len(family.table("points").rows) == 3
    assert family.tables("points") == [family.table("points")]
    one = Family.of({"one seed": ([1.0], [2.0])})
    assert one.finding() == "One seed: no difference can be tested."
    assert one.tables("points") == []
