"""TernGrad for any module: the last layer is the one used last, frozen parameters, and the stage of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compiler.errors import ModelError, RecipeError
from compiler.train import prune, recipe
from compiler.train.data import load
from compiler.train.images import Images
from compiler.train.loop import fit, reproducible, seed_of
from compiler.train.progress import fresh
from compiler.train.run import train_recipe
from compiler.train.terngrad.averaging import Clock
from compiler.train.terngrad.channel import Local
from compiler.train.terngrad.exchange import Exchange
from compiler.train.terngrad.optimizer import ternarized
from compiler.train.terngrad.settings import Settings
from compiler.train.terngrad.virtual import VirtualWorkers


class Backwards(nn.Module):
    """Registers its layers in another order than it uses them, and a matrix of its own besides."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(24, 20)
        self.body = nn.Linear(20, 24)
        self.positions = nn.Parameter(torch.zeros(20, 20))
        self.spare = nn.Linear(20, 20)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x + x @ self.positions)))


def step(module: nn.Module, rows: int = 8) -> None:
    nn.functional.cross_entropy(module(torch.randn(rows, 20)), torch.arange(rows)).backward()


@pytest.mark.verifies("terngrad-module-layer-used-last")
@pytest.mark.parametrize("masked", [False, True])
def test_the_last_layer_is_the_one_used_last(masked: bool) -> None:
    module = Backwards()
    if masked:
        prune.prune(module, 0.5, "head")
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    exchange, handle = ternarized(optimizer, module, Settings(smallest=0))
    assert not exchange.plan.ternary["spare.weight"]  # as far as is known before the first step
    step(module)
    optimizer.step()
    head = "head.parametrizations.weight.original" if masked else "head.weight"
    floats = [name for name, yes in exchange.plan.ternary.items() if not yes]
    assert sorted(floats) == sorted([head, "head.bias"])
    handle.remove()


@pytest.mark.verifies("terngrad-module-layer-used-last")
def test_a_parameter_that_is_unfrozen_later_is_averaged() -> None:
    module = Backwards()
    module.body.weight.requires_grad_(False)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    exchange, _ = ternarized(optimizer, module, Settings(smallest=0))
    step(module)
    optimizer.step()
    body = module.body.weight
    assert body.grad is None
    body.requires_grad_(True)
    optimizer.zero_grad()
    step(module)
    optimizer.step()
    assert body.grad is not None
    assert len(body.grad.abs().unique()) == 2
    workers = VirtualWorkers(module, Settings(smallest=0), 2)
    assert workers.exchange.numbers([module.spare.weight]) == [5]
    module.spare = nn.Linear(20, 20)
    with pytest.raises(ModelError, match=r"shape \(20, 20\) were not in the module when the exchange was made"):
        exchange.numbers([module.spare.weight])


def test_frozen_parameters_do_not_change_the_numbers_of_others() -> None:
    plain, frozen = Backwards(), Backwards()
    frozen.positions.requires_grad_(False)
    exchanges = [Exchange(module, Settings(smallest=0), Local(1)) for module in (plain, frozen)]
    assert [each.numbers([m.head.bias]) for each, m in zip(exchanges, (plain, frozen), strict=True)] == [[2], [2]]
    with pytest.raises(RecipeError, match="no tensor would be ternary"):
        Exchange(plain, Settings(smallest=10_000), Local(1))


def parsed(**stage: Any) -> recipe.Recipe:
    content = {
        "name": "ternary",
        "seed": 5,
        "data": {"name": "digits", "validation": 0.2, "samples": 400},
        "model": {"name": "mlp", "hidden": [24]},
        "stages": [
            {"kind": "terngrad", "epochs": 3, "learning_rate": 0.01, "batch": 40, "workers": 4, **stage},
            {"kind": "prune", "epochs": 1, "learning_rate": 0.01, "density": 0.5},
        ],
    }
    return recipe.parse(content, "ternary.toml")


@pytest.mark.verifies("terngrad-module-layer-used-last")
def test_a_stage_trains_as_virtual_workers(tmp_path: Path) -> None:
    found = parsed(gradients={"clip": 2.0, "smallest": 100})
    assert recipe.parse(found.asdict(), "again") == found
    report = train_recipe(found, tmp_path / "run")
    assert report["stages"][0]["ternary"] == ["fc1.weight"]
    assert report["stages"][0]["accuracy"]["test"] > 0.2
    dataset = load("digits", 0.2, None, 400)
    module, stage = fresh(found.model, dataset, 5), found.stages[0]
    workers = VirtualWorkers(module, Settings(2.0, 100, seed=seed_of(5, 0)), 4)
    lesson = Images(dataset.train, dataset.shape)
    losses: list[float] = []
    with reproducible(threads=1):  # as the recipe has it
        fit(
            module, lesson, stage.schedule, (5, 0), hooks=[Clock(workers.exchange, lesson.steps(40))],
            after_epoch=lambda epoch: losses.append(epoch.loss), backward=workers,
        )  # fmt: skip
    assert [epoch["loss"] for epoch in report["stages"][0]["history"]] == losses


@pytest.mark.verifies("terngrad-module-layer-used-last")
def test_an_interrupted_stage_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(stage: str, done: int, total: int, text: str) -> None:
        if (stage, done) == ("terngrad", 2):
            raise Stopped

    train_recipe(parsed(), tmp_path / "unbroken")
    with pytest.raises(Stopped):
        train_recipe(parsed(), tmp_path / "run", progress=stop)
    report = train_recipe(parsed(), tmp_path / "run", resume=True)
    assert (tmp_path / "run/model.safetensors").read_bytes() == (tmp_path / "unbroken/model.safetensors").read_bytes()
    assert report["stages"][0]["ternary"] == ["fc1.weight"]


def test_stages_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"stages\[0\].gradients.clip is -1"):
        parsed(gradients={"clip": -1})
    with pytest.raises(RecipeError, match=r"unknown key stages\[0\].gradients.seed"):
        parsed(gradients={"seed": 1})
    with pytest.raises(RecipeError, match="320 samples in batches of 300 leave 20 in the last one, fewer than the 32"):
        train_recipe(parsed(batch=300, workers=32), tmp_path / "run")
