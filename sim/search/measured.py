"""What the network of an experiment costs on an array: as a whole, and block by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.experiments.policy.network import graph_of
from compiler.experiments.subject import Subject
from compiler.options import DEFAULT, Options, preset_options
from hw.params import Params, preset
from sim.auto.blocks import keys_by_block
from sim.cost import Cost, block_costs, cost
from sim.search.ran import ran

__all__ = ["Measured"]

_CALIBRATED = 64
"""Training samples by which number formats are chosen, if no more are asked for."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Costs of the networks of a subject.

    Attributes
    ----------
    subject : whose training samples number formats are chosen by, and cycles measured on. params : the array.
    samples : how many of them, the first ones, cycles are the mean over. options : of the compiler.
    """

    subject: Subject
    params: Params
    samples: int
    options: Options = DEFAULT

    @classmethod
    def on(cls, array: str, subject: Subject, samples: int) -> Measured:
        """On a preset, with its options."""
        return cls(subject, preset(array), samples, preset_options(array))

    @property
    def inputs(self) -> NDArray[Any]:
        """In the form that the network takes, (n, …)."""
        return self.subject.lesson.arrange(self.subject.dataset.train.inputs[: max(_CALIBRATED, self.samples)])

    def whole(self, module: Any) -> Cost | None:
        """Of the whole network; None where it does not fit the array."""
        inputs, graph = self.inputs, graph_of(module, self.subject.lesson)
        try:
            return cost(graph, self.params, (inputs,), (inputs[: self.samples],), options=self.options)
        except ImageError:
            return None

    def cycles(self, module: Any) -> float:
        """Of the whole network; infinite where it does not fit the array."""
        found = self.whole(module)
        return float("inf") if found is None else float(found.cycles)

    def in_hardware(self, module: Any, engine: str = "rtl") -> dict[str, Any]:
        """Whether the hardware takes the cycles that `cycles` says, with golden's values; see `ran.ran`."""
        inputs, graph = self.inputs, graph_of(module, self.subject.lesson)
        return ran(graph, self.params, inputs, inputs[: self.samples], self.cycles(module), engine, self.options)

    def parts(self, module: Any) -> Mapping[str, Cost]:
        """Block → what it costs by itself. Errors as of `sim.cost.cost`."""
        return block_costs(
            graph_of(module, self.subject.lesson), self.params, (self.inputs,), count=self.samples, options=self.options
        ).blocks

    def blocks(self, module: Any) -> dict[str, float]:
        """Block → its cycles, by itself. Errors as of `sim.cost.cost`."""
        return {name: float(each.cycles) for name, each in self.parts(module).items()}

    def members(self, module: Any) -> dict[str, tuple[str, ...]]:
        """Block → keys of the weights that it multiplies by; those that the host multiplies by are in none."""
        return keys_by_block(module, self.subject.lesson)
