"""What the network of an experiment costs on an array: as a whole, and block by block."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.experiments.policy.network import example, marked
from compiler.experiments.subject import Subject
from compiler.graph.ir import Graph
from compiler.options import preset_options
from compiler.source import from_module
from compiler.train.layers import weights
from hw.params import preset
from sim.auto.blocks import members
from sim.cost import Cost, block_costs, cost

__all__ = ["Measured"]

_CALIBRATED = 64
"""Training samples by which number formats are chosen, if no more are asked for."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Costs of the networks of a subject.

    Attributes
    ----------
    subject : whose training samples number formats are chosen by, and cycles measured on. array : name of the preset.
    samples : how many of them, the first ones, cycles are the mean over.
    """

    subject: Subject
    array: str
    samples: int

    def graph(self, module: Any) -> Graph:
        """As the compiler reads it."""
        return from_module(copy.deepcopy(module).eval(), (example(self.subject.lesson),)).graph

    @property
    def inputs(self) -> NDArray[Any]:
        """In the form that the network takes, (n, …)."""
        flat, lesson = self.subject.dataset.train.inputs[: max(_CALIBRATED, self.samples)], self.subject.lesson
        return flat if lesson.flat else flat.reshape(len(flat), *lesson.shape)

    def whole(self, module: Any) -> Cost | None:
        """Of the whole network; None where it does not fit the array."""
        inputs, options = self.inputs, preset_options(self.array)
        try:
            return cost(self.graph(module), preset(self.array), (inputs,), (inputs[: self.samples],), options=options)
        except ImageError:
            return None

    def cycles(self, module: Any) -> float:
        """Of the whole network; infinite where it does not fit the array."""
        found = self.whole(module)
        return float("inf") if found is None else float(found.cycles)

    def blocks(self, module: Any) -> dict[str, float]:
        """Block → its cycles, by itself. Errors as of `sim.cost.cost`."""
        found = block_costs(
            self.graph(module), preset(self.array), (self.inputs,), count=self.samples,
            options=preset_options(self.array),
        )  # fmt: skip
        return {name: float(each.cycles) for name, each in found.blocks.items()}

    def members(self, module: Any) -> dict[str, tuple[str, ...]]:
        """Block → keys of the weights that it multiplies by; those that the host multiplies by are in none."""
        keys = [site.key for site in weights(module)]
        numbers = members(self.graph(module), self.graph(marked(module)))
        return {name: tuple(keys[n] for n in own) for name, own in numbers.items()}
