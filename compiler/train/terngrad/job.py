"""The recipe of a distributed training: a TOML file with data, model, schedule, and how gradients are exchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.errors import RecipeError
from compiler.train import recipe
from compiler.train.data import DATASETS, Dataset, is_own
from compiler.train.data import load as load_data
from compiler.train.images import PRECISIONS
from compiler.train.models import ModelSpec
from compiler.train.recipe import Recipe
from compiler.train.schedule import Schedule
from compiler.train.stages import Train
from compiler.train.table import SEED_LIMIT, Table, read_toml
from compiler.train.terngrad.methods import Method

__all__ = ["AUTO", "Job", "load", "parse"]

AUTO = "auto"
"""In place of a size of buckets: it is chosen by a probe."""

_SCALED = ("float32", "fp16", "bf16")
"""Exchanges that keep nothing from step to step, so that a step may be left out and the loss scaled anew."""


@dataclass(frozen=True)
class Job:
    """A checked recipe.

    Attributes
    ----------
    name : for people.
    seed : of the first weights, the order of samples and the ternary random numbers.
    dataset, validation, samples : see `data.load`.
    model, schedule : the network, and how it is trained; `schedule.batch` is that of all workers together.
    method : how gradients are exchanged.
    bucket_mb : MiB of gradients that are exchanged together; None for torch's choice, or `AUTO`.
    precision : of products while training, one of `images.PRECISIONS`.
    """

    name: str
    seed: int
    dataset: str
    validation: float
    samples: int | None
    model: ModelSpec
    schedule: Schedule
    method: Method
    bucket_mb: float | str | None = None
    precision: str = "float32"

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
        if self.bucket_mb is not None:
            content["bucket_mb"] = self.bucket_mb
        if self.precision != "float32":
            content["precision"] = self.precision
        return {**content, **self.method.asdict()}

    def check_way(self, parallel: str) -> None:
        """Raises `RecipeError` if the recipe says what workers that share data do, and this is another way."""
        given = {
            f'exchange "{self.method.name}"': self.method.name != "float32",
            "bucket_mb": self.bucket_mb is not None,
            f'precision "{self.precision}"': self.precision != "float32",
        }
        found = " and ".join(name for name, there in given.items() if there)
        if found and parallel != "data":
            raise RecipeError(f"{self.name} has {found}, which is for --parallel data alone; not {parallel}")

    def recipe(self) -> Recipe:
        """The recipe by which one process trains the same, with float gradients."""
        content = {key: value for key, value in self.asdict().items() if key not in self.method.asdict()}
        content.pop("bucket_mb", None)
        stage = {"kind": "dense", **content.pop("schedule")}
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
    method = Method.parse(top, seed)
    bucket_mb = _bucket_mb(top, method)
    precision = top.choice("precision", PRECISIONS, default="float32")
    if precision == "float16" and method.name not in _SCALED:
        raise RecipeError(
            f'{source}: precision is "float16", which scales the loss anew now and then, and exchange "{method.name}" '
            f"does not allow that; expected one of {', '.join(_SCALED)}, or bfloat16"
        )
    top.finish()
    return Job(name, seed, dataset, validation, samples, model, schedule, method, bucket_mb, precision)


def _bucket_mb(top: Table, method: Method) -> float | str | None:
    """A number of MiB, `AUTO`, or None."""
    if not top.has("bucket_mb"):
        return None
    if method.one_bucket:
        raise RecipeError(f'{top.source}: exchange "{method.name}" has one bucket; leave bucket_mb out')
    if isinstance(top.content["bucket_mb"], str):
        return top.choice("bucket_mb", (AUTO,))
    return top.number("bucket_mb", 0, 1 << 14)


def _of_stages(whole: Recipe, source: str) -> Job:
    """A recipe of one dense stage."""
    stage = whole.stages[0]
    wrong = {
        f"stages of kind {', '.join(each.kind for each in whole.stages)}": [type(each) for each in whole.stages]
        != [Train],
        "stages[0].distill": stage.distill is not None,
        "data.augment": whole.augment is not None,
        "data.refit": whole.refit,
    }
    if any(wrong.values()) or stage.schedule is None:
        found = ", ".join(name for name, there in wrong.items() if there)
        raise RecipeError(
            f"{source}: {found}: several processes train a recipe with one stage of kind dense and none of these; "
            "train in one process, or write a recipe as those in recipes/distributed"
        )
    return Job(
        whole.name, whole.seed, whole.dataset, whole.validation, whole.samples, whole.model, stage.schedule, Method(),
        precision=whole.precision,
    )  # fmt: skip
