"""Recipes whose network is the user's own code, ``module:function``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from compiler.errors import EieError, InputError
from compiler.train import recipe
from compiler.train.recipe import Recipe
from compiler.train.run import load_run, train_recipe

SOURCE = """
import torch
from torch import nn

class Images(nn.Module):  # takes (n, 1, 8, 8)
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.out = nn.Linear(4 * 4 * 4, 10)

    def forward(self, x):
        assert x.shape[1:] == (1, 8, 8), x.shape
        return self.out(torch.relu(nn.functional.max_pool2d(self.conv(x), 2)).flatten(1))

def flat():
    return nn.Sequential(nn.Linear(64, 14), nn.ReLU(), nn.Linear(14, 10))

def with_inputs():
    return flat(), torch.zeros(1, 64)

def images():
    return Images()

def fails():
    raise RuntimeError("no such luck")

def number():
    return 3
"""


@pytest.fixture(autouse=True)
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The current folder has own_network.py; what importing it leaves behind is taken away."""
    (tmp_path / "own_network.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_network", None)


def parsed(function: str, **model: Any) -> Recipe:
    return recipe.parse(
        {
            "name": "own",
            "seed": 7,
            "data": {"name": "digits", "validation": 0.2, "samples": 400},
            "model": {"name": f"own_network:{function}", **model},
            "stages": [
                {"kind": "dense", "epochs": 2, "learning_rate": 0.01},
                {"kind": "prune", "epochs": 2, "learning_rate": 0.01, "density": 0.4},
                {"kind": "share", "epochs": 1, "learning_rate": 0.001, "code_bits": 3},
            ],
        },
        "own.toml",
    )


@pytest.mark.verifies("recipes-user-s-own-network")
@pytest.mark.parametrize(("function", "model"), [("flat", {}), ("with_inputs", {}), ("images", {"flat": False})])
def test_an_own_network_is_trained_pruned_and_shared(function: str, model: dict[str, Any], tmp_path: Path) -> None:
    found = parsed(function, **model)
    assert recipe.parse(found.asdict(), "again") == found
    train_recipe(found, tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    layers = report["stages"][-1]["layers"]
    assert [layer["name"] for layer in layers] == (["conv", "out"] if function == "images" else ["0", "2"])
    for layer in layers:
        assert layer["nonzeros"] == round(0.4 * layer["weights"])
        assert layer["distinct"] <= 7
    state = load_file(tmp_path / "run" / "model.safetensors")
    assert sum(int((value != 0).sum()) for name, value in state.items() if name.endswith("weight")) == sum(
        layer["nonzeros"] for layer in layers
    )
    assert report["stages"][-1]["accuracy"]["test"] > 0.2
    # Reading a run back never runs code that its files name.
    with pytest.raises(InputError, match="reading a file runs no code"):
        load_run(tmp_path / "run")


def test_an_own_network_goes_on_after_an_interruption(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(stage: str, done: int, total: int, text: str) -> None:
        if (stage, done) == ("prune", 1):
            raise Stopped

    train_recipe(parsed("flat"), tmp_path / "unbroken")
    with pytest.raises(Stopped):
        train_recipe(parsed("flat"), tmp_path / "run", progress=stop)
    torch.manual_seed(1)
    train_recipe(parsed("flat"), tmp_path / "run", resume=True)
    for name in ("model.safetensors", "model.eiez"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()


def test_reading_a_recipe_runs_no_code() -> None:
    parsed("fails")
    parsed("not_there")
    assert "own_network" not in sys.modules


BAD = {
    "fails": "calling it without arguments failed: RuntimeError: no such luck",
    "number": "returned something of type int; expected a torch.nn.Module",
    "not_there": "own_network:not_there",
}


@pytest.mark.parametrize("function", BAD)
def test_own_code_that_gives_no_network(function: str, tmp_path: Path) -> None:
    with pytest.raises(EieError, match=BAD[function]) as caught:
        train_recipe(parsed(function), tmp_path / "run")
    assert caught.value.exit_code == 2
