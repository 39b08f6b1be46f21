"""Parallel training: the gradients of every way are those of one process, to float rounding."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.tensor import Partial
from torch.distributed.tensor.parallel import RowwiseParallel

from compiler.errors import RecipeError
from compiler.train.checkpoint import load
from compiler.train.data import Split
from compiler.train.images import ImageBatch, Images
from compiler.train.loop import fit, reproducible
from compiler.train.models import ModelSpec, build
from compiler.train.parallel import mesh
from compiler.train.parallel import pipeline as pipelines
from compiler.train.parallel.mesh import Mesh, plan
from compiler.train.parallel.pipeline import Pipeline, cuts
from compiler.train.progress import fresh
from compiler.train.terngrad.job import Job, parse
from compiler.train.terngrad.train import CHECKPOINT, Trainer
from compiler.train.terngrad.virtual import share_loss
from tests.compiler.train.terngrad.processes import in_group

SHAPE, CLASSES, SAMPLES = (1, 8, 8), 10, 10
MODELS = {
    "mlp": ModelSpec("mlp", {"hidden": (12, 7)}),
    "cnn": ModelSpec("lenet-5", {"channels": (4, 6), "hidden": 9, "padding": 2}),
    "lstm": ModelSpec("lstm", {"hidden": 6}),
}
WAYS = ("data", "sharded", "tensor", "data-tensor", "gpipe", "1f1b")


def module_of(name: str) -> nn.Module:
    torch.manual_seed(3)
    return build(MODELS[name], SHAPE, CLASSES)


def batch() -> ImageBatch:
    rng = np.random.default_rng(5)
    inputs = rng.uniform(size=(SAMPLES, 64)).astype(np.float32)
    lesson = Images(Split(inputs, rng.integers(0, CLASSES, SAMPLES)), SHAPE)
    return next(lesson.batches(0, SAMPLES, torch.Generator().manual_seed(1)))


def alone(name: str) -> dict[str, np.ndarray[Any, Any]]:
    module = module_of(name)
    batch().loss(module).backward()  # type: ignore[no-untyped-call]
    return {key: parameter.grad.numpy() for key, parameter in module.named_parameters() if parameter.grad is not None}


def gradients(pairs: list[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    """In a process of a group: whole gradients of each way and model, or what it raised."""
    found: dict[tuple[str, str], Any] = {}
    for way, name in pairs:
        try:
            found[way, name] = of_way(way, name)
        except Exception as error:
            found[way, name] = f"{type(error).__name__}: {error}"
    return found


def of_way(way: str, name: str) -> dict[str, np.ndarray[Any, Any]]:
    module, given = module_of(name), batch()
    # Four micro-batches of three samples: two of twelve have no weight.
    part: Any = Pipeline(module, given.inputs, 4, way) if way in ("gpipe", "1f1b") else Mesh(module, way, 1)
    part(part.module, given)
    parts = {key: p.grad for key, p in part.module.named_parameters() if p.grad is not None}
    return {key: value.detach().numpy() for key, value in part.whole(parts).items()}


def differ(found: Any, name: str) -> str:
    """What is wrong with gradients; "" if they are those of one process."""
    if isinstance(found, str):
        return found
    expected = alone(name)
    if set(found) != set(expected):
        return f"has {sorted(found)}, expected {sorted(expected)}"
    wrong = {
        key: float(np.abs(found[key] - value).max() / np.abs(value).max())
        for key, value in expected.items()
        if not np.allclose(found[key], value, rtol=1e-4, atol=1e-6 * float(np.abs(value).max()) + 1e-9)
    }
    return f"{wrong}" if wrong else ""


def of_fault(way: str, name: str, patched: pytest.MonkeyPatch) -> dict[str, np.ndarray[Any, Any]]:
    """With one thing wrong in the way."""
    if way == "data":  # everyone takes the first share
        patched.setattr(
            mesh, "share_loss", lambda module, batch, workers, worker: share_loss(module, batch, workers, 0)
        )
    elif way == "tensor":  # shares of the inputs are added up by nobody
        patched.setattr(mesh, "RowwiseParallel", lambda: RowwiseParallel(output_layouts=Partial()))
    else:  # what fills up the last micro-batch counts
        patched.setattr(
            pipelines, "_loss", lambda outputs, target: nn.functional.cross_entropy(outputs, target[:, 0].long())
        )
    return of_way(way, name)


def trained(job: Job, out: Path) -> dict[str, float]:
    """In a process of a group: a training by every way, and one that goes on after its first epoch."""
    began = time.process_time()
    with reproducible(threads=1):
        for way in job_ways():
            Keeping(job, out / way, None, False, way).run()
            if way in ("sharded", "pipeline"):
                if torch.distributed.get_rank() == 0:
                    (out / f"{way}-again").mkdir()
                    (out / way / "first").rename(out / f"{way}-again" / CHECKPOINT)
                torch.distributed.barrier()
                Trainer(job, out / f"{way}-again", None, True, way).run()
    return {"seconds": time.process_time() - began}


class Keeping(Trainer):
    """Keeps what it wrote after the first epoch."""

    def _after_epoch(self, epoch: Any) -> None:
        super()._after_epoch(epoch)
        if self.rank == 0 and epoch.done == 1:
            shutil.copy(self.out / CHECKPOINT, self.out / "first")


def job_ways() -> tuple[str, ...]:
    return ("data", "sharded", "tensor", "data-tensor", "pipeline")


def both(pairs: list[tuple[str, str]], faults: list[tuple[str, str]], job: Job, out: Path) -> Any:
    """All that needs two processes, in one pair of them."""
    wrong: dict[tuple[str, str], Any] = {}
    for way, name in faults:
        with pytest.MonkeyPatch.context() as patched:
            wrong[way, name] = of_fault(way, name, patched)
    return gradients(pairs), wrong, trained(job, out)


PAIRS = [(way, name) for way in WAYS for name in MODELS]
FAULTS = [("data", "mlp"), ("tensor", "mlp"), ("1f1b", "mlp")]
JOB: dict[str, Any] = {
    "name": "x",
    "data": {"name": "digits", "samples": 130},  # 110 to train on: batches of 40, 40, 30
    "model": {"name": "lenet-5", "channels": [4, 6], "hidden": 9, "padding": 2},
    "schedule": {"epochs": 2, "batch": 40, "learning_rate": 0.1, "optimizer": "sgd", "momentum": 0.9},
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    out = tmp_path_factory.mktemp("parallel")
    return in_group(2, out / "group", both, PAIRS, FAULTS, parse(JOB, "x"), out), out


@pytest.mark.verifies("parallel-gradients-equal-one-process")
@pytest.mark.parametrize(("way", "name"), PAIRS)
def test_gradients_of_two_processes_are_those_of_one(way: str, name: str, pair: tuple[Any, Path]) -> None:
    assert [differ(found[way, name], name) for found, _, _ in pair[0]] == ["", ""]


@pytest.mark.verifies("parallel-gradients-equal-one-process")
def test_gradients_of_a_grid_of_four_processes_are_those_of_one(tmp_path: Path) -> None:
    """Two halves of the layers for each of two shares of the batch; of two processes, one dimension is 1."""
    pairs = [("data-tensor", name) for name in MODELS]
    for found in in_group(4, tmp_path, gradients, pairs):
        assert [differ(found[way, name], name) for way, name in pairs] == ["", "", ""]


@pytest.mark.verifies("parallel-gradients-equal-one-process")
def test_gradients_of_a_pipeline_of_three_processes_are_those_of_one(tmp_path: Path) -> None:
    """The middle one takes from one neighbour and gives to the other; of two processes, none does both."""
    pairs = [(way, name) for way in ("gpipe", "1f1b") for name in ("mlp", "cnn")]
    for found in in_group(3, tmp_path, gradients, pairs):
        assert [differ(found[way, name], name) for way, name in pairs] == [""] * 4


@pytest.mark.verifies("parallel-planted")
@pytest.mark.parametrize(("way", "name"), FAULTS)
def test_a_fault_in_a_way_is_caught(way: str, name: str, pair: tuple[Any, Path]) -> None:
    assert all(differ(wrong[way, name], name) for _, wrong, _ in pair[0])


@pytest.mark.verifies("parallel-training-equals-one-process")
@pytest.mark.parametrize("way", job_ways())
def test_weights_after_training_are_those_of_one_process(way: str, pair: tuple[Any, Path]) -> None:
    job = parse(JOB, "x")
    dataset = job.data(None, 1)
    module = fresh(job.model, dataset, job.seed)
    fit(module, Images(dataset.train, dataset.shape, job.model.flat), job.schedule, (job.seed,))
    found, content = load(pair[1] / way / CHECKPOINT)
    assert content["done"] == 2
    for name, value in module.state_dict().items():
        torch.testing.assert_close(found[f"module.{name}"], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.verifies("parallel-training-equals-one-process")
@pytest.mark.parametrize("way", ["sharded", "pipeline"])
def test_a_training_goes_on_to_the_same_bits(way: str, pair: tuple[Any, Path]) -> None:
    whole, again = (load(pair[1] / folder / CHECKPOINT)[0] for folder in (way, f"{way}-again"))
    assert set(whole) == set(again)
    for name, value in whole.items():
        assert torch.equal(again[name], value), name


def test_linear_layers_are_split_in_pairs_where_nothing_is_between() -> None:
    module = nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 4)
    )
    assert plan(module, 2) == {"0": "column", "2": "row", "4": "column", "6": "column"}  # 5 is not even
    assert plan(module, 3) == {"0": "column", "2": "row", "4": "column", "6": "column"}
    assert plan(module, 5) == {"4": "column", "6": "row", "0": "column", "2": "column"}
    with pytest.raises(RecipeError, match="no Linear layer to split"):
        plan(nn.Conv2d(1, 1, 3), 2)


def test_a_pipeline_is_cut_where_the_largest_part_is_least() -> None:
    module = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10), nn.Linear(10, 1), nn.Linear(1, 30))
    assert cuts(module, 2) == ["2"]
    assert cuts(module, 3) == ["2", "3"]
    with pytest.raises(RecipeError, match="4 layers with weights for 5 processes"):
        cuts(module, 5)


DENSE = {"kind": "dense", "epochs": 1, "learning_rate": 0.1}


@pytest.mark.verifies("parallel-wrong-use")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, ""),
        ({"stages": [DENSE, {"kind": "fold"}]}, "dense, fold"),
        ({"data": {"name": "digits", "refit": True}}, "data.refit"),
    ],
)  # fmt: skip
def test_an_ordinary_recipe_of_one_stage_will_do(change: dict[str, Any], message: str) -> None:
    content = {**JOB, "stages": [DENSE], **change}
    del content["schedule"]
    if not message:
        assert parse({**content, "precision": "bfloat16"}, "x.toml").precision == "bfloat16"
        assert parse(content, "x.toml").schedule.epochs == 1
        return
    with pytest.raises(RecipeError, match=rf"{message}.*one stage of kind dense and none of these"):
        parse(content, "x.toml")
