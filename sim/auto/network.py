"""The network that is compressed: its data, what it gets wrong, and what it costs on the array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from compiler.errors import ImageError, InputError, ModelError
from compiler.experiments.policy.network import graph_of, pruned_copy
from compiler.lower.pipeline import compile_graph
from compiler.network import Network
from compiler.options import Options
from compiler.train import sensitivity
from compiler.train.data import Dataset
from compiler.train.images import Images, accuracy, mean_loss
from compiler.train.layers import make_plain
from compiler.train.progress import fresh, load_module, stage_path
from compiler.train.recipe import Recipe
from compiler.train.report import calibration
from compiler.train.stages import Teach
from hw.params import Params
from sim.auto.blocks import keys_by_block
from sim.auto.curves import GRID, Curve, curves_of
from sim.auto.target import Target
from sim.cost import Cost, block_costs, cost

__all__ = ["Subject"]

_CALIBRATED, _CALIBRATED_LAST = 64, 256
"""Samples by which number formats are chosen while densities are, and of the network in the end."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What all that is tried has in common.

    Attributes
    ----------
    recipe : of the training. dataset : its data. params, options : the array. samples : on which cycles are measured.
    """

    recipe: Recipe
    dataset: Dataset
    params: Params
    options: Options
    samples: int

    @cached_property
    def lesson(self) -> Images:
        """How samples are given to the network."""
        return Images(self.dataset.train, self.dataset.shape, self.recipe.model.flat)

    @cached_property
    def inputs(self) -> NDArray[Any]:
        """Training inputs that number formats are chosen by; cycles are measured on the first of them."""
        return calibration(self.dataset)

    def module(self, folder: Path | None) -> Any:
        """The network of a finished run, weights written out; without one it is as the recipe's model comes."""
        if folder is None:
            return fresh(self.recipe.model, self.dataset, self.recipe.seed).eval()
        last = stage_path(folder, _last(folder, self.recipe))
        module = load_module(last, self.recipe.model, self.dataset)
        make_plain(module)
        return module.eval()

    def right(self, module: Any) -> dict[str, float]:
        """Share of the validation and of the test samples that it gets right, 0 … 1."""
        parts = {"validation": self.dataset.validation, "test": self.dataset.test}
        return {name: accuracy(module, self.lesson, part) for name, part in parts.items()}

    def compiled(self, module: Any) -> tuple[Network, NDArray[Any]]:
        """For the array; and the samples that it is timed on."""
        inputs = self.lesson.arrange(self.inputs[:_CALIBRATED_LAST])
        network = compile_graph(graph_of(module, self.lesson), self.params, (inputs,), self.options)
        return network, inputs[: self.samples]

    def cost(self, module: Any, densities: Mapping[str, float] | None = None) -> Cost | None:
        """What it costs as a whole, pruned to these densities; None where it does not fit the array."""
        graph = graph_of(module if densities is None else pruned_copy(module, densities), self.lesson)
        inputs = self.lesson.arrange(self.inputs[:_CALIBRATED])
        try:
            return cost(graph, self.params, (inputs,), (inputs[: self.samples],), options=self.options)
        except ImageError:
            return None

    def curves(self, module: Any, target: Target, keys: list[str], tell: Any) -> tuple[Curve, ...]:
        """What each layer costs and loses at each density of the grid.

        Raises
        ------
        InputError
            The array multiplies by none of the weights.
        ImageError, ModelError
            The layers can be compiled at one density at most.
        """
        tables: dict[float, Mapping[str, float]] = {}
        inputs, count = self.lesson.arrange(self.inputs[:_CALIBRATED]), min(self.samples, _CALIBRATED, len(self.inputs))
        for number, density in enumerate(GRID):
            tell("costs", number, len(GRID), f"all layers at {density:.0%}")
            graph = graph_of(pruned_copy(module, dict.fromkeys(keys, density)), self.lesson)
            try:
                found = block_costs(graph, self.params, (inputs,), count=count, options=self.options)
            except (ImageError, ModelError) as error:
                # So few weights are left, untrained, that a block reads nothing but zeros; or so many that it is full.
                wrong = error
                continue
            tables[density] = {name: target.of(each) for name, each in found.blocks.items()}
        if len(tables) < 2:
            raise wrong
        tell("costs", len(GRID), len(GRID), f"at {len(tables)} of {len(GRID)} densities")
        tell("losses", 0, 1, "each layer pruned by itself")
        losses = sensitivity.scan(module, lambda: -mean_loss(module, self.lesson, self.dataset.validation), GRID)
        tell("losses", 1, 1, f"{len(losses)} weights, on {len(self.dataset.validation):,} validation samples")
        curves = curves_of(self._members(module, keys), tables, losses)
        if not curves:
            raise InputError("the array multiplies by no weight of this network: the host computes all of it")
        return curves

    def _members(self, module: Any, keys: list[str]) -> dict[str, list[str]]:
        """Block → keys of its weights; of weights that the host multiplies by, zeros save nothing."""
        found = {
            name: [key for key in own if key in keys] for name, own in keys_by_block(module, self.lesson).items()
        }  # fmt: skip
        return {name: own for name, own in found.items() if own}


def _last(folder: Path, recipe: Recipe) -> str:
    """Name of the last stage of the network itself that a run has a checkpoint of. Raises `InputError`: none."""
    own = [stage.name for stage in recipe.stages if not isinstance(stage, Teach)]
    done = [name for name in own if stage_path(folder, name).is_file()]
    if not done:
        raise InputError(f"{folder} holds no finished stage of the recipe {recipe.name}")
    return done[-1]
