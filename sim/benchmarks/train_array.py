"""Trained networks on the array: whether they run bit-exact, and their cycles against one another at equal accuracy.

A network with removed structure has fewer and shorter columns and rows; one with as good an accuracy and single weights
removed has fewer weights in all. Which is faster on an array that skips zeros anyway is what this measures.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import InputError
from compiler.lower.pipeline import compile_graph
from compiler.source import from_module
from compiler.train.recipe import Recipe
from compiler.train.recipe import load as load_recipe
from compiler.train.run import load_run, train_recipe
from compiler.train.runfolder import LoadedRun
from compiler.train.stages import Prune
from hw.params import Params
from sim.compare import compare
from sim.run import run

__all__ = ["Row", "at_equal_accuracy", "findings", "measure", "train_all"]


@dataclass(frozen=True)
class Row:
    """One network on one array.

    Attributes
    ----------
    name : of the network; pes : of the array; samples : vectors that the cycles are of.
    validation_error, test_error : percent, of the fixed-point network by the golden model, on all samples.
    validation_samples : how many the first is of. float_test_error : of the float network.
    shape : inputs and outputs of the layers, as "784-300-100-10".
    nonzeros, entries : weights left, and entries that the array reads for them (padding included).
    work : multiplications a sample, mean: entries of columns whose activation is not zero.
    cycles : a sample, mean, by the cycle model.
    compared : outputs and record fields that the hardware computed too, 0 without a hardware engine; different : how
        many of them differ.
    """

    name: str
    pes: int
    samples: int
    validation_error: float
    test_error: float
    float_test_error: float
    shape: str
    nonzeros: int
    entries: int
    work: float
    cycles: float
    compared: int
    different: int
    validation_samples: int

    def asdict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def train_all(
    recipes: Mapping[str, Path],
    folder: Path,
    *,
    densities: Iterable[float] = (),
    data_dir: Path | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, LoadedRun]:
    """Train the networks that are compared, each in a folder of its own; finished ones are taken as they are.

    Parameters
    ----------
    recipes : name → recipe.
    densities : a recipe that prunes once is trained for each, "NAME DENSITY", instead of at its own density.
    """
    wanted: dict[str, Recipe] = {}
    for name, path in recipes.items():
        recipe = load_recipe(path)
        if densities and sum(isinstance(stage, Prune) for stage in recipe.stages) == 1:
            wanted |= {f"{name} {density:g}": _with_density(recipe, density) for density in densities}
        else:
            wanted[name] = recipe
    runs = {}
    for name, recipe in wanted.items():
        progress(f"training {name}")
        target = folder / name.replace(" ", "-")
        train_recipe(recipe, target, resume=True, data_dir=data_dir)
        runs[name] = load_run(target, data_dir)
    return runs


def _with_density(recipe: Recipe, density: float) -> Recipe:
    stages = tuple(
        dataclasses.replace(stage, density=density) if isinstance(stage, Prune) else stage for stage in recipe.stages
    )
    return recipe.replace(stages=stages)


def measure(
    runs: Mapping[str, LoadedRun],
    params: Params,
    *,
    samples: int = 100,
    engine: str | None = "rtl",
    checked: int = 4,
    seed: int = 1,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Compile every network and run it.

    Parameters
    ----------
    samples : test samples that the cycles are counted on, by the cycle model.
    engine : "rtl" or "amaranth", to run `checked` of them on the hardware and compare every bit, cycle and counter
        with the golden and the cycle model; None to leave that out.

    Raises
    ------
    ModelError, ImageError
        A network is no chain of Linear layers, or does not fit the array.
    """
    rows = []
    for name, trained in runs.items():
        progress(f"{name} on {params.pes} PEs")
        graph = from_module(trained.module, trained.example_inputs).graph
        image = compile_graph(graph, params, trained.calibration).only
        test, validation = trained.test, trained.dataset.validation
        chosen = np.random.default_rng(seed).permutation(len(test))[:samples]
        if not len(chosen):
            raise InputError(f"{samples} samples were asked for; expected one or more")
        counted = run(image, test.inputs[chosen], engine="cycles")
        compared = different = 0
        if engine is not None:
            few = test.inputs[chosen[:checked]]
            hardware = run(image, few, engine=engine, seed=seed)
            for model in ("golden", "cycles"):
                found = compare(hardware, run(image, few, engine=model))
                compared += found.values + found.records
                different += found.values_different + found.records_different
        wrong = [
            100 * float((run(image, split.inputs).raw.argmax(1) != split.labels).mean()) for split in (validation, test)
        ]
        rows.append(
            Row(
                name=name,
                pes=params.pes,
                samples=len(chosen),
                validation_error=round(wrong[0], 4),
                test_error=round(wrong[1], 4),
                float_test_error=round(100 * (1 - trained.report["stages"][-1]["accuracy"]["test"]), 4),
                shape="-".join(str(image.maps[n].channels) for n in (*image.inputs, *(x.result for x in image.layers))),
                nonzeros=sum(layer.nonzeros for layer in image.layers),
                entries=sum(layer.entries for layer in image.layers),
                work=round(sum(layer.counters["entries"] for layer in counted.layers) / len(chosen), 1),
                cycles=round((counted.cycles or 0) / len(chosen), 1),
                compared=compared,
                different=different,
                validation_samples=len(validation),
            )
        )
    return rows


def at_equal_accuracy(rows: Iterable[Row], structured: str) -> Row | None:
    """The fastest other network that is as accurate as the structured one, if any.

    As accurate: its validation error is at most one standard error above; closer than that the samples do not tell.
    """
    every = list(rows)
    own = next(row for row in every if row.name == structured)
    share = own.validation_error / 100
    limit = own.validation_error + 100 * math.sqrt(share * (1 - share) / own.validation_samples)
    good = [row for row in every if row.name != structured and row.validation_error <= limit]
    return min(good, key=lambda row: row.cycles, default=None)


def findings(rows: Iterable[Row], structured: str) -> list[str]:
    """Sentences that follow from the rows, whichever way they came out; one comparison for each array."""
    every = list(rows)
    found = []
    for pes in sorted({row.pes for row in every}):
        here = [row for row in every if row.pes == pes]
        own = next(row for row in here if row.name == structured)
        compared, differs = sum(row.compared for row in here), sum(row.different for row in here)
        if compared:
            found.append(
                f"{pes} PEs: {compared:,} outputs, times and counters of the hardware compared with the golden and the "
                f"cycle model, {differs} differ."
            )
        else:
            found.append(f"{pes} PEs: no hardware was run; cycles are the cycle model's.")
        words = f"{structured} ({own.shape}, {own.nonzeros:,} weights, {own.test_error:.2f} % test error)"
        other = at_equal_accuracy(here, structured)
        if other is None:
            found.append(f"{pes} PEs: no other network is as accurate as {words} on the validation samples.")
            continue
        found.append(
            f"{pes} PEs: {words} takes {own.cycles:,.0f} cycles a sample; {other.name}, the fastest other one that is "
            f"as accurate on the validation samples, to one standard error ({other.nonzeros:,} weights, "
            f"{other.test_error:.2f} %), takes {other.cycles:,.0f}: {structured} is "
            f"{other.cycles / own.cycles:.2f}x as fast."
        )
    return found
