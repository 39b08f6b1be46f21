"""The recipe of a distributed training: a TOML file with data, model, schedule, and whether gradients are ternary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.errors import RecipeError
from compiler.train import recipe
from compiler.train.data import DATASETS, Dataset, is_own
from compiler.train.data import load as load_data
from compiler.train.models import ModelSpec
from compiler.train.recipe import Recipe
from compiler.train.schedule import Schedule
from compiler.train.stages import Train
from compiler.train.table import SEED_LIMIT, Table, read_toml
from compiler.train.terngrad.settings import Settings

__all__ = ["Job", "load", "parse"]


@dataclass(frozen=True)
class Job:
    """A checked recipe.

    Attributes
    ----------
    name : for people.
    seed : of the first weights, the order of samples and the ternary random numbers.
    dataset, validation, samples : see `data.load`.
    model, schedule : the network, and how it is trained; `schedule.batch` is that of all workers together.
    settings : of TernGrad; None where the recipe has no table `terngrad`: gradients are float.
    """

    name: str
    seed: int
    dataset: str
    validation: float
    samples: int | None
    model: ModelSpec
    schedule: Schedule
    settings: Settings | None

    def asdict(self) -> dict[str, Any]:
        """As the TOML file says it, defaults filled in; `parse` reads it again."""
        data: dict[str, Any] = {"name": self.dataset, "validation": self.validation}
        if self.samples is not None:
            data["samples"] = self.samples
        content = {
            "name": self.name,
            "seed": self.seed,
            "data": data,
            "model": self.model.asdict(),
            "schedule": self.schedule.asdict(),
        }
        return content if self.settings is None else {**content, "terngrad": self.settings.asdict()}

    def recipe(self) -> Recipe:
        """The recipe by which one process trains the same, with float gradients."""
        content = self.asdict()
        stage = {"kind": "dense", **content.pop("schedule")}
        content.pop("terngrad", None)
        return recipe.parse({**content, "stages": [stage]}, self.name)

    def data(self, folder: Path | None, workers: int) -> Dataset:
        """The data set, of which each of `workers` has a share of every batch.

        Raises
        ------
        RecipeError
            A batch has fewer samples than there are workers, or as `data.load`.
        ToolError, InputError
            As `data.load`.
        """
        dataset = load_data(self.dataset, self.validation, folder, self.samples)
        batch = min(self.schedule.batch, len(dataset.train))
        least = len(dataset.train) % batch or batch
        if least < workers:
            raise RecipeError(
                f"{self.name}: {len(dataset.train)} samples in batches of {batch} leave {least} in the last one, fewer "
                f"than the {workers} workers; choose another batch, number of samples or of workers"
            )
        return dataset


def load(path: Path) -> Job:
    """Read a recipe file. Raises `RecipeError`."""
    return parse({"name": path.stem, **read_toml(path)}, str(path))


def parse(content: Mapping[str, Any], source: str) -> Job:
    """A recipe from its tables; `source` is what messages call it. Raises `RecipeError`.

    An ordinary recipe is one as well if it has one stage, of kind dense, and nothing that other processes would not do.
    """
    if "stages" in content:
        return _of_stages(recipe.parse(content, source), source)
    top = Table(content, source, "")
    name = top.text("name")
    seed = top.integer("seed", 0, SEED_LIMIT, default=1)
    data = top.table("data")
    own = is_own(str(data.content.get("name")))
    dataset = data.text("name") if own else data.choice("name", DATASETS)
    validation = data.number("validation", 0, 1, default=0.15)
    samples = data.integer("samples", 2, 1 << 30) if data.has("samples") else None
    data.finish()
    model = ModelSpec.parse(top.table("model"))
    times = top.table("schedule")
    schedule = Schedule.parse(times, 1)
    times.finish()
    settings = Settings.parse(top.table("terngrad"), seed) if top.has("terngrad") else None
    top.finish()
    return Job(name, seed, dataset, validation, samples, model, schedule, settings)


def _of_stages(whole: Recipe, source: str) -> Job:
    """A recipe of one dense stage."""
    stage = whole.stages[0]
    wrong = {
        f"stages of kind {', '.join(each.kind for each in whole.stages)}": [type(each) for each in whole.stages]
        != [Train],
        "stages[0].distill": stage.distill is not None,
        "data.augment": whole.augment is not None,
        "data.refit": whole.refit,
        f"precision {whole.precision}": whole.precision != "float32",
    }
    if any(wrong.values()) or stage.schedule is None:
        found = ", ".join(name for name, there in wrong.items() if there)
        raise RecipeError(
            f"{source}: {found}: several processes train a recipe with one stage of kind dense and none of these; "
            "train in one process, or write a recipe as those in recipes/distributed"
        )
    return Job(
        whole.name, whole.seed, whole.dataset, whole.validation, whole.samples, whole.model, stage.schedule, None
    )  # fmt: skip
