"""What TernGrad is told, and which tensors of a network it turns ternary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from compiler.errors import RecipeError
from compiler.train.table import Table

__all__ = ["SCHEMES", "Plan", "Settings", "layer_of", "plan_for"]

SCHEMES = ("auto", "gather", "sums")
"""How ternary values meet: see `wire`. "auto" takes the one that sends fewest bytes."""


@dataclass(frozen=True)
class Settings:
    """How gradients are turned ternary.

    Attributes
    ----------
    clip : the scaler of a tensor is this many standard deviations of its gradient, which clips what lies beyond;
        0: the largest magnitude, which clips nothing.
    smallest : tensors of fewer elements stay float; below some hundreds the scaler and the framing of messages cost
        more than is saved.
    last : whether the last layer, whose gradients are the most skewed, is turned ternary as well.
    float_every : every so many epochs all tensors stay float (epochs n, 2n, … counted from 1); 0: never.
    seed : of the random numbers; with step, worker and tensor it decides every one of them.
    scheme : one of `SCHEMES`.
    """

    clip: float = 2.5
    smallest: int = 256
    last: bool = False
    float_every: int = 0
    seed: int = 1
    scheme: str = "auto"

    def __post_init__(self) -> None:
        legal = {
            "clip": self.clip >= 0,
            "smallest": self.smallest >= 0,
            "float_every": self.float_every >= 0,
            "scheme": self.scheme in SCHEMES,
        }
        for name, fine in legal.items():
            if not fine:
                expected = f"one of {', '.join(SCHEMES)}" if name == "scheme" else "0 or more"
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected {expected}")

    @classmethod
    def parse(cls, table: Table, seed: int) -> Settings:
        """From a recipe's table. Raises `RecipeError`."""
        settings = cls(
            clip=table.number("clip", 0, 100, default=2.5, low_included=True),
            smallest=table.integer("smallest", 0, 1 << 30, default=256),
            last=table.flag("last", default=False),
            float_every=table.integer("float_every", 0, 1 << 20, default=0),
            seed=seed,
            scheme=table.choice("scheme", SCHEMES, default="auto"),
        )
        table.finish()
        return settings

    def asdict(self) -> dict[str, Any]:
        """As a recipe says it; the seed is the recipe's own."""
        return {key: value for key, value in asdict(self).items() if key != "seed"}

    def float_epoch(self, epoch: int) -> bool:
        """Whether all tensors stay float in an epoch, counted from 0."""
        return self.float_every > 0 and (epoch + 1) % self.float_every == 0


@dataclass(frozen=True)
class Plan:
    """Which parameters become ternary: name → whether it does, in the order in which the module registers them.

    A tensor's number, which its random numbers depend on, is its place in this order.
    """

    ternary: Mapping[str, bool]

    @property
    def names(self) -> list[str]:
        """All parameters."""
        return list(self.ternary)


def plan_for(module: nn.Module, settings: Settings, last: str | None = None) -> Plan:
    """The plan of a network; parameters that are frozen yet are in it as well.

    Parameters
    ----------
    last : name of a parameter of the last layer. None: that of the last submodule with parameters of its own, in the
        order in which they were registered, which is the order of the network in all of this kit's models.

    Raises
    ------
    RecipeError
        Nothing would be ternary.
    """
    named = dict(module.named_parameters())
    layer = layer_of(last or next(reversed(named), ""))
    ternary = {
        name: parameter.numel() >= settings.smallest and (settings.last or layer_of(name) != layer)
        for name, parameter in named.items()
    }
    if not any(ternary.values()):
        sizes = ", ".join(f"{name} {parameter.numel()}" for name, parameter in named.items())
        raise RecipeError(
            f"no tensor would be ternary: the network has {sizes or 'no parameters'}; smallest is {settings.smallest} "
            f"and last is {str(settings.last).lower()}: lower the one or set the other"
        )
    return Plan(ternary)


def layer_of(name: str) -> str:
    """Path of the layer that a parameter belongs to, masks and shared weights of it included."""
    return name.split("parametrizations.")[0].rstrip(".") if "parametrizations." in name else name.rpartition(".")[0]
