"""Checkpoints of a run: after each stage, and after each epoch within one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compiler.errors import InputError
from compiler.train import checkpoint, structure
from compiler.train.data import Dataset
from compiler.train.models import ModelSpec, build
from compiler.train.recipe import Recipe, parse
from compiler.train.stages import Stage, Teach

__all__ = [
    "CHECKPOINTS",
    "CURRENT",
    "Position",
    "fresh",
    "last_finished",
    "load_module",
    "read",
    "stage_path",
    "stored_recipe",
    "write",
]

CHECKPOINTS = "checkpoints"
CURRENT = "current"
"""Name of the checkpoint within a stage; no stage is called so, for its file is written over."""


@dataclass
class Position:
    """How far a run is.

    Attributes
    ----------
    stage : number of the stage that is at work, or of the next one.
    epoch : epochs of it that are done.
    record : what is known of it so far, {} before it has begun.
    records : of the stages before.
    module : the network, or the teacher that the stage trains.
    optimizer : state of the optimizer, None at the start of a stage.
    """

    stage: int
    epoch: int
    record: dict[str, Any]
    records: list[dict[str, Any]]
    module: nn.Module | None = None
    optimizer: dict[str, dict[str, Tensor]] | None = field(default=None)


def stage_path(folder: Path, name: str) -> Path:
    """File of the checkpoint after stage `name`, or of the current one."""
    return folder / CHECKPOINTS / f"{name}.safetensors"


def fresh(spec: ModelSpec, dataset: Dataset, seed: int) -> nn.Module:
    """A network with the first weights that belong to a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(spec, dataset.shape, dataset.classes)


def write(path: Path, recipe: Recipe, position: Position) -> None:
    """Save module, optimizer and records in one file."""
    assert position.module is not None
    tensors = {f"module.{name}": value for name, value in position.module.state_dict().items()}
    for parameter, values in (position.optimizer or {}).items():
        tensors.update({f"optimizer.{key}.{parameter}": value for key, value in values.items()})
    content = {
        "recipe": recipe.asdict(),
        "stage": position.stage,
        "epoch": position.epoch,
        "record": position.record,
        "records": position.records,
        "structure": structure.describe(position.module),
    }
    checkpoint.save(path, tensors, content)


def read(path: Path, recipe: Recipe, dataset: Dataset) -> Position:
    """Read a checkpoint of a run of `recipe`, or of one that was the same up to this stage.

    Raises
    ------
    InputError
        The file is damaged, or belongs to another recipe or network.
    """
    tensors, content = checkpoint.load(path)
    numbers: list[Any] = [content.get("stage"), content.get("epoch")]
    stored, wanted = (_begun(each, numbers[0]) for each in (stored_recipe(content, path), recipe))
    if stored != wanted:
        changed = ", ".join(key for key, value in wanted.items() if stored.get(key) != value)
        raise InputError(
            f"{path} was trained by another recipe (it differs in {changed}); choose another folder, or remove this "
            "file and train anew from its stage on"
        )
    records, record = content.get("records"), content.get("record")
    if (
        not all(type(number) is int and number >= 0 for number in numbers)
        or numbers[0] >= len(recipe.stages)
        or not isinstance(records, list)
        or len(records) != numbers[0]
        or not isinstance(record, dict)
    ):
        raise InputError(f"{path} does not say which stages it comes after")
    stage = recipe.stages[numbers[0]]
    spec = stage.model if isinstance(stage, Teach) else recipe.model
    module = _rebuild(spec, dataset, recipe.seed, tensors, content, path)
    optimizer: dict[str, dict[str, Tensor]] = {}
    known = {name for name, _ in module.named_parameters()}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, key, parameter = name.split(".", 2)
            if parameter not in known:
                raise InputError(f"{path} holds the optimizer's state of {parameter}, which the network does not have")
            optimizer.setdefault(parameter, {})[key] = value
    return Position(numbers[0], numbers[1], record, records, module, optimizer)


def _begun(recipe: Recipe, stage: Any) -> dict[str, Any]:
    """What of a recipe decides the network after a stage: not the stages that follow, nor other runs' seeds."""
    table = recipe.asdict()
    del table["seeds"]
    return {**table, "stages": table["stages"][: stage + 1 if type(stage) is int else None]}


def load_module(path: Path, spec: ModelSpec, dataset: Dataset) -> nn.Module:
    """The network of a checkpoint, in evaluation mode. Raises `InputError`."""
    tensors, content = checkpoint.load(path)
    return _rebuild(spec, dataset, 0, tensors, content, path).eval()


def stored_recipe(content: Mapping[str, Any], path: Path) -> Recipe:
    """The recipe in the metadata of a file. Raises `InputError` or `RecipeError`."""
    if not isinstance(content.get("recipe"), dict):
        raise InputError(f"{path} holds no recipe; `eie train` did not write it")
    return parse(content["recipe"], str(path))


def _rebuild(
    spec: ModelSpec, dataset: Dataset, seed: int, tensors: Mapping[str, Tensor], content: Mapping[str, Any], path: Path
) -> nn.Module:
    module = fresh(spec, dataset, seed)
    state = {name.removeprefix("module."): value for name, value in tensors.items() if name.startswith("module.")}
    described = content.get("structure")
    if not isinstance(described, dict):
        raise InputError(f"{path} does not describe the network that it holds")
    structure.rebuild(module, described, state, str(path))
    return module


def last_finished(folder: Path, stages: tuple[Stage, ...], before: int) -> Path | None:
    """Checkpoint of the last stage before number `before` that changed the network itself."""
    for stage in reversed(stages[:before]):
        if not isinstance(stage, Teach):
            return stage_path(folder, stage.name)
    return None
