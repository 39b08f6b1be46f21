"""Recipes: a TOML file that says what is trained on what, in which stages, with which seed.

`parse` takes what `tomllib` reads and also what `Recipe.asdict` gives, so a recipe that was stored with its
results is checked by the same rules as one that a person wrote.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.errors import RecipeError
from compiler.train.data import DATASETS
from compiler.train.loop import Schedule
from compiler.train.models import LENET_300_100

__all__ = ["Dense", "Prune", "Recipe", "Share", "Stage", "load", "parse"]

MODELS = {"mlp": None, "lenet-300-100": LENET_300_100}
"""Name → hidden layers, None where the recipe gives them."""


@dataclass(frozen=True)
class Dense:
    """Train the whole network."""

    schedule: Schedule
    kind: str = "dense"


@dataclass(frozen=True)
class Prune:
    """Prune while training on: density falls from 1 to `density` over the first `ramp` of the stage.

    Attributes
    ----------
    density : layer → share of its weights that is kept.
    ramp : 0 … 1; 0 prunes once, at the start.
    """

    schedule: Schedule
    density: Mapping[str, float]
    ramp: float
    kind: str = "prune"


@dataclass(frozen=True)
class Share:
    """Cluster the weights that are left into 2**code_bits - 1 values and train those."""

    schedule: Schedule
    code_bits: int
    kind: str = "share"


Stage = Dense | Prune | Share


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    Attributes
    ----------
    name : for people.
    seed : of the first weights and of the order of samples.
    threads : of torch; part of the recipe because results depend on it bit for bit.
    dataset : name of the data set; validation: share of its training samples that is held back.
    model : name of the network; hidden: its hidden layers.
    stages : in the order dense, prune, share; the last two may be left out.
    """

    name: str
    seed: int
    threads: int
    dataset: str
    validation: float
    model: str
    hidden: tuple[int, ...]
    stages: tuple[Stage, ...]

    def asdict(self) -> dict[str, Any]:
        """As the TOML file says it, with defaults filled in; `parse` reads it again."""
        model: dict[str, Any] = {"name": self.model}
        if MODELS[self.model] is None:
            model["hidden"] = list(self.hidden)
        stages = []
        for stage in self.stages:
            table = {key: value for key, value in dataclasses.asdict(stage).items() if key != "schedule"}
            stages.append({**table, **dataclasses.asdict(stage.schedule)})
        return {
            "name": self.name,
            "seed": self.seed,
            "threads": self.threads,
            "data": {"name": self.dataset, "validation": self.validation},
            "model": model,
            "stages": stages,
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
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from error
    return parse({"name": path.stem, **table}, str(path))


def parse(content: Mapping[str, Any], source: str) -> Recipe:
    """A recipe from its tables; `source` is what messages call it. Raises `RecipeError`."""
    top = _Table(content, source, "")
    name = top.text("name")
    seed = top.integer("seed", 0, (1 << 32) - 1, default=1)
    threads = top.integer("threads", 1, 64, default=1)
    data = top.table("data")
    dataset = data.choice("name", DATASETS)
    validation = data.number("validation", 0, 1, default=0.15)
    data.finish()
    model = top.table("model")
    model_name = model.choice("name", MODELS)
    fixed = MODELS[model_name]
    hidden = model.integers("hidden", 1, 1 << 16) if fixed is None else fixed
    model.finish()
    layers = [f"fc{number}" for number in range(1, len(hidden) + 2)]
    stages = tuple(_stage(table, layers) for table in top.tables("stages"))
    top.finish()
    kinds = [stage.kind for stage in stages]
    legal = [["dense"], ["dense", "prune"], ["dense", "share"], ["dense", "prune", "share"]]
    if kinds not in legal:
        raise RecipeError(
            f"{source}: stages are {', '.join(kinds) or 'empty'}; expected dense, then prune, then share, "
            "each once; the last two may be left out"
        )
    return Recipe(name, seed, threads, dataset, validation, model_name, hidden, stages)


def _stage(table: _Table, layers: list[str]) -> Stage:
    kind = table.choice("kind", ("dense", "prune", "share"))
    schedule = Schedule(
        epochs=table.integer("epochs", 0 if kind == "share" else 1, 10_000),
        batch=table.integer("batch", 1, 1 << 16, default=64),
        learning_rate=table.number("learning_rate", 0, 1),
        weight_decay=table.number("weight_decay", 0, 1, default=0.0, low_included=True),
    )
    stage: Stage
    if kind == "prune":
        ramp = table.number("ramp", 0, 1, default=0.6, low_included=True, high_included=True)
        stage = Prune(schedule, table.densities("density", layers), ramp)
    elif kind == "share":
        stage = Share(schedule, table.integer("code_bits", 2, 8, default=4))
    else:
        stage = Dense(schedule)
    table.finish()
    return stage


_MISSING: Any = object()


class _Table:
    """A TOML table that is taken apart key by key; what is wrong is named with its full key."""

    def __init__(self, content: Any, source: str, where: str) -> None:
        self.source, self.where = source, where
        if not isinstance(content, Mapping):
            raise RecipeError(f"{source}: {where} is {content!r}; expected a table")
        self.content = dict(content)

    def integer(self, key: str, low: int, high: int, default: Any = _MISSING) -> int:
        def legal(value: Any) -> bool:
            return type(value) is int and low <= value <= high

        return int(self._take(key, legal, f"an integer from {low} to {high}", default))

    def number(
        self,
        key: str,
        low: float,
        high: float,
        default: Any = _MISSING,
        low_included: bool = False,
        high_included: bool = False,
    ) -> float:
        def legal(value: Any) -> bool:
            if type(value) not in (int, float):
                return False
            return low < value < high or (low_included and value == low) or (high_included and value == high)

        words = f"a number {'from' if low_included else 'above'} {low} {'to' if high_included else 'to below'} {high}"
        return float(self._take(key, legal, words, default))

    def text(self, key: str) -> str:
        return str(self._take(key, lambda value: isinstance(value, str) and value != "", "a text that is not empty"))

    def choice(self, key: str, among: Any) -> str:
        def legal(value: Any) -> bool:
            return isinstance(value, str) and value in among

        return str(self._take(key, legal, f"one of {', '.join(among)}"))

    def integers(self, key: str, low: int, high: int) -> tuple[int, ...]:
        def legal(value: Any) -> bool:
            return isinstance(value, list) and all(type(item) is int and low <= item <= high for item in value)

        return tuple(self._take(key, legal, f"a list of integers from {low} to {high}"))

    def densities(self, key: str, layers: list[str]) -> Mapping[str, float]:
        """One number for all layers, or a table with one number for each."""
        if not isinstance(self.content.get(key), Mapping):
            value = self.number(key, 0, 1, high_included=True)
            return dict.fromkeys(layers, value)
        table = self.table(key)
        values = {layer: table.number(layer, 0, 1, high_included=True) for layer in layers}
        table.finish()
        return values

    def table(self, key: str) -> _Table:
        content = self._take(key, lambda value: isinstance(value, Mapping), "a table")
        return _Table(content, self.source, self._full(key))

    def tables(self, key: str) -> list[_Table]:
        content = self._take(key, lambda value: isinstance(value, list), f"tables [[{key}]]")
        return [_Table(item, self.source, f"{self._full(key)}[{number}]") for number, item in enumerate(content)]

    def finish(self) -> None:
        """What is left was never asked for."""
        if self.content:
            unknown = ", ".join(self._full(key) for key in self.content)
            raise RecipeError(f"{self.source}: unknown key {unknown}")

    def _take(self, key: str, legal: Callable[[Any], bool], words: str, default: Any = _MISSING) -> Any:
        value = self.content.pop(key, default)
        if value is _MISSING:
            raise RecipeError(f"{self.source}: {self._full(key)} is missing; expected {words}")
        if not legal(value):
            raise RecipeError(f"{self.source}: {self._full(key)} is {value!r}; expected {words}")
        return value

    def _full(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key
