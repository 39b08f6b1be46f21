"""The recipe that a network is compressed by: the user's own, or one made for a network that is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compiler.errors import InputError
from compiler.experiments.policy.network import example
from compiler.train.data import Dataset
from compiler.train.data import load as load_data
from compiler.train.images import Images
from compiler.train.models import MODELS, ModelSpec
from compiler.train.norms import norms_after
from compiler.train.progress import fresh
from compiler.train.recipe import Recipe, load, parse
from compiler.train.stages import Fold
from compiler.train.trainable import check_outputs

__all__ = ["Training", "named", "recipe_of"]

Training = dict[str, Any]
"""What the command line says of the training of a named network: epochs, retrain, batch, learning_rate, code_bits."""

DEFAULTS: Training = {"epochs": 20, "retrain": 20, "batch": 64, "learning_rate": 2e-3, "code_bits": 4}

_VALIDATION = 0.15
_WEIGHT_DECAY = 1e-2


def recipe_of(
    model: str, data: str | None, training: Training, seed: int | None, data_dir: Path | None = None
) -> Recipe:
    """The recipe of a network.

    Parameters
    ----------
    model : RECIPE.toml, the name of a network of recipes, or ``module:function``, which is run.
    data : name of a data set, or ``module:function``; a recipe has its own.
    training : what is said of it; only where `model` is no recipe. seed : instead of the recipe's, or 1.

    Raises
    ------
    InputError, RecipeError
        There is no such thing, it does not go together, or the network does not take the samples.
    """
    if model.endswith(".toml"):
        if training:
            raise InputError(f"{', '.join(training)}: {model} says how it is trained; change it there")
        recipe = load(Path(model))
        if data is not None:
            recipe = recipe.replace(dataset=data)
        return recipe if seed is None else recipe.replace(seed=seed)
    if model not in MODELS and ":" not in model:
        raise InputError(
            f"MODEL is {model}; expected a recipe (RECIPE.toml), module:function, or one of {', '.join(MODELS)}"
        )
    if data is None:
        raise InputError(f"{model} says nothing of data; give --data: digits, mnist, fashion-mnist, or module:function")
    return named(model, data, {**DEFAULTS, **training}, 1 if seed is None else seed, data_dir)


def named(model: str, data: str, training: Training, seed: int, data_dir: Path | None = None) -> Recipe:
    """A recipe of a network without one: dense, prune, fold where it has batch normalization, share."""
    common = {"batch": training["batch"], "weight_decay": _WEIGHT_DECAY}
    rate = training["learning_rate"]
    stages: list[dict[str, Any]] = [
        {"kind": "prune", "epochs": training["retrain"], "learning_rate": rate, "density": 0.5, **common},
        {"kind": "share", "epochs": -(-training["retrain"] // 2), "learning_rate": rate / 8, "batch": training["batch"],
         "code_bits": training["code_bits"], "labels": "free"},
    ]  # fmt: skip
    if training["epochs"]:
        stages.insert(0, {"kind": "dense", "epochs": training["epochs"], "learning_rate": rate, **common})
    network: dict[str, Any] = {"name": model}
    dataset = load_data(data, _VALIDATION, data_dir)
    content = {
        "name": model.rpartition(":")[2], "seed": seed, "data": {"name": data, "validation": _VALIDATION},
        "model": network, "stages": stages,
    }  # fmt: skip
    if ":" in model:
        network["flat"] = _flat(model, dataset)
    recipe = parse(content, f"eie compress-auto {model}")
    module = fresh(recipe.model, dataset, seed)
    if norms_after(module, example(Images(dataset.train, dataset.shape, recipe.model.flat))):
        at = len(recipe.stages) - 1
        fold = Fold(kind="fold", name="fold", equalize=model == "ds-cnn")
        recipe = recipe.replace(stages=(*recipe.stages[:at], fold, *recipe.stages[at:]))
    return recipe


def _flat(model: str, dataset: Dataset) -> bool:
    """Whether the user's own network takes flat samples, else ones in their own shape. Raises `InputError`: neither."""
    try:
        check_outputs(ModelSpec(model, {"flat": True}), dataset)
    except InputError:
        check_outputs(ModelSpec(model, {"flat": False}), dataset)
        return False
    return True
