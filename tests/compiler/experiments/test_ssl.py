"""The experiment on structured sparsity: what it times computes the same, and its sentences follow from its figures."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from compiler.errors import RecipeError
from compiler.experiments import load
from compiler.experiments.base import Env
from compiler.experiments.sparse_run import FORMS, run_as
from compiler.experiments.ssl import StructuredSparsity
from compiler.train import prune
from compiler.train.layers import make_plain, weights
from compiler.train.models import lenet_5, resnet

ROOT = Path(__file__).parents[3]

TINY = """
kind = "ssl"
seeds = [1]
batches = [1, 8]
repeats = 1
densities = [0.3]

[[networks]]
name = "tiny"
data = "digits"
samples = 240
model = { name = "mlp", hidden = [12] }
dense = { epochs = 2, batch = 16, learning_rate = 1e-2 }

[[methods]]
network = "tiny"
strengths = [0.2]
groups = [{ by = "filter", strength = 1.0, layers = ["fc1"] }]
l1 = 1e-3
lasso = { epochs = 6, batch = 16, learning_rate = 0.1, optimizer = "sgd" }
tune = { epochs = 1, batch = 16, learning_rate = 1e-3 }
"""


@pytest.mark.verifies("experiment-structured-sparsity-equal-sparsity")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["lenet", "resnet"])
@pytest.mark.parametrize("batch", [1, 3])
def test_what_is_timed_computes_the_same(form: str, kind: str, batch: int, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = lenet_5((1, 16, 16), 10, (4, 6), 20) if kind == "lenet" else resnet((1, 16, 16), 10, (4, 6))
        inputs = torch.rand(batch, 256)
    prune.prune_sites(list(weights(module)), 0.3)
    make_plain(module)
    module.eval()
    with torch.inference_mode():
        torch.testing.assert_close(run_as(module, form)(inputs), module(inputs), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[StructuredSparsity, dict[str, Any]]:
    path = tmp_path_factory.mktemp("ssl") / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    experiment = load(path)
    assert isinstance(experiment, StructuredSparsity)
    (trial,) = experiment.trials()
    result = experiment.run(trial, Env(None, lambda text: None))
    return experiment, {trial.key: json.loads(json.dumps(result))}


@pytest.mark.verifies("experiment-structured-sparsity-equal-sparsity")
def test_a_trial_compares_at_equal_sparsity(tiny: tuple[StructuredSparsity, dict[str, Any]]) -> None:
    experiment, results = tiny
    points = results["tiny.1"]["points"]
    left = points["SSL"]["costs"]["nonzeros"]
    assert points["magnitude"]["costs"]["nonzeros"] == left
    assert points["L1"]["costs"]["nonzeros"] <= left
    assert points["SSL"]["costs"]["filters"] < points["dense"]["costs"]["filters"]
    assert points["direct"]["costs"]["weights"] == points["SSL"]["costs"]["weights"]
    summary = experiment.summarize(results)
    assert {"ssl-tiny", "ssl-tiny-time"} == set(summary.plots)
    assert any("magnitude with as many weights" in finding for finding in summary.findings)


def test_sentences_follow_from_the_figures(tiny: tuple[StructuredSparsity, dict[str, Any]]) -> None:
    experiment, results = tiny
    changed = copy.deepcopy(results)
    run = changed["tiny.1"]
    run["points"]["SSL"]["no_loss"] = False
    for times in (run["times"], run["by_density"][0]["times"]):
        for one in times.values():
            one.update({way: 2.0 * one["dense"] for way in one if way != "dense"})
    said = " ".join(experiment.summarize(changed).findings)
    assert "(to one standard error) in 0 of 1 runs" in said
    assert "SSL runs 0.50x as fast as dense" in said
    assert "unstructured sparsity on CPUs, holds here" in said
    for one in run["by_density"][0]["times"].values():
        one["torch-csr"] = one["dense"] / 3
    said = " ".join(experiment.summarize(changed).findings)
    assert "unstructured sparsity on CPUs, does not hold here" in said


@pytest.mark.parametrize("name", ["ssl.toml", "ssl-depth.toml", "small/ssl.toml"])
def test_the_recipes_are_legal(name: str) -> None:
    assert isinstance(load(ROOT / "recipes" / "experiments" / name), StructuredSparsity)


def test_methods_that_do_not_match_the_networks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(TINY.replace('network = "tiny"', 'network = "other"'), encoding="utf-8")
    with pytest.raises(RecipeError, match="every network once"):
        load(path)
