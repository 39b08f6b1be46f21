"""Recipes: a TOML file that says what is trained on what, in which stages, with which seed.

`parse` takes what `tomllib` reads and also what `Recipe.asdict` gives, so a recipe that was stored with its
results is checked by the same rules as one that a person wrote.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from compiler.errors import RecipeError
from compiler.train.augment import Warp
from compiler.train.data import DATASETS, is_own
from compiler.train.images import PRECISIONS
from compiler.train.layers import weights
from compiler.train.models import ModelSpec, build
from compiler.train.stages import (
    Fold,
    GroupLasso,
    Grow,
    Iss,
    L0Stage,
    L1Stage,
    Lift,
    LowRank,
    Prune,
    Rewrite,
    Scan,
    Share,
    Shrink,
    Stage,
    Teach,
    TernGrad,
    Train,
)
from compiler.train.stages import parse as parse_stages
from compiler.train.table import SEED_LIMIT, Table, read_toml

__all__ = ["Recipe", "load", "parse"]

_Masks = Prune | Grow | L1Stage | L0Stage  # stages after which weights are under masks


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    Attributes
    ----------
    name : for people.
    seed : of the first weights and of the order of samples; seeds: those of which results are reported together.
    threads : of torch; part of the recipe because results depend on it bit for bit.
    precision : of products while training, one of `images.PRECISIONS`.
    dataset : name of the data set, or ``module:function`` of the user's own; validation: share of its training samples
        that is held back; refit: whether those are trained on as well, after all choices are made; samples: how many
        training samples are used, None for all; augment: warps, or None; copies: how many warped copies of the samples
        epochs use in turn, 0 for warps that are always fresh.
    model : the network.
    stages : in order.
    """

    name: str
    seed: int
    seeds: tuple[int, ...]
    threads: int
    precision: str
    dataset: str
    validation: float
    refit: bool
    samples: int | None
    augment: Warp | None
    copies: int
    model: ModelSpec
    stages: tuple[Stage, ...]

    def asdict(self) -> dict[str, Any]:
        """As the TOML file says it, with defaults filled in; `parse` reads it again."""
        data: dict[str, Any] = {"name": self.dataset, "validation": self.validation}
        if self.refit:
            data["refit"] = True
        if self.samples is not None:
            data["samples"] = self.samples
        if self.augment is not None:
            data["augment"] = {**dataclasses.asdict(self.augment), "copies": self.copies}
        return {
            "name": self.name,
            "seed": self.seed,
            "seeds": list(self.seeds),
            "threads": self.threads,
            "precision": self.precision,
            "data": data,
            "model": self.model.asdict(),
            "stages": [stage.asdict() for stage in self.stages],
        }

    def replace(self, **changes: Any) -> Recipe:
        """A copy with fields changed, checked like a recipe from a file."""
        return parse(dataclasses.replace(self, **changes).asdict(), self.name)


def load(path: Path) -> Recipe:
    """Read a recipe file.

    Raises
    ------
    RecipeError
        The file cannot be read or a value is not legal; the message names file, key, value and legal range.
    """
    return parse({"name": path.stem, **read_toml(path)}, str(path))


def parse(content: Mapping[str, Any], source: str) -> Recipe:
    """A recipe from its tables; `source` is what messages call it. Raises `RecipeError`.

    Nothing is executed: a network of the user's own code is named, not built.
    """
    top = Table(content, source, "")
    name = top.text("name")
    seed = top.integer("seed", 0, SEED_LIMIT, default=1)
    seeds = top.integers("seeds", 0, SEED_LIMIT, default=[seed])
    threads = top.integer("threads", 1, 64, default=1)
    precision = top.choice("precision", PRECISIONS, default="float32")
    if isinstance(top.content.get("data"), str):
        top.content["data"] = {"name": top.content["data"]}
    data = top.table("data")
    own = is_own(str(data.content.get("name")))
    dataset = data.text("name") if own else data.choice("name", DATASETS)
    validation = data.number("validation", 0, 1, default=0.15)
    refit = data.flag("refit", default=False)
    samples = data.integer("samples", 2, 1 << 30) if data.has("samples") else None
    augment, copies = _warp(data.table("augment")) if data.has("augment") else (None, 0)
    data.finish()
    model = ModelSpec.parse(top.table("model"))
    layers = _layers(model, dataset, source)
    stages = tuple(stage for table in top.tables("stages") for stage in parse_stages(table, layers))
    top.finish()
    _check_order(stages, source)
    return Recipe(
        name, seed, seeds, threads, precision, dataset, validation, refit, samples, augment, copies, model, stages
    )


def _warp(table: Table) -> tuple[Warp, int]:
    limits = {"rotate": 180.0, "scale": 0.9, "shear": 2.0, "shift": 100.0}
    amounts = {
        key: table.number(key, 0, limit, default=getattr(Warp(), key), low_included=True)
        for key, limit in limits.items()
    }
    copies = table.integer("copies", 0, 1000, default=0)
    table.finish()
    return Warp(**amounts), copies


def _layers(model: ModelSpec, dataset: str, source: str) -> list[str] | None:
    """Keys of the network's weights; None where they depend on the user's code, which reading a recipe does not run."""
    if model.foreign or is_own(dataset):
        return None
    try:
        with torch.device("meta"):  # shapes without memory
            module = build(model, DATASETS[dataset].shape, DATASETS[dataset].classes)
    except RecipeError as error:
        raise RecipeError(f"{source}: model: {error}") from error
    return [site.key for site in weights(module)]


def _check_order(stages: tuple[Stage, ...], source: str) -> None:
    """Names are unique, what is referred to comes before, and something trains before anything is taken away."""
    if not stages:
        raise RecipeError(f"{source}: stages are empty; expected at least one that trains, such as kind dense")
    seen: list[str] = []
    scanned = trained = masked = shared = False
    for number, stage in enumerate(stages):
        where = f"{source}: stages[{number}]"
        if stage.name in seen or not stage.name.replace("-", "").replace("_", "").isalnum():
            raise RecipeError(
                f"{where}.name is {stage.name!r}; expected letters, digits, - and _, and no name twice "
                "(kinds that come twice need names)"
            )
        if stage.distill is not None and stage.distill.teacher not in seen:
            raise RecipeError(
                f"{where}.distill.teacher is {stage.distill.teacher!r}; expected an earlier stage"
                + (f" ({', '.join(seen)})" if seen else "; there is none")
            )
        if isinstance(stage, Prune) and stage.density == "sensitivity" and not scanned:
            raise RecipeError(f"{where}.density is 'sensitivity', but no stage of that kind comes before")
        if not trained and not isinstance(stage, Teach | Train | TernGrad | _Masks):
            raise RecipeError(f"{where} is of kind {stage.kind}; expected one that trains the network before it")
        if isinstance(stage, Lift) and not masked:
            raise RecipeError(
                f"{where} is of kind lift, but no mask is there to lift; expected kind prune, rigl, set, static, l1 or "
                "l0 before it"
            )
        if isinstance(stage, _Masks | GroupLasso | Iss) and shared:
            raise RecipeError(
                f"{where} is of kind {stage.kind}, and the weights are shared by then, so that none can become zero by "
                "itself; expected it before kind share"
            )
        if isinstance(stage, LowRank | Rewrite) and (masked or shared):
            raise RecipeError(
                f"{where} is of kind {stage.kind}, and weights are masked or shared by then; expected it before kinds "
                "prune, rigl, set, static and share"
            )
        if isinstance(stage, Fold) and shared:
            raise RecipeError(
                f"{where} is of kind fold, and the weights are shared by then, so that no channel can be scaled by "
                "itself; expected it before kind share"
            )
        shared = isinstance(stage, Share) or (shared and not isinstance(stage, Shrink))
        masked = isinstance(stage, _Masks) or (masked and not isinstance(stage, Share))
        scanned |= isinstance(stage, Scan)
        trained |= not isinstance(stage, Teach)
        seen.append(stage.name)
    if not trained:
        raise RecipeError(f"{source}: stages train teachers only; expected one that trains the network, such as dense")
