"""What the network of an experiment costs on an array: as a whole, and block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.experiments.policy.network import graph_of
from compiler.experiments.subject import Subject
from compiler.options import preset_options
from hw.params import preset
from sim.auto.blocks import keys_by_block
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

    @property
    def inputs(self) -> NDArray[Any]:
        """In the form that the network takes, (n, …)."""
        return self.subject.lesson.arrange(self.subject.dataset.train.inputs[: max(_CALIBRATED, self.samples)])

    def whole(self, module: Any) -> Cost | None:
        """Of the whole network; None where it does not fit the array."""
        inputs, graph = self.inputs, graph_of(module, self.subject.lesson)
        options = preset_options(self.array)
        try:
            return cost(graph, preset(self.array), (inputs,), (inputs[: self.samples],), options=options)
        except ImageError:
            return None

    def cycles(self, module: Any) -> float:
        """Of the whole network; infinite where it does not fit the array."""
        found = self.whole(module)
        return float("inf") if found is None else float(found.cycles)

    def blocks(self, module: Any) -> dict[str, float]:
        """Block → its cycles, by itself. Errors as of `sim.cost.cost`."""
        found = block_costs(
            graph_of(module, self.subject.lesson), preset(self.array), (self.inputs,), count=self.samples,
            options=preset_options(self.array),
        )  # fmt: skip
        return {name: float(each.cycles) for name, each in found.blocks.items()}

    def members(self, module: Any) -> dict[str, tuple[str, ...]]:
        """Block → keys of the weights that it multiplies by; those that the host multiplies by are in none."""
        return keys_by_block(module, self.subject.lesson)
