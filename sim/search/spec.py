"""The recipe of a search: a recipe of a training with a table ``[search]`` that says what is varied, and for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.errors import EieError, RecipeError
from compiler.options import Options, preset_options
from compiler.train.recipe import Recipe, parse
from compiler.train.stages import Teach
from compiler.train.table import SEED_LIMIT, Table, read_toml
from hw.params import PRESETS, Params, preset
from sim.search.space import Value, Variable, place, replaced, variables_of

__all__ = ["OBJECTIVES", "SAMPLERS", "Search", "load"]

SAMPLERS = ("tpe", "cmaes", "nsga2", "random")

OBJECTIVES = {
    "error": "validation error, %",
    "cycles": "cycles of a sample",
    "energy": "pJ of a sample",
    "bytes": "bytes in the memories",
    "file": "bytes of model.eiez",
}
"""What can be made small → what its numbers are."""

_ARRAY = "array"


@dataclass(frozen=True)
class Search:
    """A checked search.

    Attributes
    ----------
    source : what messages call its file.
    tree : the recipe that is varied with all its fields, and under ``array`` the parameters and compiler options.
    variables, objectives : what is varied, and what is made small.
    sampler, population : who proposes, and how many make a generation of it (None: the sampler's own number).
    prune : whether trainings that go worse than others are ended (ASHA), and reduction, epochs : of the ladder.
    trials, seed, ahead : how many, of the proposals, and how many are under way at once at most.
    samples : on which cycles and energy are measured.
    """

    source: str
    name: str
    tree: dict[str, Any]
    variables: tuple[Variable, ...]
    objectives: tuple[str, ...]
    sampler: str
    population: int | None
    prune: bool
    reduction: int
    epochs: int
    trials: int
    seed: int
    ahead: int
    samples: int

    @property
    def costs(self) -> bool:
        """Whether an objective is of the array."""
        return any(name in ("cycles", "energy", "bytes") for name in self.objectives)

    def at(self, values: Mapping[str, Value]) -> tuple[Recipe, Params, Options]:
        """What is trained, and for which array, where the variables have these values.

        Raises
        ------
        EieError
            The recipe, the parameters or the options cannot have them.
        """
        tree = replaced(self.tree, values, self.source)
        array = tree.pop(_ARRAY)
        options = {key: array.pop(key) for key in Options().asdict()}
        return parse(tree, self.source), Params().replace(**array), Options().replace(**options)

    def asdict(self) -> dict[str, Any]:
        """All that the results depend on, and the number of trials."""
        return {
            "recipe": self.tree, "variables": {each.path: each.asdict() for each in self.variables},
            "objectives": list(self.objectives), "sampler": self.sampler, "population": self.population,
            "prune": self.prune, "reduction": self.reduction, "epochs": self.epochs, "trials": self.trials,
            "seed": self.seed, "ahead": self.ahead, "samples": self.samples,
        }  # fmt: skip


def load(path: Path) -> Search:
    """Read a search.

    Raises
    ------
    RecipeError
        The file cannot be read, a value is not legal, or a variable has no such field; the message says which there
        are.
    """
    content, source = read_toml(path), str(path)
    if "search" not in content:
        raise RecipeError(
            f"{source} has no table [search]; expected one that says what is varied: variables, trials, …"
        )
    table = Table(content.pop("search"), source, "search")
    if table.has("recipe"):
        if content:
            raise RecipeError(
                f"{source}: search.recipe names a recipe, and {', '.join(content)} are here too; expected one of both"
            )
        base = path.parent / table.text("recipe")
        content = {"name": base.stem, **read_toml(base)}
    recipe = parse({"name": path.stem, **content}, source)
    named = table.choice("preset", PRESETS, default="BALANCED_16")
    found = Search(
        source=source,
        name=path.stem,
        tree={**recipe.asdict(), _ARRAY: {**preset(named).asdict(), **preset_options(named).asdict()}},
        objectives=tuple(dict.fromkeys(table.texts("objectives", default=["error"]))),
        sampler=table.choice("sampler", SAMPLERS, default="tpe"),
        population=table.integer("population", 2, 10_000) if table.has("population") else None,
        prune=table.choice("pruner", ("asha", "none"), default="none") == "asha",
        reduction=table.integer("reduction", 2, 64, default=3),
        epochs=table.integer("epochs", 1, 100_000, default=1),
        trials=table.integer("trials", 1, 1_000_000),
        seed=table.integer("seed", 0, SEED_LIMIT, default=1),
        ahead=table.integer("ahead", 1, 1024, default=4),
        samples=table.integer("samples", 1, 1 << 20, default=8),
        variables=variables_of(table.table("variables")),
    )
    table.finish()
    _check(found, recipe)
    return found


def _check(search: Search, recipe: Recipe) -> None:
    """What goes together, and that every variable can have its values."""
    source = search.source
    if unknown := [name for name in search.objectives if name not in OBJECTIVES]:
        raise RecipeError(
            f"{source}: search.objectives names {', '.join(unknown)}; expected some of {', '.join(OBJECTIVES)}"
        )
    if not search.objectives:
        raise RecipeError(f"{source}: search.objectives is empty; expected some of {', '.join(OBJECTIVES)}")
    if search.prune and search.objectives != ("error",):
        raise RecipeError(
            f"{source}: search.pruner is asha, which ends trainings by their error; then objectives is "
            f"['error'] alone, and it is {list(search.objectives)}"
        )
    if search.sampler == "cmaes" and len(search.objectives) > 1:
        raise RecipeError(f"{source}: search.sampler is cmaes, which makes one number small; expected one objective")
    if search.sampler == "cmaes" and all(each.choices for each in search.variables):
        raise RecipeError(f"{source}: search.sampler is cmaes, which varies numbers; expected a range as a variable")
    if search.population is not None and search.sampler not in ("cmaes", "nsga2"):
        raise RecipeError(f"{source}: search.population belongs to cmaes and nsga2; the sampler is {search.sampler}")
    if recipe.refit:
        raise RecipeError(f"{source}: data.refit trains on the validation samples, by which a search chooses")
    if search.costs and (recipe.model.foreign or ":" in recipe.dataset):
        raise RecipeError(
            f"{source}: cycles, energy and bytes are of networks of the kit; the network or the data are your own: "
            "expected objectives error and file"
        )
    if all(isinstance(stage, Teach) for stage in recipe.stages):
        raise RecipeError(f"{source}: nothing is trained")
    for variable in search.variables:
        for value in variable.ends:
            try:
                search.at({variable.path: value})
            except (EieError, ValueError) as error:  # hw.params' own are ValueErrors
                if "unknown" in str(error):
                    place(search.tree, variable.path, source)
                raise RecipeError(f"{error} (search.variables: {variable.path} = {value!r})") from None
