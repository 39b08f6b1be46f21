"""Recipes whose data are made by the user's own code, and networks that are refused before any training."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from compiler.coding.container import decompress
from compiler.errors import EieError, InputError, RecipeError
from compiler.train import recipe
from compiler.train.recipe import Recipe
from compiler.train.run import load_run, train_recipe
from compiler.train.terngrad import job

SOURCE = """
import numpy as np
import torch
from torch import nn

def samples(count, seed, shape=(3, 4)):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    inputs = rng.normal(size=(count, *shape)) * 0.3
    inputs[:, 0, 0] += labels
    inputs[:, 2, 1] -= labels
    return inputs, labels

def data():
    return *samples(300, 1), *samples(90, 2)

def tensors():
    return [torch.from_numpy(each) for each in data()]

def three():
    return data()[:3]

def short():
    inputs, labels, *rest = data()
    return inputs, labels[1:], *rest

def named():
    inputs, labels, *rest = data()
    return inputs, labels.astype(str), *rest

def below():
    inputs, labels, *rest = data()
    return inputs, labels - 1, *rest

def nan():
    inputs, labels, *rest = data()
    inputs[3, 1, 1] = np.nan
    return inputs, labels, *rest

def other_shape():
    return *samples(300, 1), *samples(90, 2, (3, 5))

def fails():
    raise OSError("disk gone")

class Net(nn.Module):
    def __init__(self, tuple_too=False, classes=3):
        super().__init__()
        self.tuple_too = tuple_too
        self.rnn = nn.LSTM(4, 8, batch_first=True)
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        assert x.shape[1:] == (3, 4)
        scores = self.head(self.rnn(x)[0][:, -1])
        return (scores, scores) if self.tuple_too else scores

def net():
    return Net()

def two_outputs():
    return Net(True)

def few_classes():
    return Net(classes=2)

class TiedNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 12)
        self.second.weight = self.first.weight
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))

def tied():
    return TiedNet()

def normed():
    module = Net()
    nn.utils.parametrizations.weight_norm(module.head)
    return module
"""


@pytest.fixture(autouse=True)
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_code.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_code", None)


def parsed(data: Any = "own_code:data", model: dict[str, Any] | None = None, *stages: dict[str, Any]) -> Recipe:
    dense = {"kind": "dense", "epochs": 4, "learning_rate": 0.02, "batch": 32}
    content = {
        "name": "own",
        "data": data,
        "model": model or {"name": "mlp", "hidden": [12]},
        "stages": [dense, *stages],
    }
    return recipe.parse(content, "own.toml")


PRUNE = {"kind": "prune", "epochs": 2, "learning_rate": 0.01, "density": 0.5}
OWN = {"name": "own_code:net", "flat": False}


@pytest.mark.verifies("recipes-user-s-own-data")
@pytest.mark.parametrize("function", ["data", "tensors"])
def test_a_kit_network_learns_the_users_data(function: str, tmp_path: Path) -> None:
    found = parsed(f"own_code:{function}", None, PRUNE)
    assert recipe.parse(found.asdict(), "again") == found
    assert "own_code" not in sys.modules  # reading it ran nothing
    report = train_recipe(found, tmp_path / "run")
    assert report["data"]["train"] == 255
    assert report["data"]["test"] == 90
    assert report["stages"][-1]["accuracy"]["test"] > 0.6
    run = load_run(tmp_path / "run")
    assert run.calibration.shape == (255, 12)
    assert [tuple(each.shape) for each in run.module.state_dict().values()] == [(12, 12), (12,), (3, 12), (3,)]
    with pytest.raises(InputError, match=f"its samples are made by own_code:{function}, and reading a file runs no"):
        _ = run.test


@pytest.mark.verifies("recipes-user-s-own-data")
def test_own_network_and_own_data_with_patterns(tmp_path: Path) -> None:
    share = {"kind": "share", "epochs": 1, "learning_rate": 0.001, "code_bits": 3, "only": ["rnn"]}
    found = parsed("own_code:data", OWN, {**PRUNE, "ignore": ["head"]}, share)
    assert recipe.parse(found.asdict(), "again") == found
    report = train_recipe(found, tmp_path / "run")
    layers = {layer["name"]: layer for layer in report["stages"][-1]["layers"]}
    for name in ("rnn.weight_ih_l0", "rnn.weight_hh_l0"):
        assert layers[name]["nonzeros"] == layers[name]["weights"] // 2
        assert layers[name]["distinct"] <= 7
    assert layers["head"]["nonzeros"] == layers["head"]["weights"] == layers["head"]["distinct"]
    assert report["size"]["not_counted"] == {}
    # The share that is left is one of all weights, those that a pattern left alone included.
    assert report["size"]["density"] == pytest.approx((32 * 12 / 2 + 24) / (32 * 12 + 24))


@pytest.mark.verifies("tied-layers-stay-tied-attached")
def test_a_tied_network_goes_through_a_recipe_and_a_kill(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(stage: str, done: int, total: int, text: str) -> None:
        if (stage, done) == ("share", 1):
            raise Stopped

    share = {"kind": "share", "epochs": 2, "learning_rate": 0.001, "code_bits": 3, "labels": "free"}
    found = parsed("own_code:data", {"name": "own_code:tied"}, PRUNE, share)
    report = train_recipe(found, tmp_path / "unbroken")
    assert [layer["name"] for layer in report["stages"][-1]["layers"]] == ["first", "head"]  # one matrix, counted once
    with pytest.raises(Stopped):
        train_recipe(found, tmp_path / "run", progress=stop)
    train_recipe(found, tmp_path / "run", resume=True)
    for name in ("model.safetensors", "model.eiez"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()
    state = decompress((tmp_path / "run" / "model.eiez").read_bytes()).network.state()
    np.testing.assert_array_equal(state["first.weight"], state["second.weight"])
    assert load_file(tmp_path / "run" / "model.safetensors").keys() == state.keys() - {"second.weight"}


BAD = {
    "three": "returned a tuple; expected .train inputs, train labels, test inputs, test labels.",
    "short": r"train inputs have shape \(300, 3, 4\) and labels \(299,\)",
    "named": "returned an array of <U21; expected",
    "below": "train labels are int64 from -1 to 1; expected whole numbers from 0",
    "nan": "train inputs have values that are not finite",
    "other_shape": r"test samples have shape \(3, 5\); those to train on have \(3, 4\)",
    "fails": "calling it without arguments failed: OSError: disk gone",
    "not_there": "the module own_code has no not_there",
}


@pytest.mark.verifies("recipes-user-s-own-data")
@pytest.mark.parametrize("function", BAD)
def test_what_is_no_data(function: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=BAD[function]):
        train_recipe(parsed(f"own_code:{function}"), tmp_path / "run")


NO_NETWORK: dict[str, tuple[dict[str, Any], str]] = {
    "a tuple": ({"name": "own_code:two_outputs", "flat": False}, "returns a tuple in its forward; expected a tensor"),
    "few classes": ({"name": "own_code:few_classes", "flat": False}, r"gives \(2, 2\) for 2 samples; .* 3 classes"),
    "flat samples": ({"name": "own_code:net"}, r"fails on inputs of shape \(2, 12\): .* model.flat is true"),
    "parametrized": ({"name": "own_code:normed", "flat": False}, "head.weight is parametrized by _WeightNorm"),
}


@pytest.mark.verifies("recipes-user-s-own-data")
@pytest.mark.parametrize("what", NO_NETWORK)
def test_what_cannot_be_trained_is_refused_before_any_training(what: str, tmp_path: Path) -> None:
    model, message = NO_NETWORK[what]
    told: list[str] = []
    with pytest.raises(EieError, match=message):
        train_recipe(parsed("own_code:data", model), tmp_path / "run", progress=lambda stage, *rest: told.append(stage))
    assert set(told) == {"data"}
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.verifies("recipes-user-s-own-data")
@pytest.mark.parametrize(
    "later",
    [
        PRUNE,
        {"kind": "dsd", "epochs": 1, "learning_rate": 0.01},
        {"kind": "iss", "epochs": 1, "learning_rate": 0.01, "strength": 0.1},
        {"kind": "group_lasso", "epochs": 1, "learning_rate": 0.01, "groups": [{"by": "coupled", "strength": 0.1}]},
    ],
    ids=lambda stage: stage["kind"],
)
def test_zeros_after_sharing_are_refused_when_the_recipe_is_read(later: dict[str, Any]) -> None:
    share = {"kind": "share", "epochs": 0, "learning_rate": 0.01}
    with pytest.raises(RecipeError, match=r"stages\[2\] is of kind .*weights are shared by then.*before kind share"):
        parsed("digits", None, share, later)


@pytest.mark.verifies("layers-chosen-patterns-patterns-keys")
@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"only": ["fc9"]}, r"stages\[1\]: 'fc9' matches no weight; the weights are fc1, fc2"),
        ({"ignore": ["fc*"]}, "leave none of the weights"),
        ({"ignore": ["fc2"], "density": {"fc1": 0.5, "fc2": 0.5}}, r"unknown key stages\[1\].density.fc2"),
        ({"only": "fc1"}, r"stages\[1\].only is 'fc1'; expected a list of texts"),
    ],
)
def test_patterns_that_do_not_fit(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parsed("digits", None, {**PRUNE, **extra})
    assert parsed("digits", None, {**PRUNE, "ignore": ["fc2"], "density": {"fc1": 0.5}}).stages[1].ignore == ("fc2",)


HOLD = """
import sys, time
from compiler.claim import claimed
from pathlib import Path
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.verifies("process-time-trains-folder")
def test_two_trainings_in_one_folder_do_not_both_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"another process is at work in {folder}"):
            train_recipe(parsed(), folder)
        assert list(folder.iterdir()) == []
        other.kill()
    assert train_recipe(parsed(), folder)["size"]["weights"] == 12 * 12 + 12 * 3  # the lock ended with the process


def test_distributed_recipes_take_own_code_too() -> None:
    content = {
        "name": "own",
        "data": {"name": "own_code:data"},
        "model": OWN,
        "schedule": {"epochs": 1, "learning_rate": 0.1},
    }
    found = job.parse(content, "own.toml")
    assert job.parse(found.asdict(), "again") == found
    dataset = found.data(None, 2)
    assert (dataset.shape, dataset.classes, len(dataset.train)) == ((3, 4), 3, 255)
    assert json.dumps(found.asdict())
    assert dataset.train.inputs.dtype == np.float32
