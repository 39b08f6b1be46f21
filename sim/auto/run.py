"""Compress a network to a target: dense, then one density for all layers or one for each, with equal training."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compiler.errors import ImageError, InputError
from compiler.network import Network
from compiler.options import Options
from compiler.train.data import load as load_data
from compiler.train.layers import weights
from compiler.train.loop import reproducible
from compiler.train.progress import stage_path
from compiler.train.recipe import Recipe
from compiler.train.run import Progress, train_recipe
from compiler.train.stages import Prune, Teach
from hw.params import Params
from sim.auto.curves import Choose, Curve, by_layer, same
from sim.auto.network import Subject
from sim.auto.settle import settle
from sim.auto.target import KINDS, Target
from sim.cost import Cost, cost_of

__all__ = ["ARMS", "Arm", "Auto", "Job", "pruning"]

ARMS: dict[str, Choose] = {"uniform": same, "found": by_layer}
"""Ways to choose densities, which are trained and judged alike."""

_ROUNDS = 3
"""Trainings of an arm at most: activations change with the weights, and with them cycles."""


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Attributes
    ----------
    recipe : of the training, with one stage that prunes; its densities are chosen here.
    target : what the network in the end may cost. params, options : the array.
    samples : on which cycles and energy are measured.
    """

    recipe: Recipe
    target: Target
    params: Params
    options: Options
    samples: int

    def asdict(self) -> dict[str, Any]:
        """All that the result depends on, as JSON."""
        return {
            "recipe": self.recipe.asdict(), "target": str(self.target), "params": self.params.asdict(),
            "options": self.options.asdict(), "samples": self.samples,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Arm:
    """A network that was trained, or the dense one.

    Attributes
    ----------
    name : dense, uniform or found. folder : of its last training; None for a network that came trained.
    densities : of its weights, by key. epochs : of one training, the dense one's not among them. rounds : trainings.
    right : share of right answers in floats, 0 … 1, by "validation" and "test".
    cost : of the compiled network; None where it does not fit. network : that one.
    """

    name: str
    folder: Path | None
    densities: Mapping[str, float]
    epochs: int
    rounds: int
    right: Mapping[str, float]
    cost: Cost | None
    network: Network | None


class Auto:
    """One network, on its way to one or several targets.

    Parameters
    ----------
    job : whose recipe, array and samples hold for all targets. out : folder; trainings are in folders of it.
    tell : is told how far each step is. data_dir : with the files of the data set, if not from the cache.
    """

    def __init__(self, job: Job, out: Path, tell: Progress, data_dir: Path | None = None) -> None:
        self.job, self.out, self.tell, self.data_dir = job, out, tell, data_dir
        self.stage = pruning(job.recipe)
        self.number = job.recipe.stages.index(self.stage)
        recipe = job.recipe
        dataset = load_data(recipe.dataset, recipe.validation, data_dir, recipe.samples)
        self.subject = Subject(recipe, dataset, job.params, job.options, job.samples)
        self._curves: dict[str, tuple[Curve, ...]] = {}

    def dense(self) -> Arm:
        """Train what comes before the pruning, and measure it."""
        before, folder = self.job.recipe.stages[: self.number], None
        if before:
            folder = self.out / "dense"
            self._train(replace(self.job.recipe, stages=before), folder, "dense")
        with reproducible(self.job.recipe.threads):
            self.module = self.subject.module(folder)
            self.keys = [site.key for site in weights(self.module, self.stage.only or None, self.stage.ignore)]
            fresh = {site.key for site in weights(self.subject.module(None))}
            if new := [key for key in self.keys if key not in fresh]:
                raise InputError(
                    f"a stage before {self.stage.name} makes other layers ({', '.join(new)}); expected stages that "
                    "leave the network as the recipe names it"
                )
            self.tell("dense cost", 0, 1, "")
            found, network = self._measured(self.module)
            words = "does not fit the array" if found is None else f"{found.cycles:,.0f} cycles, {found.stored:,} bytes"
            self.tell("dense cost", 1, 1, words)
            return Arm("dense", folder, {}, 0, 0, self.subject.right(self.module), found, network)

    def arm(self, name: str, target: Target, limit: float, prefix: str = "") -> Arm:
        """Choose densities in one of `ARMS`, train, compile; again with other densities where it costs too much.

        Parameters
        ----------
        prefix : of the folders of its trainings.

        Raises
        ------
        InputError
            Even the least densities cost more.
        """
        aim = limit
        arm: Arm | None = None
        for turn in range(1, _ROUNDS + 1):
            try:
                with reproducible(self.job.recipe.threads):
                    densities = self._choose(ARMS[name], target, aim)
            except InputError:
                if arm is None:
                    raise
                break  # nothing less is possible than what was trained
            arm = self._trained(name, densities, self.out / f"{prefix}{name}-{turn}", turn)
            taken = float("inf") if arm.cost is None else target.of(arm.cost)
            if taken <= limit:
                break
            aim *= limit / taken * 0.995 if arm.cost is not None else 0.9
        assert arm is not None
        return arm

    def _choose(self, choose: Choose, target: Target, limit: float) -> Mapping[str, float]:
        def exact(densities: Mapping[str, float]) -> float:
            found = self.subject.cost(self.module, densities)
            return float("inf") if found is None else target.of(found)

        curves = self._curves.get(target.kind)
        if curves is None:
            curves = self._curves[target.kind] = self.subject.curves(self.module, target, self.keys, self.tell)
        self.tell("densities", 0, 1, "")
        found = settle(curves, choose, exact, limit, KINDS[target.kind])
        words = ", ".join(f"{key} {value:.0%}" for key, value in found.densities.items())
        self.tell("densities", 1, 1, f"{words}: {found.cost:,.0f} {KINDS[target.kind]} before training")
        return {key: round(found.densities.get(key, 1.0), 4) for key in self.keys}

    def _trained(self, name: str, densities: Mapping[str, float], folder: Path, turn: int) -> Arm:
        stages = list(self.job.recipe.stages)
        stages[self.number] = replace(self.stage, density=dict(densities), scope="layer")
        recipe = replace(self.job.recipe, stages=tuple(stages))
        for stage in stages[: self.number]:  # the same for all arms, so it is trained once
            begun = stage_path(folder, stage.name)
            if not begun.is_file():
                begun.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(stage_path(self.out / "dense", stage.name), begun)
        self._train(recipe, folder, name)
        with reproducible(recipe.threads):
            module = self.subject.module(folder)
            found, network = self._measured(module)
            epochs = sum(stage.schedule.epochs for stage in stages[self.number :] if stage.schedule is not None)
            return Arm(name, folder, densities, epochs, turn, self.subject.right(module), found, network)

    def _measured(self, module: Any) -> tuple[Cost | None, Network | None]:
        """The compiled network and what it costs; none where it does not fit the array."""
        try:
            network, inputs = self.subject.compiled(module)
        except ImageError:
            return None, None
        return cost_of(network, {node.name: inputs for node in network.graph.inputs}), network

    def _train(self, recipe: Recipe, folder: Path, name: str) -> None:
        def tell(stage: str, done: int, total: int, text: str) -> None:
            self.tell(stage if stage == name else f"{name} {stage}", done, total, text)

        train_recipe(recipe, folder, resume=True, progress=tell, data_dir=self.data_dir, plots=False)


def pruning(recipe: Recipe) -> Prune:
    """The one stage of a recipe that prunes. Raises `InputError`."""
    found = [stage for stage in recipe.stages if isinstance(stage, Prune)]
    if len(found) != 1:
        raise InputError(
            f"the recipe {recipe.name} has {len(found)} stages of kind prune; expected one, whose densities are chosen"
        )
    before = recipe.stages[: recipe.stages.index(found[0])]
    if before and all(isinstance(stage, Teach) for stage in before):
        raise InputError(f"the recipe {recipe.name} trains teachers before it prunes; expected a stage dense as well")
    if recipe.refit:
        raise InputError(
            f"the recipe {recipe.name} trains on the validation samples (refit), by which densities are chosen"
        )
    return found[0]
