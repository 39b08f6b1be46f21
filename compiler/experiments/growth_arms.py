"""The ways to a sparse network that are compared: the stages of each, and a small dense network of as many weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from compiler.errors import RecipeError
from compiler.experiments.tuned import settings_of
from compiler.train.data import DATASETS
from compiler.train.layers import weights
from compiler.train.models import ModelSpec, build
from compiler.train.schedule import Schedule
from compiler.train.stages import Stage, parse
from compiler.train.table import Table

__all__ = ["KINDS", "PENALTIES", "Arm", "narrowed"]

PENALTIES = ("l1", "l0")
KINDS = ("dense", "small", "prune", "rigl", "set", "static", *PENALTIES)

_STEPS = 64  # widths that are tried, from none to all


@dataclass(frozen=True)
class Arm:
    """A way to a sparse network, with the settings that validation chooses from.

    Attributes
    ----------
    name : in tables.
    kind : one of `KINDS`: a kind of stage; "small": a dense network as narrow as the number of weights asks for;
        "dense": the whole network, for comparison.
    settings : keys of the stage and of its schedule. Of l1 and l0 there is one, and `strengths` are what is varied.
    strengths : of l1 and l0: the least and the greatest that are thought of.
    """

    name: str
    kind: str
    settings: tuple[Mapping[str, Any], ...]
    strengths: tuple[float, ...] = ()

    @classmethod
    def parse(cls, table: Table, trials: int) -> Arm:
        """From ``[[arms]]``. Raises `RecipeError`."""
        name, kind = table.text("name"), table.choice("kind", KINDS)
        penalty = kind in PENALTIES
        settings = settings_of(table, 1 if penalty else trials)
        strengths = table.numbers("strengths", 0, 1e6) if penalty else ()
        if penalty and not (len(strengths) == 2 and strengths[0] < strengths[1]):
            raise RecipeError(
                f"{table.source}: {table.where}.strengths is {list(strengths)}; expected the least and the greatest"
            )
        table.finish()
        return cls(name, kind, settings, strengths)

    def setting(self, tried: Sequence[Mapping[str, Any]], density: float) -> dict[str, Any]:
        """What the next trial is made with: the next of a list, or a strength by bisection on a logarithmic scale.

        Parameters
        ----------
        tried : trials so far, with their `setting` and the density that they `reached` by themselves.
        """
        if not self.strengths:
            return dict(self.settings[len(tried)])
        low, high = self.strengths
        for one in tried:
            strength = one["setting"]["strength"]
            low, high = (strength, high) if one["reached"] > density else (low, strength)
        return {**self.settings[0], "strength": float(f"{math.sqrt(low * high):.3g}")}

    def stages(self, schedule: Schedule, setting: Mapping[str, Any], density: float, trimmed: float) -> list[Stage]:
        """What trains for as many epochs as `schedule` says.

        Parameters
        ----------
        trimmed : of l1 and l0: part of the epochs after the smallest magnitudes above `density` are taken away.
        """
        plain = schedule.asdict()
        if self.kind in ("dense", "small"):
            tables = [{"kind": "dense", **plain, **setting}]
        elif self.kind in PENALTIES:
            last = max(1, round(trimmed * schedule.epochs))
            if last >= schedule.epochs:
                raise RecipeError(
                    f"{schedule.epochs} epochs leave none before and after trimming; expected 2 or more, and trimmed "
                    "below 1"
                )
            rate = {"learning_rate": setting.get("learning_rate", schedule.learning_rate)}
            tables = [
                {"kind": self.kind, **plain, **setting, "epochs": schedule.epochs - last},
                {"kind": "prune", **plain, **rate, "epochs": last, "method": "oneshot", "scope": "global",
                 "density": density},
            ]  # fmt: skip
        else:
            tables = [{"kind": self.kind, **plain, "density": density, **setting}]
        return [stage for table in tables for stage in parse(Table(table, f"arm {self.name}", "settings"), None)]


def narrowed(model: ModelSpec, data: str, most: float) -> ModelSpec:
    """The same network with all widths in one proportion, so that it has at most `most` weights, or few fewer.

    Raises
    ------
    RecipeError
        The narrowest one has more.
    """
    found = None
    for step in range(1, _STEPS + 1):
        options = {key: _scaled(value, step / _STEPS) for key, value in model.options.items()}
        options |= {key: value for key, value in model.options.items() if key in ("padding", "blocks", "stride")}
        narrow = ModelSpec(model.name, options)
        with torch.device("meta"):
            module = build(narrow, DATASETS[data].shape, DATASETS[data].classes)
        if sum(site.value.numel() for site in weights(module)) > most:
            break
        found = narrow
    if found is None:
        raise RecipeError(f"{model.name} cannot be as narrow as {most:.0f} weights; choose a lower sparsity")
    return found


def _scaled(value: Any, share: float) -> Any:
    if isinstance(value, tuple):
        return tuple(_scaled(each, share) for each in value)
    return max(1, round(share * value))
