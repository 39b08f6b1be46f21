"""What the experiments on ternary gradients conclude from results that are known."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from compiler.errors import RecipeError
from compiler.experiments import load
from compiler.experiments.base import Env
from compiler.experiments.terngrad import TernGrad
from compiler.experiments.terngrad_speed import TernGradSpeed
from compiler.experiments.terngrad_traffic import TernGradTraffic
from compiler.experiments.terngrad_workload import Workload
from compiler.train.terngrad.bytes import cheapest, float_bits, gather_bits, push_bits, sums_bits
from compiler.train.terngrad.cost import Cost

RECIPES = Path(__file__).parents[3] / "recipes" / "experiments"


def shipped(name: str) -> Any:
    return load(RECIPES / f"{name}.toml")


@pytest.mark.parametrize("name", ["terngrad", "terngrad-traffic", "terngrad-speed"])
@pytest.mark.parametrize("folder", ["", "small/"])
def test_shipped_recipes_load_and_their_trials_have_different_keys(name: str, folder: str) -> None:
    trials = shipped(folder + name).trials()
    assert len({trial.key for trial in trials}) == len(trials) > 0


def test_convergence_is_compared_seed_by_seed() -> None:
    experiment: TernGrad = shipped("small/terngrad")
    float_errors, lost = {1: 3.0, 2: 5.0}, {1: {1: 0.5, 2: -0.5}, 4: {1: 1.2, 2: 0.2}}
    results = {}
    for trial in experiment.trials():
        seed, workers = trial.options["seed"], trial.options["workers"]
        error = float_errors[seed] + (lost[workers][seed] if workers > 0 else 0)
        history = [{"epoch": 1, "loss": 1.0, "validation": error}]
        results[trial.key] = {"history": history, "test": error, "validation": error}
        if workers < 0:
            results[trial.key] = {"elements": 9, "p_square": 0.5, "largest": 1.0, "p_largest": 0.9}
    summary = experiment.summarize(results)
    assert summary.findings[0].startswith("mlp-digits: ternary gradients lose at worst +1.20 points")
    assert "(more than 1.0)" in summary.findings[0]
    assert "at most +0.70 (more than 0.3)" in summary.findings[0]
    assert "no sign of a bias" in summary.findings[1]
    key = next(trial.key for trial in experiment.trials() if trial.options["workers"] < 0)
    biased = experiment.summarize({**results, key: {**results[key], "p_largest": 1e-9}})
    assert "is a sign of a bias" in biased.findings[1]


def test_the_draws_of_a_real_gradient_are_unbiased_and_a_bias_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment: TernGrad = shipped("small/terngrad")
    trial = next(trial for trial in experiment.trials() if trial.options["workers"] < 0)
    env = Env(None, lambda text: None)
    fair = experiment.run(trial, env)
    assert fair["elements"] > 1000
    assert min(fair["p_square"], fair["p_largest"]) > 1e-6
    from compiler.experiments import terngrad

    unfair = terngrad.ternarize
    monkeypatch.setattr(terngrad, "ternarize", lambda g, s, random: unfair(g * 1.2, s, random))
    assert min(experiment.run(trial, env)["p_square"], experiment.run(trial, env)["p_largest"]) < 1e-6


def traffic_by_formula(experiment: TernGradTraffic, headers: float) -> dict[str, dict[str, Any]]:
    results = {}
    for trial in experiment.trials():
        n = trial.options["workers"]
        bits = {
            "float": float_bits(n), "fp16": float_bits(n, 16), "powersgd": 0.1, "gather": gather_bits(n) * headers,
            "sums": sums_bits(n) * headers, "push-float": push_bits(n, 32), "push-ternary": push_bits(n) * headers,
        }  # fmt: skip
        results[trial.key] = {"way": "namespaces", "missing": "", "values": 8000, "bytes": bits}
    return results


def test_traffic_is_compared_with_the_formulae() -> None:
    experiment: TernGradTraffic = shipped("terngrad-traffic")
    good = experiment.summarize(traffic_by_formula(experiment, 1.05)).findings
    assert "15.2 times fewer" in good[0]
    assert "reached" in good[0]
    assert "95.2% of its formula" in good[1]
    assert "is the one that sent fewer" in good[2]
    bad = experiment.summarize(traffic_by_formula(experiment, 1.2)).findings
    assert "missed" in bad[0]
    assert "missed" in bad[1]


@pytest.mark.verifies("machine-cannot-measure-skipped-reason")
def test_what_cannot_be_measured_is_skipped_in_so_many_words() -> None:
    for name in ("terngrad-traffic", "terngrad-speed"):
        experiment = shipped(name)
        results: dict[str, Any] = {trial.key: {"skipped": "no right to"} for trial in experiment.trials()}
        if name == "terngrad-speed":
            results["compute"] = {network: 0.1 for network in experiment.networks}
        summary = experiment.summarize(results)
        assert summary.findings == ["SKIPPED, nothing was measured: no right to."]


def test_speedups_and_the_claim_follow_from_seconds() -> None:
    experiment: TernGradSpeed = shipped("terngrad-speed")
    compute = {name: seconds for name, seconds in zip(experiment.networks, (0.4, 0.1, 0.01), strict=True)}
    networks = {name: Workload.of(options, compute[name]) for name, options in experiment.networks.items()}
    networks["tiny"] = Workload.of(experiment.tiny, 0.0)
    true = Cost((1.05, 1e-3, 1e-4, 1e-9, 2e-8), load=0.7)
    computing = Cost((0.0, 0.0, *true.constants[2:]), load=0.0)
    results: dict[str, Any] = {"compute": compute}
    for n in experiment.workers:
        points = [
            {
                "network": name, "mbit": mbit, "scheme": scheme,
                "seconds": true.seconds(networks[name].exchange(scheme, n, mbit or math.inf), shared=True),
                "cpu_seconds": computing.seconds(networks[name].exchange(scheme, n, mbit or math.inf)),
            }
            for name, mbit, scheme in product(networks, (*experiment.mbits, None), ("float", cheapest(n)))
        ]  # fmt: skip
        results[f"workers-{n}"] = {"points": points, "whole": [2.0, 1.0] * 2 * len(compute)}
    summary = experiment.summarize(results)
    assert summary.figures["model_errors"]["more workers"]["largest"] < 1e-6
    assert [round(value, 12) for value in summary.figures["model"].values()] == [*true.constants, true.load]
    said = {finding.partition(",")[0]: finding for finding in summary.findings[:3]}
    assert "(holds)" in said["Less bandwidth"]
    assert "(holds)" in said["More fully connected layers"]
    assert "does not hold" in said["More machines"]
    shares = summary.figures["fully_connected"]
    assert list(shares.values()) == sorted(shares.values())


def test_wrong_recipes_say_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('kind = "terngrad-traffic"\nworkers = [1]\nnetwork = { channels = 1, layers = 1, hidden = 8 }\n')
    with pytest.raises(RecipeError, match=r"workers is \[1\]"):
        load(path)
