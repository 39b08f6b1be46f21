"""Training that takes hidden units of recurrent layers to zero, for ``shrink`` to cut out.

Source: Learning Intrinsic Sparse Structures within Long Short-Term Memory (Wen et al., ICLR 2018).
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from compiler.errors import RecipeError
from compiler.train import group_lasso, iss
from compiler.train.loop import Hook
from compiler.train.readers import readers, recurrent_layers
from compiler.train.stages.base import Context, Stage
from compiler.train.table import Table

__all__ = ["Iss"]

_SAMPLES = 4


@dataclass(frozen=True, kw_only=True)
class Iss(Stage):
    """Train with a group lasso on the hidden units of RNN, LSTM and GRU modules.

    Attributes
    ----------
    strength : of the penalty.
    threshold : magnitude below which a weight of the groups is set to zero after a step.
    layers : paths of the recurrent modules; empty: all. Which layers read them is found by running the network.
    """

    strength: float
    threshold: float
    layers: tuple[str, ...]

    @classmethod
    def options(cls, table: Table, layers: list[str] | None) -> dict[str, Any]:
        """Strength, threshold, modules."""
        return {
            "strength": table.number("strength", 0, 1e3),
            "threshold": table.number("threshold", 0, 1, default=1e-4, low_included=True),
            "layers": table.texts("layers", default=[]),
        }

    def asdict(self) -> dict[str, Any]:
        """As a recipe says it."""
        return {**super().asdict(), "layers": list(self.layers)}

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Find who reads the units."""
        paths = list(self.layers) or recurrent_layers(module)
        if not paths:
            raise RecipeError(f"stage {self.name}: the network has no RNN, LSTM or GRU whose units could be removed")
        found = {path: readers(module, path, context.example(_SAMPLES)) for path in paths}
        units = _units(module, found)  # refuses what has no such groups before anything is trained
        return {
            "readers": found,
            "units": {path: [each.size for each in part] for path, part in units.items()},
            "dead": {},
        }

    def hooks(self, module: nn.Module, context: Context, record: Mapping[str, Any]) -> list[Hook]:
        """Penalty and threshold."""
        return [_Units(_units(module, record["readers"]), self.strength, self.threshold, record["dead"])]


class _Units(iss.ISS):
    """The hook of ISS, which reports after each epoch how many units of each layer nothing hears."""

    def __init__(
        self, units: Mapping[str, list[iss.Units]], strength: float, least: float, dead: MutableMapping[str, Any]
    ) -> None:
        every = [each for part in units.values() for each in part]
        places = {(id(part.module), part.name): part for each in every for part in each.parts}
        trained = [group_lasso.original(part.module, part.name) for part in places.values()]
        super().__init__(every, trained, strength, least)
        self.named, self.dead = units, dead

    def after_epoch(self, epoch: int) -> None:
        """Count."""
        for path, part in self.named.items():
            self.dead[path] = [int(iss.dead(each).sum()) for each in part]


def _units(module: nn.Module, found: Mapping[str, list[str]]) -> dict[str, list[iss.Units]]:
    known = dict(module.named_modules())
    return {
        path: iss.hidden_units(cast(Any, known[path]), [cast(nn.Linear, known[name]) for name in names])
        for path, names in found.items()
    }
