"""The folder of a finished run, read back.

It holds ``model.safetensors`` (plain weights by layer name, the recipe in its metadata), ``model.eiez`` (the same,
compressed), ``calibration.npy`` (inputs to choose fixed-point ranges with), ``report.json``, ``plots/``, and
``checkpoints/STAGE.safetensors`` (states with masks, codes and centroids). No file needs pickle.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compiler.arrays import read_arrays
from compiler.errors import InputError
from compiler.train import checkpoint, layers, progress, structure
from compiler.train.data import DATASETS, Dataset, Split, is_own
from compiler.train.data import load as load_data
from compiler.train.images import Images, accuracy
from compiler.train.models import build
from compiler.train.recipe import Recipe
from compiler.train.stages import Share, Teach

__all__ = ["CALIBRATION", "COMPRESSED", "MODEL", "REPORT", "LoadedRun", "load_run", "read_report"]

MODEL, COMPRESSED, REPORT, CALIBRATION = "model.safetensors", "model.eiez", "report.json", "calibration.npy"

_MOST = 1 << 28  # values of a sample, times classes: what a file says must not cost memory without end


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """A finished run.

    Attributes
    ----------
    module : the network with the trained, shared weights written out, in evaluation mode.
    example_inputs : one tensor, float32 (1, in).
    calibration : training inputs to choose fixed-point ranges with, float32 (n, in).
    recipe, report : as stored.
    folder : of the run.
    data_dir : where the files of the data set lie, if not in the cache.
    """

    module: nn.Module
    example_inputs: tuple[Tensor, ...]
    calibration: NDArray[np.float32]
    recipe: Recipe
    report: dict[str, Any]
    folder: Path
    data_dir: Path | None = None

    @cached_property
    def dataset(self) -> Dataset:
        """The data of the run; read when first asked for."""
        recipe = self.recipe
        if is_own(recipe.dataset):
            raise InputError(
                f"{self.folder}: its samples are made by {recipe.dataset}, and reading a file runs no code; give "
                "inputs of your own"
            )
        return load_data(recipe.dataset, recipe.validation, self.data_dir, recipe.samples, recipe.refit)

    @property
    def test(self) -> Split:
        """The samples that no choice was made on."""
        return self.dataset.test

    @property
    def test_inputs(self) -> NDArray[np.float32]:
        """Test inputs, float32 (n, in)."""
        return self.test.inputs

    @property
    def test_labels(self) -> NDArray[np.int64]:
        """Test labels, int64 (n,)."""
        return self.test.labels

    def before_compression(self) -> nn.Module:
        """The network after the first stage that trained it, before anything was taken away."""
        first = next(stage for stage in self.recipe.stages if not isinstance(stage, Teach))
        return progress.load_module(progress.stage_path(self.folder, first.name), self.recipe.model, self.dataset)

    def before_sharing(self) -> nn.Module | None:
        """The network before its weights were shared, masks applied, as plain floats; None if no stage shares them."""
        for number, stage in enumerate(self.recipe.stages):
            if isinstance(stage, Share):
                before = progress.last_finished(self.folder, self.recipe.stages, number)
                if before is None or not before.is_file():
                    return None
                module = progress.load_module(before, self.recipe.model, self.dataset)
                layers.make_plain(module)
                return module
        return None

    def wrong(self, module: nn.Module, split: Split, values: Mapping[str, NDArray[np.float32]] | None = None) -> int:
        """Samples of a split that a network of this run gets wrong, with other values in it if they are given.

        values : name in the module's state → float32 of its shape; they stay in the module.
        """
        if values is not None:
            module.load_state_dict({name: torch.from_numpy(array) for name, array in values.items()}, strict=False)
        return round((1 - accuracy(module, Images(split, self.dataset.shape))) * len(split))


def load_run(folder: Path, data_dir: Path | None = None) -> LoadedRun:
    """Read the folder of a finished run. Runs no code that the files name.

    Raises
    ------
    InputError
        It is no such folder, the run is not finished, a file is damaged, or the network is the user's own code.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected one that `eie train` wrote")
    if not (folder / MODEL).is_file():
        begun = (folder / progress.CHECKPOINTS).is_dir()
        advice = "the run is not finished, continue it with --resume" if begun else "expected what `eie train` wrote"
        raise InputError(f"{folder} holds no {MODEL}; {advice}")
    state, content = checkpoint.load(folder / MODEL)
    recipe = progress.stored_recipe(content, folder / MODEL)
    if recipe.model.foreign:
        raise InputError(
            f"{folder}: its network is made by {recipe.model.name}, and reading a file runs no code; give the code "
            f"yourself: eie compile {recipe.model.name} --weights {folder / MODEL}"
        )
    shape, classes = _samples(recipe, content, folder / MODEL)
    module = _module(recipe, state, content.get("structure", {}), shape, classes, folder / MODEL)
    features = math.prod(shape)
    return LoadedRun(
        module=module.eval(),
        example_inputs=(torch.zeros(1, features),),
        calibration=_read_calibration(folder / CALIBRATION, features),
        recipe=recipe,
        report=read_report(folder / REPORT),
        folder=folder,
        data_dir=data_dir,
    )


def _samples(recipe: Recipe, content: Mapping[str, Any], path: Path) -> tuple[tuple[int, ...], int]:
    """Shape of a sample, and number of classes."""
    if not is_own(recipe.dataset):
        return DATASETS[recipe.dataset].shape, DATASETS[recipe.dataset].classes
    data = content.get("data")
    shape, classes = (data.get("shape"), data.get("classes")) if isinstance(data, dict) else (None, None)
    sizes = [*shape, classes] if isinstance(shape, list) else []
    if not sizes or not all(type(size) is int and 1 <= size <= _MOST for size in sizes) or math.prod(sizes) > _MOST:
        raise InputError(f"{path} does not say which samples its network takes; its data are {data!r}")
    return tuple(sizes[:-1]), sizes[-1]


def _module(
    recipe: Recipe, state: dict[str, Tensor], described: Any, shape: tuple[int, ...], classes: int, path: Path
) -> nn.Module:
    """The network with a plain state, whose layers may be smaller than the recipe's, and blocks bypassed."""
    if not isinstance(described, dict):
        raise InputError(f"{path}: its structure is {described!r}; expected a table")
    with torch.device("meta"):  # what the file is compared with costs no memory, whatever its recipe says
        expected = build(recipe.model, shape, classes)
        structure.replace_layers(expected, described, str(path))
    shapes = {name: tuple(value.shape) for name, value in expected.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    fits = found.keys() == shapes.keys() and all(
        len(found[name]) == len(shapes[name])
        and all(1 <= f <= s for f, s in zip(found[name], shapes[name], strict=True))
        for name in shapes
        if found[name] or shapes[name]
    )
    if not fits or any(value.dtype not in (torch.float32, torch.int64) for value in state.values()):
        raise InputError(f"{path} holds {found}; its recipe makes float32 {shapes}, or smaller")
    module = build(recipe.model, shape, classes)
    structure.rebuild(module, described, state, str(path))
    try:
        with torch.no_grad():
            outputs = module.eval()(torch.zeros(1, math.prod(shape)))
    except RuntimeError as error:
        raise InputError(f"{path}: its layers do not fit each other: {error}") from error
    if outputs.shape != (1, classes):
        raise InputError(f"{path}: its network gives {tuple(outputs.shape)}; expected (1, {classes})")
    return module


def _read_calibration(path: Path, features: int) -> NDArray[np.float32]:
    try:
        array = read_arrays(path)
    except InputError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim != 2 or array.shape[1] != features:
        raise InputError(f"{path} does not hold float32 inputs of {features} values")
    return array


def read_report(path: Path) -> dict[str, Any]:
    """The report in a file. Raises `InputError`."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(report, dict) or not isinstance(report.get("stages"), list):
        raise InputError(f"{path} is not the report of a run")
    return report
