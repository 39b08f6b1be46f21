<<<<<<< HEAD
"""AMC on the array: the limit in cycles of the exact model, held by the whole network; policies on all arrays."""
=======
"""AMC on the array: the limit in cycles of the exact model, held by the whole network; each policy on all arrays."""
>>>>>>> search

from __future__ import annotations

from pathlib import Path

import pytest

from compiler.errors import RecipeError
from compiler.experiments import load
from compiler.experiments.base import Env
from sim.search.amc import Amc
from sim.search.kinds import KINDS

torch = pytest.importorskip("torch")

RECIPE = """
kind = "amc"
seeds = [1, 2]
arrays = ["BALANCED_2", "BALANCED_8"]
shares = [0.2, 0.5, 0.9]
uniform = 0.5
evaluations = 6
judged = 40
agents = ["uniform", "random"]
finetune = { epochs = 1, batch = 50, learning_rate = 1e-3 }

[[networks]]
name = "tiny"
data = "digits"
samples = 200
validation = 0.25
model = { name = "mlp", hidden = [12] }
dense = { epochs = 2, batch = 50, learning_rate = 1e-2 }
"""


@pytest.mark.verifies("policy-amc")
def test_amc_end_to_end_small(tmp_path: Path) -> None:
    path = tmp_path / "amc.toml"
    path.write_text(RECIPE)
    experiment = load(path, KINDS)
    assert isinstance(experiment, Amc)
    result = experiment.run(experiment.trials()[0], Env(None, lambda word: None))
    assert [row["array"] for row in result["rows"]] == ["BALANCED_2"] * 2 + ["BALANCED_8"] * 2
    for row in result["rows"]:
        costs = row["costs"]
        assert costs["cycles"] == costs[f"cycles {row['array']}"] <= costs["limit"]
        assert row["cost"] <= row["budget"]
        assert costs["cycles BALANCED_8"] < costs["cycles BALANCED_2"]
        if row["agent"] == "uniform":
            assert row["levels"] == [0.5, 0.5]
            assert costs["cycles"] == costs["limit"]
    results = {"tiny.1": result, "tiny.2": result}
    assert experiment.summarize(results).findings[0] == "The limit held in all 8 searches."
    result["rows"][1]["costs"]["limit"] = 1.0  # planted
    assert "was broken by tiny.1 random" in experiment.summarize(results).findings[0]


@pytest.mark.verifies("policy-amc")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("uniform = 0.5", "uniform = 0.4", "uniform is 0.4; expected one of two or more shares"),
        ("BALANCED_8", "BALANCED_7", "expected some of BALANCED_1"),
    ],
)
def test_recipes_that_are_wrong_are_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "amc.toml"
    path.write_text(RECIPE.replace(old, new))
    with pytest.raises(RecipeError) as caught:
        load(path, KINDS)
    assert said in str(caught.value)
