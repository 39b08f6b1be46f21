"""AMC on the array: the limit in cycles of the exact model, held by the whole network; each policy on all arrays."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler.errors import RecipeError
from compiler.experiments import load
from compiler.experiments.base import Env
from compiler.experiments.subject import NetworkSpec, Subject
from compiler.train.layers import weights
from compiler.train.models import ModelSpec
from compiler.train.schedule import Schedule
from sim.search.amc import Amc
from sim.search.kinds import KINDS
from sim.search.measured import Measured
from sim.search.policies import by_channels, by_weights

torch = pytest.importorskip("torch")

RECIPE = """
kind = "amc"
seeds = [1, 2]
arrays = ["BALANCED_2", "BALANCED_8"]
shares = [0.2, 0.5, 0.9]
uniform = { weights = 0.5, channels = 0.5 }
evaluations = 6
judged = 40
agents = ["uniform", "random"]
finetune = { epochs = 1, batch = 50, learning_rate = 1e-3 }

[[networks]]
name = "tiny"
data = "digits"
samples = 200
validation = 0.25
model = { name = "mlp", hidden = [24] }
dense = { epochs = 2, batch = 50, learning_rate = 1e-2 }
"""


@pytest.mark.verifies("policy-amc")
def test_amc_end_to_end_small(tmp_path: Path) -> None:
    path = tmp_path / "amc.toml"
    path.write_text(RECIPE)
    experiment = load(path, KINDS)
    assert isinstance(experiment, Amc)
    result = experiment.run(experiment.trials()[0], Env(None, lambda word: None))
    assert [row["array"] for row in result["rows"]] == (["BALANCED_2"] * 2 + ["BALANCED_8"] * 2) * 2
    assert [row["removed"] for row in result["rows"]] == ["weights"] * 4 + ["channels"] * 4
    for row in result["rows"]:
        costs = row["costs"]
        assert costs["cycles"] == costs[f"cycles {row['array']}"] <= costs["limit"]
        assert row["cost"] <= row["budget"]
        assert costs["cycles BALANCED_8"] < costs["cycles BALANCED_2"]
        if row["agent"] == "uniform":
            assert row["levels"] == ([0.5, 0.5] if row["removed"] == "weights" else [16 / 24])
            assert costs["cycles"] == costs["limit"]
    results = {"tiny.1": result, "tiny.2": result}
    assert experiment.summarize(results).findings[0] == "The limit held in all 16 searches."
    result["rows"][1]["costs"]["limit"] = 1.0  # planted
    assert "was broken by tiny.1 random" in experiment.summarize(results).findings[0]


@pytest.mark.verifies("policy-amc")
def test_what_is_added_in_one_block_has_one_level_and_channels_cost_both_their_ends(seed: int) -> None:
    """A residual network, whose blocks are not called as its weights are."""
    spec = NetworkSpec("x", "digits", 120, "float32", ModelSpec("resnet", {"widths": (8, 16)}), Schedule(1, 50, 1e-2))
    subject = Subject.make(spec, seed, Env(None, lambda word: None))
    subject.train(subject.module, spec.dense, 0)
    measured = Measured.on("BALANCED_4", subject, 1)
    keys = [site.key for site in weights(subject.module)]
    problem, variants = by_weights(measured, (0.3, 0.8), 0, subject.dataset.validation)
    together = [{keys[n] for n in group} for group in variants.groups]
    assert {"block2.conv2", "block2.shortcut.conv"} in together
    assert len(problem) == len(together) == len(keys) - 1
    for n, group in enumerate(variants.groups):
        levels = variants.named(tuple(int(k == n) for k in range(len(problem))))
        assert [k for k, share in enumerate(levels) if share == 0.8] == sorted(group)
    assert problem.budget == problem.cost((0,) * len(problem)) < problem.cost(problem.top)
    shares = (0.5, 0.95)
    few, smaller = by_channels(measured, shares, 0, subject.dataset.validation)
    assert few.cost((0,) * len(few)) == pytest.approx(sum(measured.blocks(smaller.found((0,) * len(few))).values()))
    inner = smaller.roots.index("block2.conv1")
    saved = few.cost(few.top) - few.cost([1 if n != inner else 0 for n in range(len(few))])
    made = few.costs[inner][1] - few.costs[inner][0]
    assert saved > made > 0  # the layer behind takes fewer as well; planted: a table of the makers alone would not say


@pytest.mark.verifies("policy-amc")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("weights = 0.5", "weights = 0.4", "expected weights or channels, each with one of two or more shares"),
        ("BALANCED_8", "BALANCED_7", "expected some of BALANCED_1"),
    ],
)
def test_recipes_that_are_wrong_are_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "amc.toml"
    path.write_text(RECIPE.replace(old, new))
    with pytest.raises(RecipeError) as caught:
        load(path, KINDS)
    assert said in str(caught.value)
