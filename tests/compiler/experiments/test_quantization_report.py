"""The kept report of quantization: its findings follow from its figures, corrected for the number of tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from compiler.experiments import load
from compiler.experiments.quantization import Quantization

ROOT = Path(__file__).parents[3]


@pytest.mark.verifies("quantization-findings-kept-report-hold")
def test_findings_hold_after_correction_for_many_tests() -> None:
    kept = json.loads((ROOT / "docs/results/quantization/report.json").read_text(encoding="utf-8"))
    experiment = load(ROOT / "recipes/experiments/quantization.toml")
    assert isinstance(experiment, Quantization)
    figures = kept["figures"]
    results = {
        f"{network.name}.{seed}": {
            "dense": {"test": figures["dense_test_error"][network.name][number]},
            "ways": {
                key.removeprefix(f"{network.name} "): {"test": errors[number]}
                for key, errors in figures["test_error"].items()
                if key.startswith(f"{network.name} ")
            },
        }
        for network in experiment.networks
        for number, seed in enumerate(experiment.seeds)
    }
    found = experiment.summarize(results)
    assert list(found.findings) == kept["findings"]
    pairs = [*found.figures["uniform_minus_non_uniform"].values(), *found.figures["c_minus_c1"].values()]
    assert sum(pair["p"] < 0.05 for pair in pairs) > sum(pair["p_holm"] < 0.05 for pair in pairs) == 3
    named = " ".join(found.findings).split("No difference")[0]
    assert "4 -c (" not in named  # p is 0.042, and 0.46 among twenty tests
