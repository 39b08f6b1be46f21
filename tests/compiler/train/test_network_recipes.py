"""Recipes of whole networks: densities, shared values, what both cost, and what the compiler makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compiler.errors import RecipeError
from compiler.lower.pipeline import lower
from compiler.source import fit, load
from compiler.train import models, recipe, stages
from compiler.train.layers import weights
from compiler.train.run import LoadedRun, load_run, train_recipe
from hw.params import Params
from sim.network import run_network

NETWORKS = Path(__file__).parents[3] / "recipes" / "networks"
SMALL = sorted(path.stem for path in (NETWORKS / "small").glob("*.toml"))

VALUES = 15
"""Of codes of 4 bits, beside zero."""

LOSS = 0.005
"""Of accuracy: one of the 359 digits, 17 of the 3,581 letters."""


def short(name: str) -> recipe.Recipe:
    """The recipe with one epoch a stage, on few samples."""
    table = recipe.load(NETWORKS / "small" / f"{name}.toml").asdict()
    table["data"]["samples"] = 250
    for stage in table["stages"]:
        stage |= {"epochs": 1} if "epochs" in stage else {}
    return recipe.parse(table, name)


def check_weights(run: LoadedRun) -> None:
    """Every layer has few values, and as many weights as its recipe says."""
    pruned = next(stage for stage in run.recipe.stages if isinstance(stage, recipe.Prune))
    sites = {site.key: site.value.detach() for site in weights(run.module)}
    counts = {key: int((value != 0).sum()) for key, value in sites.items()}
    for key, value in sites.items():
        assert len(torch.unique(value[value != 0])) <= VALUES, key
    chosen = {site.key for site in weights(run.module, pruned.only or None, pruned.ignore)}
    if pruned.scope == "global":
        every = sum(sites[key].numel() for key in chosen)
        assert sum(counts[key] for key in chosen) == round(pruned.density * every)  # type: ignore[operator]
    for key, value in sites.items():
        if key not in chosen:
            assert counts[key] == value.numel(), key
        elif pruned.scope == "layer":
            density = pruned.density[key] if not isinstance(pruned.density, float | str) else pruned.density
            assert counts[key] == round(density * value.numel()), key  # type: ignore[arg-type, operator]
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in run.module.modules())


def check_compiled(folder: Path, samples: int | None = None) -> float:
    """No layer's values were shared anew; accuracy of the golden model on the test set, or the first samples of it."""
    run, source = load_run(folder), load(str(folder))
    assert source.calibration is not None
    few = [array[:128] for array in source.calibration]
    network, reports = lower(source.graph, Params(pes=16, code_bits=4), few)
    assert [report.name for report in reports if report.clustered] == []
    test = run.test.take(slice(samples))
    return float(np.mean(run_network(network, fit(source.graph, (test.inputs,))[0]).value.argmax(-1) == test.labels))


@pytest.mark.verifies("recipes-whole-networks-densities-fifteen")
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "resnet-20" else n for n in SMALL])
def test_what_a_recipe_leaves(name: str, tmp_path: Path) -> None:
    train_recipe(short(name), tmp_path)
    check_weights(load_run(tmp_path))
    check_compiled(tmp_path, 4)


@pytest.mark.verifies("planted-faults-recipe-without-fold")
def test_planted_fault_a_recipe_without_fold_is_caught(tmp_path: Path) -> None:
    table = short("ds-cnn").asdict()
    table["stages"] = [stage for stage in table["stages"] if stage["kind"] != "fold"]
    train_recipe(recipe.parse(table, "no fold"), tmp_path)
    with pytest.raises(AssertionError):
        check_compiled(tmp_path, 1)


@pytest.mark.verifies("planted-faults-recipe-without-fold")
def test_planted_fault_a_density_that_is_missed_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages.prune, "density_at", lambda *_: 0.6)
    train_recipe(short("lenet-5"), tmp_path)
    with pytest.raises(AssertionError):
        check_weights(load_run(tmp_path))


@pytest.mark.verifies("recipes-whole-networks-densities-fifteen")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet-8", "lstm"])
def test_accuracy_survives_pruning_sharing_and_integers(name: str, tmp_path: Path) -> None:
    report = train_recipe(NETWORKS / "small" / f"{name}.toml", tmp_path)
    accuracy = {stage["stage"]: stage["accuracy"]["test"] for stage in report["stages"]}
    assert accuracy["dense"] > (0.97 if name == "resnet-8" else 0.25)
    assert accuracy["share"] > accuracy["dense"] - LOSS
    assert abs(check_compiled(tmp_path) - accuracy["share"]) < 0.005


@pytest.mark.parametrize("name", SMALL)
def test_small_and_large_have_the_same_stages(name: str) -> None:
    small, large = (recipe.load(NETWORKS / part / f"{name}.toml") for part in ("small", "."))
    assert [stage.kind for stage in small.stages] == [stage.kind for stage in large.stages]
    assert small.model.name == large.model.name


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("resnet", {"widths": (16, 32, 64), "blocks": 1, "stride": 1}, 77_754),
        ("resnet", {"widths": (16, 32, 64), "blocks": 3, "stride": 1}, 272_186),
        ("ds-cnn", {"width": 64, "blocks": 4, "stride": 2}, 21_066),
        ("lenet-5", {}, 431_080),
    ],
)
def test_sizes_of_the_networks(name: str, options: dict[str, Any], parameters: int) -> None:
    module = models.build(models.ModelSpec(name, options), (1, 28, 28), 10)
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters
    assert module(torch.rand(2, 784)).shape == (2, 10)


@pytest.mark.parametrize(("shape", "padding"), [((1, 15, 16), 0), ((1, 9, 9), 1), ((1, 3, 4), 2), ((1, 8, 8), 3)])
def test_images_that_lenet_5_does_not_take(shape: tuple[int, ...], padding: int) -> None:
    with pytest.raises(RecipeError, match="lenet-5 takes images"):
        models.lenet_5(shape, 10, (2, 3), 4, padding)


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_the_smallest_images_that_lenet_5_takes(padding: int) -> None:
    side = (16, 10, 4)[padding]
    assert models.lenet_5((1, side, side), 10, (2, 3), 4, padding)(torch.rand(2, side * side)).shape == (2, 10)
