"""Train by recipe into a folder, stage after stage, and read such a folder again.

A run's folder holds ``checkpoints/STAGE.safetensors`` (state with masks, codes and centroids),
``model.safetensors`` (plain weights by layer name, the recipe in its metadata), ``calibration.npy`` (inputs to
choose fixed-point ranges with) and ``report.json``. No file needs pickle.
"""

from __future__ import annotations

import io
import json
import platform
import shlex
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compiler.errors import InputError
from compiler.train import checkpoint, stages
from compiler.train.data import Dataset, Split
from compiler.train.data import load as load_data
from compiler.train.loop import accuracy, reproducible
from compiler.train.models import linears, mlp, plain_copy
from compiler.train.recipe import Recipe, Share, Stage, parse
from compiler.train.recipe import load as load_recipe
from compiler.train.sizes import layer_size

__all__ = ["LoadedRun", "Progress", "load_run", "train_recipe"]

MODEL, REPORT, CALIBRATION, CHECKPOINTS = "model.safetensors", "report.json", "calibration.npy", "checkpoints"

_CALIBRATION_SAMPLES = 1024


class Progress(Protocol):
    """Is told how far a stage is: `done` of `total` epochs, with a few words on how it goes."""

    def __call__(self, stage: str, done: int, total: int, text: str) -> None:
        """Take note."""


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """A finished run.

    Attributes
    ----------
    module : Linear and ReLU with the trained, shared weights written out, in evaluation mode.
    example_inputs : one tensor, float32 (1, in).
    calibration : training inputs to choose fixed-point ranges with, float32 (n, in).
    recipe, report : as stored.
    folder : of the run.
    data_dir : where the files of the data set lie, if not in the cache.
    """

    module: nn.Sequential
    example_inputs: tuple[Tensor, ...]
    calibration: NDArray[np.float32]
    recipe: Recipe
    report: dict[str, Any]
    folder: Path
    data_dir: Path | None = None

    @cached_property
    def test(self) -> Split:
        """The samples that no choice was made on; read from the data set when first asked for."""
        return load_data(self.recipe.dataset, self.recipe.validation, self.data_dir).test

    @property
    def test_inputs(self) -> NDArray[np.float32]:
        """Test inputs, float32 (n, in)."""
        return self.test.inputs

    @property
    def test_labels(self) -> NDArray[np.int64]:
        """Test labels, int64 (n,)."""
        return self.test.labels


def train_recipe(
    recipe: Recipe | Path,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    seed: int | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Train and compress a network by recipe; returns the report that it also writes.

    The same recipe, library versions and kind of machine give the same bits, whether or not the run was
    interrupted between stages.

    Parameters
    ----------
    out : folder of the run; made if need be.
    resume : go on after the last finished stage of the same recipe; a finished run is left as it is.
    progress : told about every epoch.
    seed : instead of the recipe's.
    data_dir : folder with the files of the data set, if not from the cache.

    Raises
    ------
    RecipeError, ToolError
        As `recipe.load` and `data.load`.
    InputError
        `out` is a file, or holds a run already and `resume` is not set, or it is a run of another recipe.
    """
    wanted = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if seed is not None:
        wanted = wanted.replace(seed=seed)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; expected a folder for the run, or a name that is free")
    checkpoints = [out / CHECKPOINTS / f"{stage.kind}.safetensors" for stage in wanted.stages]
    if not resume and (out / CHECKPOINTS).exists():
        raise InputError(f"{out} holds a run already; continue it with --resume or choose another folder")
    tell: Progress = progress or (lambda stage, done, total, text: None)
    with reproducible(wanted.threads):
        start, state, records = _resume(wanted, checkpoints)
        if start == len(wanted.stages) and all((out / name).is_file() for name in (MODEL, REPORT, CALIBRATION)):
            return load_run(out).report
        tell("data", 0, 1, wanted.dataset)
        dataset = load_data(wanted.dataset, wanted.validation, data_dir)
        tell("data", 1, 1, f"{len(dataset.train)} samples to train on")
        module = _fresh(wanted, dataset)
        if start:
            stages.restore(wanted.stages[start - 1], module, state, str(checkpoints[start - 1]))
        for number in range(start, len(wanted.stages)):
            module = plain_copy(module, dataset.features, wanted.hidden, dataset.classes)
            records.append(_train_stage(wanted, number, module, dataset, tell))
            content = {"recipe": wanted.asdict(), "records": records}
            checkpoint.save(checkpoints[number], module.state_dict(), content)
        return _finish(wanted, module, dataset, records, out)


def load_run(folder: Path, data_dir: Path | None = None) -> LoadedRun:
    """Read the folder of a finished run.

    Raises
    ------
    InputError
        It is no such folder, the run is not finished, or a file is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected one that `eie train` wrote")
    if not (folder / MODEL).is_file():
        begun = (folder / CHECKPOINTS).is_dir()
        advice = "the run is not finished, continue it with --resume" if begun else "expected what `eie train` wrote"
        raise InputError(f"{folder} holds no {MODEL}; {advice}")
    state, content = checkpoint.load(folder / MODEL)
    recipe = _stored_recipe(content, folder / MODEL)
    features, classes = content.get("features"), content.get("classes")
    if type(features) is not int or type(classes) is not int or min(features, classes) < 1:
        raise InputError(f"{folder / MODEL} gives {features!r} features and {classes!r} classes; expected counts")
    _check_shapes(state, features, recipe.hidden, classes, folder / MODEL)
    module = mlp(features, recipe.hidden, classes)
    module.load_state_dict(state)
    return LoadedRun(
        module=module.eval(),
        example_inputs=(torch.zeros(1, features),),
        calibration=_read_calibration(folder / CALIBRATION, features),
        recipe=recipe,
        report=_read_report(folder / REPORT),
        folder=folder,
        data_dir=data_dir,
    )


def _resume(recipe: Recipe, checkpoints: list[Path]) -> tuple[int, dict[str, Tensor], list[dict[str, Any]]]:
    """Stages that are done, the state after the last of them, and their records."""
    for number in range(len(checkpoints), 0, -1):
        path = checkpoints[number - 1]
        if not path.is_file():
            continue
        state, content = checkpoint.load(path)
        stored = _stored_recipe(content, path).asdict()
        if stored != recipe.asdict():
            changed = ", ".join(key for key, value in recipe.asdict().items() if stored.get(key) != value)
            raise InputError(
                f"{path.parent.parent} was trained by another recipe (it differs in {changed}); choose another folder"
            )
        records = content.get("records")
        if not isinstance(records, list) or len(records) != number:
            raise InputError(f"{path} does not hold the records of its {number} stages")
        return number, state, records
    return 0, {}, []


def _stored_recipe(content: dict[str, Any], path: Path) -> Recipe:
    if not isinstance(content.get("recipe"), dict):
        raise InputError(f"{path} holds no recipe; `eie train` did not write it")
    return parse(content["recipe"], str(path))


def _fresh(recipe: Recipe, dataset: Dataset) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return mlp(dataset.features, recipe.hidden, dataset.classes)


def _train_stage(recipe: Recipe, number: int, module: nn.Module, dataset: Dataset, tell: Progress) -> dict[str, Any]:
    """Run one stage in place and measure what came of it."""
    stage = recipe.stages[number]
    epochs = stage.schedule.epochs
    began = time.monotonic()
    # A generator of its own for every stage: a resumed run draws what the unbroken one would have drawn.
    generator = torch.Generator().manual_seed(recipe.seed * 16 + number)

    def after_epoch(done: int, loss: float) -> None:
        share = accuracy(module, dataset.validation)
        tell(stage.kind, done, epochs, f"loss {loss:.4f}, validation {share:.2%}")
        module.train()

    tell(stage.kind, 0, epochs, "")
    stages.apply(stage, module, dataset.train, generator, after_epoch)
    return {
        "stage": stage.kind,
        "epochs": epochs,
        "seconds": round(time.monotonic() - began, 3),
        "accuracy": {
            "validation": accuracy(module, dataset.validation),
            "test": accuracy(module, dataset.test),
        },
        "layers": _layers(module, stage),
    }


def _layers(module: nn.Module, stage: Stage) -> list[dict[str, Any]]:
    code_bits = stage.code_bits if isinstance(stage, Share) else None
    return [
        {"name": name, **layer_size(layer.weight.detach().numpy(), layer.out_features, code_bits)}
        for name, layer in linears(module)
    ]


def _finish(
    recipe: Recipe, module: nn.Module, dataset: Dataset, records: list[dict[str, Any]], out: Path
) -> dict[str, Any]:
    """Write model, calibration inputs and report; the report comes last and says that all is there."""
    plain = plain_copy(module, dataset.features, recipe.hidden, dataset.classes)
    content = {"recipe": recipe.asdict(), "features": dataset.features, "classes": dataset.classes}
    checkpoint.save(out / MODEL, plain.state_dict(), content)
    buffer = io.BytesIO()
    spread = np.linspace(0, len(dataset.train) - 1, min(_CALIBRATION_SAMPLES, len(dataset.train))).astype(np.intp)
    np.save(buffer, dataset.train.inputs[spread], allow_pickle=False)
    checkpoint.write_atomic(out / CALIBRATION, buffer.getvalue())
    sizes = {key: sum(layer[key] for layer in records[-1]["layers"]) for key in _SUMMED}
    report = {
        "recipe": recipe.asdict(),
        "seed": recipe.seed,
        "data": {
            "name": dataset.name,
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
        },
        "stages": records,
        "size": {**sizes, "density": sizes["nonzeros"] / sizes["weights"]},
        "seconds": round(sum(record["seconds"] for record in records), 3),
        "command": shlex.join(sys.argv),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "platform": platform.platform(),
        },
    }
    checkpoint.write_atomic(out / REPORT, (json.dumps(report, indent=2) + "\n").encode())
    return report


_SUMMED = ("weights", "nonzeros", "dense_bytes", "sparse_bytes")


def _check_shapes(state: dict[str, Tensor], features: int, hidden: tuple[int, ...], classes: int, path: Path) -> None:
    """Compare with what the recipe implies before anything of that size is built."""
    sizes = [features, *hidden, classes]
    expected: dict[str, tuple[int, ...]] = {}
    for number, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        expected[f"fc{number}.weight"] = (outputs, inputs)
        expected[f"fc{number}.bias"] = (outputs,)
    found = {name: tuple(tensor.shape) for name, tensor in state.items() if tensor.dtype is torch.float32}
    if found != expected or len(found) != len(state):
        raise InputError(f"{path} holds {found}; its recipe makes float32 {expected}")


def _read_calibration(path: Path, features: int) -> NDArray[np.float32]:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim != 2 or array.shape[1] != features:
        raise InputError(f"{path} does not hold float32 inputs of {features} values")
    return array


def _read_report(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(report, dict) or not isinstance(report.get("stages"), list):
        raise InputError(f"{path} is not the report of a run")
    return report
