"""The experiments on quantization and on the trade-off: what they compute from results, and a small real run."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from compiler.experiments.base import Env
from compiler.experiments.paired import Paired
from compiler.experiments.quantization import WAYS, Quantization
from compiler.experiments.subject import NetworkSpec
from compiler.experiments.tradeoff import ALONE, BITS_ALONE, BOTH, Tradeoff
from compiler.train.models import ModelSpec
from compiler.train.schedule import Schedule

NETWORK = NetworkSpec("mlp", "digits", 600, "float32", ModelSpec("mlp", {"hidden": (24,)}), Schedule(8, 32, 0.01))
ENV = Env(None, lambda word: None)


def quantization(**changes: Any) -> Quantization:
    settings: dict[str, Any] = {
        "seeds": (1, 2, 3),
        "bits": (1, 6),
        "finetune": Schedule(1, 32, 1e-3),
        "networks": (NETWORK,),
    }
    return Quantization(name="q", **{**settings, **changes})


@pytest.mark.verifies("quantizers-ways-network-repeatable-more")
def test_quantization_starts_all_ways_from_one_network_and_more_bits_lose_less() -> None:
    experiment = quantization(seeds=(1,))
    (trial,) = experiment.trials()
    result = experiment.run(trial, ENV)
    assert len(result["ways"]) == 2 * len(WAYS)
    for grid, update in WAYS:
        rough, fine = (result["ways"][f"{bits} {grid} {update}"] for bits in (1, 6))
        assert fine["test"] < rough["test"]
        assert fine["validation_before"] <= result["dense"]["validation"] + 5
    # Before training, the kind of labels makes no difference.
    for grid in ("uniform", "non-uniform"):
        one, other = (result["ways"][f"1 {grid} {update}"]["validation_before"] for update in ("-c", "-c+1"))
        assert one == other
    assert experiment.run(trial, ENV) == result


def made(uniform: float, free: float) -> dict[str, dict[str, Any]]:
    """Results in which uniform levels add `uniform` points and free labels `free`, on top of the seed."""
    return {
        f"mlp.{seed}": {
            "dense": {"validation": 1.0, "test": 1.0 + seed},
            "ways": {
                f"{bits} {grid} {update}": {
                    "validation_before": 5.0,
                    "validation": 1.0,
                    "test": 2.0 + seed + 0.01 * seed * (grid == "uniform")
                    + uniform * (grid == "uniform") + free * (update == "-c+1"),
                }
                for bits in (1, 6)
                for grid, update in WAYS
            },
        }
        for seed in (1, 2, 3)
    }  # fmt: skip


@pytest.mark.verifies("words-thesis-ordering-follow-numbers")
@pytest.mark.parametrize(("uniform", "words"), [(0.5, "holds here"), (-0.5, "does not hold here"), (0.0, "uniform")])
def test_the_words_on_the_ordering_follow_from_the_numbers(uniform: float, words: str) -> None:
    summary = quantization().summarize(made(uniform, -0.25))
    ordering, labels = summary.findings
    assert words in ordering
    assert "holds here" in labels
    expected = uniform + 0.02
    assert summary.figures["uniform_minus_non_uniform"]["6 -c"]["mean"] == pytest.approx(expected)
    assert summary.figures["c_minus_c1"]["1 uniform"]["mean"] == pytest.approx(0.25)
    assert summary.tables[0].rows[0] == [1, 4.0, 3.75, round(4.02 + uniform, 3), round(3.77 + uniform, 3)]


@pytest.mark.verifies("paired-differences-scipy-s")
def test_a_paired_difference_is_that_of_the_library(rng: np.random.Generator) -> None:
    one, other = rng.normal(1.0, 1.0, 12), rng.normal(0.0, 1.0, 12)
    paired = Paired.of(list(one), list(other))
    test = stats.ttest_rel(one, other)
    assert paired.p == pytest.approx(test.pvalue)
    assert (paired.low, paired.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert paired.mean == pytest.approx((one - other).mean())
    assert Paired.of([1.0, 2.0], [1.0, 2.0]).p == 1.0
    with pytest.raises(ValueError, match="expected the same number"):
        Paired.of([1.0], [1.0])


@pytest.mark.verifies("trade-off-files-point-best")
def test_tradeoff_measures_files_and_finds_the_best_point_by_validation() -> None:
    experiment = Tradeoff(
        name="t", seeds=(1,), networks=(NETWORK,), densities=(0.5, 0.1), bits=(4,), both_bits=(4,),
        prune=Schedule(2, 32, 0.01), share=Schedule(1, 32, 1e-3),
    )  # fmt: skip
    (trial,) = experiment.trials()
    result = experiment.run(trial, ENV)
    assert result["dense_bytes"] == 4 * (64 * 24 + 24 + 24 * 10 + 10)
    by_way: dict[str, list[dict[str, Any]]] = {}
    for point in result["points"]:
        by_way.setdefault(point["way"], []).append(point)
    assert [len(by_way[way]) for way in (BITS_ALONE, ALONE, BOTH)] == [1, 2, 2]
    sizes = [min(point["bytes"].values()) for point in (*by_way[ALONE], *by_way[BOTH])]
    assert sizes[1] < sizes[0] < result["dense_bytes"]
    # Pruning and sharing each make the file smaller, and both together more than either.
    assert sizes[2] < sizes[0]
    assert sizes[3] < min(sizes[1], min(by_way[BITS_ALONE][0]["bytes"].values()))
    # The best point is chosen by validation alone.
    result["dense"]["validation"] = 50.0
    for point in result["points"]:
        point["validation"] = 60.0
    result["points"][1]["validation"], result["points"][1]["test"] = 40.0, 99.0
    summary = experiment.summarize({"mlp.1": result})
    best = summary.figures["mlp"]["no_loss"]
    assert best[ALONE]["test"] == 99.0
    assert best[BITS_ALONE] is None
    assert best[BOTH] is None
    assert "quantization nowhere" in summary.findings[0]
    # Against the dense network of the same seed, with the interval and Holm's correction of every report.
    other = copy.deepcopy(result)
    other["points"][1]["test"] = 98.0
    summary = replace(experiment, seeds=(1, 2)).summarize({"mlp.1": result, "mlp.2": other})
    ((name, pair),) = summary.figures["test_error_differences"].items()
    assert name.startswith(f"mlp, {ALONE} at ")
    assert name.endswith("x - dense")
    assert pair["mean"] == pytest.approx(98.5 - result["dense"]["test"])
    assert summary.findings[-1].startswith("Of 1 paired comparisons")
