"""The network and the data that a trial trains, as a recipe names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from compiler.errors import RecipeError
from compiler.experiments.base import Env, Experiment, Trial
from compiler.train.data import DATASETS, Dataset, load
from compiler.train.images import PRECISIONS, Images, accuracy
from compiler.train.loop import fit
from compiler.train.models import ModelSpec
from compiler.train.progress import fresh
from compiler.train.schedule import Schedule
from compiler.train.stages import Context, Stage
from compiler.train.table import Table

__all__ = ["NetworkSpec", "OverNetworks", "Subject", "network_of", "networks_of", "schedule_of"]

_VALIDATION = 1 / 12


@dataclass(frozen=True)
class NetworkSpec:
    """A network, what it is trained on, and how it is trained before anything is tried on it.

    Attributes
    ----------
    name : in tables.
    data : one of `DATASETS`.
    samples : how many of the training samples are used, validation ones included; None for all.
    precision : of products while training.
    model, dense : its shape, and its first training.
    validation : share of the samples that is held back.
    """

    name: str
    data: str
    samples: int | None
    precision: str
    model: ModelSpec
    dense: Schedule
    validation: float = _VALIDATION

    def job(self, seed: int, schedule: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The recipe of its first training on several processes, as `terngrad.job.parse` reads it.

        schedule : what is other in it than in `dense`.
        """
        data: dict[str, Any] = {"name": self.data, "validation": self.validation}
        if self.samples is not None:
            data["samples"] = self.samples
        return {
            "name": self.name, "seed": seed, "data": data, "model": self.model.asdict(),
            "schedule": {**self.dense.asdict(), **(schedule or {})}, "precision": self.precision,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with the first weights that belong to `seed`, and its data."""

    dataset: Dataset
    lesson: Images
    module: nn.Module
    seed: int

    @classmethod
    def make(cls, spec: NetworkSpec, seed: int, env: Env) -> Subject:
        """Load the data and make the network; nothing is trained yet."""
        data = load(spec.data, spec.validation, env.data_dir, spec.samples)
        lesson = Images(data.train, data.shape, spec.model.flat, precision=spec.precision)
        return cls(data, lesson, fresh(spec.model, data, seed), seed)

    def again(self, model: ModelSpec, seed: int) -> Subject:
        """A fresh network on the same data."""
        return replace(self, module=fresh(model, self.dataset, seed), seed=seed)

    def train(self, module: nn.Module, schedule: Schedule, number: int) -> None:
        """Train `module` in place; `number` names this training among those of the trial."""
        fit(module, self.lesson, schedule, (self.seed, number))

    def apply(self, stage: Stage, module: nn.Module, number: int) -> Mapping[str, Any]:
        """A stage as recipes have it, on `module`; what it records."""
        context = Context(self.seed, number, self.lesson, lambda m: accuracy(m, self.lesson, self.dataset.validation))
        record = stage.begin(module, context)
        if stage.schedule is not None and stage.schedule.epochs:
            hooks = stage.hooks(module, context, record)
            fit(module, self.lesson, stage.schedule, (self.seed, number), hooks=hooks)
        stage.finish(module, context)
        return record

    def example(self, count: int) -> Tensor:
        """The first training samples, as a network takes them."""
        return self.lesson.arrange(torch.from_numpy(self.dataset.train.inputs[:count]))

    def errors(self, module: nn.Module) -> dict[str, float]:
        """Percent of the validation and of the test samples that it gets wrong."""
        parts = {"validation": self.dataset.validation, "test": self.dataset.test}
        return {name: 100 * (1 - accuracy(module, self.lesson, part)) for name, part in parts.items()}


@dataclass(frozen=True, kw_only=True)
class OverNetworks(Experiment):
    """An experiment that does the same to several networks with every seed.

    Attributes
    ----------
    networks : whose names differ.
    """

    networks: tuple[NetworkSpec, ...]

    def trials(self) -> list[Trial]:
        """One for each network and seed: all that is tried starts from the same trained network."""
        return [
            Trial(f"{network.name}.{seed}", {"network": network.name, "seed": seed})
            for seed, network in product(self.seeds, self.networks)
        ]

    def subject(self, trial: Trial, env: Env) -> tuple[NetworkSpec, Subject]:
        """The network of a trial, fresh."""
        spec = next(network for network in self.networks if network.name == trial.options["network"])
        return spec, Subject.make(spec, trial.options["seed"], env)


def schedule_of(table: Table, key: str, least_epochs: int = 1) -> Schedule:
    """The schedule in table `key` of a recipe."""
    inner = table.table(key)
    schedule = Schedule.parse(inner, least_epochs)
    inner.finish()
    return schedule


def networks_of(table: Table) -> tuple[NetworkSpec, ...]:
    """The tables ``[[networks]]`` of a recipe. Raises `RecipeError`."""
    found = []
    for one in table.tables("networks"):
        found.append(
            NetworkSpec(
                name=one.text("name"),
                data=one.choice("data", DATASETS),
                samples=one.integer("samples", 24, 1 << 30) if one.has("samples") else None,
                validation=one.number("validation", 0, 1, default=_VALIDATION),
                precision=one.choice("precision", PRECISIONS, default="float32"),
                model=ModelSpec.parse(one.table("model")),
                dense=schedule_of(one, "dense"),
            )
        )
        one.finish()
    if not found or len({one.name for one in found}) < len(found):
        raise RecipeError(f"{table.source}: networks are missing, or two have one name")
    return tuple(found)


def network_of(table: Table) -> NetworkSpec:
    """The one table ``[[networks]]`` of a recipe. Raises `RecipeError`."""
    networks = networks_of(table)
    if len(networks) != 1:
        raise RecipeError(f"{table.source}: {len(networks)} networks; expected one")
    return networks[0]
