"""What the experiments on few bits and on overlap conclude from results that are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from compiler.errors import RecipeError
from compiler.experiments import few_bits, load, overlap
from compiler.experiments.base import Env
from compiler.experiments.few_bits import Arm, FewBits
from compiler.experiments.overlap import Overlap
from compiler.train.table import Table
from compiler.train.terngrad.hosts import NAMESPACES, Way
from compiler.train.terngrad.job import parse

RECIPES = Path(__file__).parents[3] / "recipes" / "experiments"


@pytest.mark.parametrize(
    "name", ["few-bits", "few-bits-long", "few-bits-others", "overlap", "small/few-bits", "small/overlap"]
)
def test_shipped_recipes_load_and_their_trials_have_different_keys(name: str) -> None:
    trials = load(RECIPES / f"{name}.toml").trials()
    assert len({trial.key for trial in trials}) == len(trials) > 0


def run_as(experiment: FewBits, seed: int, monkeypatch: pytest.MonkeyPatch, lost: float) -> dict[str, Any]:
    """A trial whose workers say: 4000 bytes a step of float32, 200 of the others; the second rate is the best."""

    def workers(module: str, plan: Any, count: int, way: Way, seconds: float) -> list[dict[str, Any]]:
        results = []
        for one in plan["trainings"]:
            job = parse(one["job"], "plan")
            arm = next(each for each in experiment.arms if job.name.endswith(f"-{each.name}"))
            place = arm.rates.index(job.schedule.learning_rate)
            steps = 24 // arm.times
            plain = arm.name == "float32"
            error = 10 + 0.01 * seed + (0 if plain else lost + 0.03 * (seed - 2)) + 5 * (place != 1)
            sent = (4000 if plain else 200) * 24
            results.append({
                "losses": [1.0], "validation": error, "test": error + 1, "values": 1000, "steps": steps, "sent": sent,
                "cpu_seconds": 1.0,
            })  # fmt: skip
            assert (job.seed, one["every"]) == (seed, arm.every)
        return [{"results": results} for _ in range(count)]

    monkeypatch.setattr(few_bits, "ways", lambda: Way(NAMESPACES, True, ""))
    monkeypatch.setattr(few_bits, "run_workers", workers)
    trial = next(trial for trial in experiment.trials() if trial.options["seed"] == seed)
    return experiment.run(trial, Env(None, lambda text: None))


@pytest.mark.verifies("few-bits-conclusions")
@pytest.mark.parametrize(("lost", "verdict"), [(0.4, "reached"), (0.6, "missed")])
def test_few_bits_are_compared_at_each_ones_best_rate(
    lost: float, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = load(RECIPES / "few-bits.toml")
    assert isinstance(experiment, FewBits)
    results = {trial.key: run_as(experiment, trial.options["seed"], monkeypatch, lost) for trial in experiment.trials()}
    summary = experiment.summarize(results)
    network = experiment.networks[0].name
    said = f"sends 20.0 times fewer bytes than float32 and loses {lost:+.2f} points"
    assert said in summary.findings[0]
    assert f"goal at most 0.5: {verdict}" in summary.findings[0]
    assert (
        "sends 1.00 times the bytes of onebit, and has 0.00 points" in summary.findings[1]
    )  # large batches, fewer steps
    assert all(
        rate == arm.rates[1]
        for arm, rate in zip(experiment.arms, summary.figures[network]["rates"].values(), strict=True)
    )
    compared = summary.figures["test_error_differences"]
    assert len(compared) == len(experiment.arms) - 1 + len(experiment.equal)
    assert compared[f"{network}, onebit - float32"]["mean"] == pytest.approx(lost)
    assert not any("at the end of what was tried" in finding for finding in summary.findings)
    rows = {row[0]: row for row in summary.tables[0].rows}
    assert rows["onebit"][6] == pytest.approx(1.6)  # bits a value


@pytest.mark.verifies("few-bits-conclusions")
def test_an_arm_has_a_precision_of_its_own_or_that_of_the_network() -> None:
    experiment = load(RECIPES / "few-bits-others.toml")
    assert isinstance(experiment, FewBits)
    spec, plain = experiment.networks[0], experiment.arms[0]
    for precision, expected in [(None, "float32"), ("bfloat16", "bfloat16"), ("float16", "float16")]:
        arm = dataclasses.replace(plain, precision=precision)
        assert parse(few_bits._job(spec, arm, 0.1, 1), "plan").precision == expected
    table = Table({"name": "bf16-autocast", "precision": "bfloat16", "rates": [0.1]}, "x.toml", "")
    assert Arm.parse(table).precision == "bfloat16"
    with pytest.raises(RecipeError, match="precision"):
        Arm.parse(Table({"name": "x", "precision": "float8", "rates": [0.1]}, "x.toml", ""))


@pytest.mark.verifies("few-bits-conclusions")
def test_a_best_rate_at_the_end_of_its_grid_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = load(RECIPES / "few-bits.toml")
    assert isinstance(experiment, FewBits)
    results = {trial.key: run_as(experiment, trial.options["seed"], monkeypatch, 0.1) for trial in experiment.trials()}
    first = experiment.arms[0]
    for result in results.values():
        result["runs"][first.name][str(first.rates[-1])]["validation"] = 0.0
    findings = experiment.summarize(results).findings
    assert any("at the end of what was tried for float32" in finding for finding in findings)


@pytest.mark.verifies("machine-cannot-measure-skipped-reason")
def test_what_cannot_be_measured_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_bits, "ways", lambda: Way("", False, "no right to"))
    monkeypatch.setattr(overlap, "ways", lambda: Way("loopback", False, "no right to"))
    bits = load(RECIPES / "small/few-bits.toml")
    results = {trial.key: bits.run(trial, Env(None, lambda text: None)) for trial in bits.trials()}
    assert bits.summarize(results).findings == ["SKIPPED, nothing was measured: no right to."]
    hidden = load(RECIPES / "small/overlap.toml")
    results = {trial.key: hidden.run(trial, Env(None, lambda text: None)) for trial in hidden.trials()}
    findings = hidden.summarize(results).findings
    assert findings[0] == "SKIPPED between hosts, nothing was measured: no right to."
    assert "the bound holds in every one" in findings[1]  # the parameter server is simulated anywhere


@pytest.mark.verifies("overlap-conclusions")
@pytest.mark.parametrize(("step", "verdicts"), [(1.3, ["reached", "reached"]), (1.34, ["missed", "reached"])])
def test_hidden_shares_are_judged_at_the_chosen_buckets(step: float, verdicts: list[str]) -> None:
    experiment = load(RECIPES / "overlap.toml")
    assert isinstance(experiment, Overlap)
    rounds, sizes = experiment.rounds, len(experiment.buckets)
    measured = {
        "compute": [1.2] * rounds, "alone": [[0.4] * rounds] * sizes, "values": 5, "chosen": 0.25,
        "step": [[1.6] * rounds] * (sizes - 1) + [[step] * rounds],  # the last size is chosen; the others hide nothing
    }  # fmt: skip
    served = {"seconds": 10.0, "steps": 5, "reads": 7, "worst_lag": 1, "mean_lag": 0.5, "test": 4.0, "validation": 4.0}
    results: dict[str, Any] = {}
    for trial in experiment.trials():
        if trial.options["hosts"]:
            results[trial.key] = {str(pace): measured for pace in experiment.paces}
            continue
        results[trial.key] = {
            overlap._key(bound, latency, ahead): {
                **served,
                "seconds": 10 + latency * (10 if not ahead else 1),
                "test": 4.0 + (2 + 0.1 * trial.options["seed"]) * (ahead and bound == 3),
            }
            for bound in experiment.bounds
            for latency in (0.0, *experiment.latencies)
            for ahead in (False, True)
        }
    summary = experiment.summarize(results)
    goals = [finding for finding in summary.findings if "goal" in finding]
    wanted = [verdict for verdict in verdicts for _ in experiment.paces]  # by number of hosts
    assert [verdict in finding for verdict, finding in zip(wanted, goals, strict=True)] == [True] * len(wanted)
    assert "buckets of 0.25 MiB" in goals[0]
    assert "0.33 times as long" in goals[-1]
    assert [row[6] for row in summary.tables[0].rows[:3]] == pytest.approx([0.0] * 3)
    assert "reads ahead hide 90% of what messages cost" in summary.findings[-2]
    age = summary.tables[-1].rows  # a pair for each bound and latency
    assert [(row[1], row[6]) for row in age] == [(0.0, 10), (0.0, 10), (2.55, 10), (2.55, 10)]
    assert all(f"bound 3, latency {latency:g} s" in summary.findings[-1] for latency in experiment.latencies)
    late = {key: {**one, "worst_lag": 9} for key, one in results["server.mlp-digits.1"].items()}
    assert "DOES NOT HOLD" in experiment.summarize({**results, "server.mlp-digits.1": late}).findings[-2]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("few-bits", 'onebit = "onebit"', 'onebit = "two"', "onebit is 'two'"),
        ("few-bits", "local-sgd", "nothing", "equal names nothing"),
        ("few-bits", "rates = [0.05]", "rates = []", "equally many rates"),
        ("overlap", "hosts = [2]", "hosts = [2, 2]", r"hosts is \[2, 2\]"),
    ],
)
def test_wrong_recipes_say_what_is_wrong(name: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text((RECIPES / "small" / f"{name}.toml").read_text(encoding="utf-8").replace(old, new, 1))
    with pytest.raises(RecipeError, match=message):
        load(path)
