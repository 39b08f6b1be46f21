"""What all stages have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compiler.errors import ModelError, RecipeError
from compiler.train.images import Images
from compiler.train.loop import Hook, Lesson
from compiler.train.schedule import Schedule
from compiler.train.select import chosen
from compiler.train.table import Table

__all__ = ["Context", "Distill", "Stage", "parse_stage", "selection"]


@dataclass(frozen=True)
class Distill:
    """What a stage learns from another network beside the labels.

    Attributes
    ----------
    teacher : name of the stage, earlier in the recipe, after which that network is taken.
    temperature, weight : see `distill.Teacher`.
    """

    teacher: str
    temperature: float
    weight: float


@dataclass(frozen=True, eq=False)
class Context:
    """What a stage may know of the run that it is part of.

    Attributes
    ----------
    seed : of the run.
    number : of the stage, from 0.
    lesson : what is trained on.
    measure : accuracy of a module on the validation samples, 0 … 1.
    records : what earlier stages left in the report.
    """

    seed: int
    number: int
    lesson: Lesson
    measure: Callable[[nn.Module], float]
    records: list[dict[str, Any]] = field(default_factory=list)

    def example(self, count: int) -> Tensor:
        """The first samples, in the form that the module takes; to trace a network with. Raises `RecipeError`."""
        if not isinstance(self.lesson, Images):
            raise RecipeError(f"stage {self.number} traces the network on images; the lesson has none")
        return self.lesson.arrange(torch.from_numpy(self.lesson.split.inputs[:count]))


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a recipe.

    Attributes
    ----------
    kind : its key in `stages.KINDS`.
    name : unique in the recipe; the kind if the recipe gives none.
    schedule : how it trains, or None if it does not.
    distill : what it learns from, or None.
    """

    kind: str
    name: str
    schedule: Schedule | None = None
    distill: Distill | None = None

    least_epochs: ClassVar[int | None] = 1
    """Fewest epochs of such a stage; None: it trains nothing and takes no schedule."""

    @classmethod
    def options(cls, table: Table, layers: list[str] | None) -> dict[str, Any]:
        """The fields that only this kind has, taken from its table."""
        return {}

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Change the module before training, in place; what is returned goes into the record of the stage."""
        return {}

    def hooks(self, module: nn.Module, context: Context, record: Mapping[str, Any]) -> list[Hook]:
        """What happens while it trains; `record` holds what `begin` returned."""
        return []

    def finish(self, module: nn.Module, context: Context) -> None:
        """Change the module after training, in place, before it is measured."""

    def asdict(self) -> dict[str, Any]:
        """As a recipe says it, defaults filled in."""
        table = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        table.pop("schedule", None)
        for key in ("only", "ignore"):  # patterns, where a kind of stage has them
            if key in table:
                patterns = list(table.pop(key))
                table |= {key: patterns} if patterns else {}
        return table if self.schedule is None else {**table, **self.schedule.asdict()}


def selection(table: Table, layers: list[str] | None) -> tuple[dict[str, tuple[str, ...]], list[str] | None]:
    """The keys ``only`` and ``ignore`` of a table, and the weights that they leave; see `select.chosen`."""
    found = {"only": table.texts("only", default=[]), "ignore": table.texts("ignore", default=[])}
    if layers is None:
        return found, None
    try:
        return found, chosen(layers, found["only"] or None, found["ignore"])
    except ModelError as error:
        raise RecipeError(f"{table.source}: {table.where}: {error}") from None


def parse_stage(
    kinds: Mapping[str, type[Stage]], table: Table, layers: list[str] | None, also: Iterable[str] = ()
) -> Stage:
    """A stage from its table, by the class of its kind; messages name the kinds in `also` as well."""
    kind = table.choice("kind", [*kinds, *also])
    cls = kinds[kind]
    common: dict[str, Any] = {"kind": kind, "name": table.text("name", default=kind)}
    if cls.least_epochs is not None:
        common["schedule"] = Schedule.parse(table, cls.least_epochs)
        if table.has("distill"):
            inner = table.table("distill")
            common["distill"] = Distill(
                teacher=inner.text("teacher"),
                temperature=inner.number("temperature", 0, 100, default=2.0),
                weight=inner.number("weight", 0, 1, default=0.7, high_included=True),
            )
            inner.finish()
    options = cls.options(table, layers)
    table.finish()
    if "cycles" in options:
        common["schedule"] = dataclasses.replace(common["schedule"], cycles=options.pop("cycles"))
    return cls(**common, **options)
