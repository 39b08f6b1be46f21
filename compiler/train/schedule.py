"""How long, how fast and with which optimizer a module trains."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compiler.train.table import Table

__all__ = ["OPTIMIZERS", "SHAPES", "Schedule"]

OPTIMIZERS = ("adamw", "sgd")
SHAPES = ("cosine", "constant", "drops")

_ALWAYS = 4  # fields that a recipe always says


@dataclass(frozen=True)
class Schedule:
    """How long, how fast and with which optimizer.

    Attributes
    ----------
    epochs, batch : passes over the samples, and samples a step.
    learning_rate : the greatest.
    weight_decay : decoupled (AdamW), or added to the gradient (SGD).
    cycles : how many times over the rate takes its course.
    optimizer : one of `OPTIMIZERS`.
    momentum : of SGD.
    clip : greatest norm of all gradients together; 0: none.
    shape : "cosine": the rate falls to zero along half a cosine; "constant"; "drops": it is multiplied by `factor` at
        each of `drops`.
    drops : 0 … 1, parts of the training.
    """

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.0
    cycles: int = 1
    optimizer: str = "adamw"
    momentum: float = 0.9
    clip: float = 0.0
    shape: str = "cosine"
    drops: tuple[float, ...] = ()
    factor: float = 0.1

    @classmethod
    def parse(cls, table: Table, least_epochs: int) -> Schedule:
        """From the table of a stage. Raises `RecipeError`."""
        optimizer = table.choice("optimizer", OPTIMIZERS, default="adamw")
        shape = table.choice("shape", SHAPES, default="cosine")
        stepped = shape == "drops"
        return cls(
            epochs=table.integer("epochs", least_epochs, 10_000),
            batch=table.integer("batch", 1, 1 << 16, default=64),
            learning_rate=table.number("learning_rate", 0, 100),
            weight_decay=table.number("weight_decay", 0, 1, default=0.0, low_included=True),
            optimizer=optimizer,
            momentum=table.number("momentum", 0, 1, default=0.9, low_included=True) if optimizer == "sgd" else 0.9,
            clip=table.number("clip", 0, 1e6, default=0.0, low_included=True),
            shape=shape,
            drops=table.numbers("drops", 0, 1) if stepped else (),
            factor=table.number("factor", 0, 1, default=0.1) if stepped else 0.1,
        )

    def asdict(self) -> dict[str, Any]:
        """As a recipe says it: what differs from plain AdamW is there, `cycles`, which a stage decides, is not."""
        table = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "cycles"}
        plain = {field.name: field.default for field in dataclasses.fields(self)[_ALWAYS:]}
        table = {key: value for key, value in table.items() if key not in plain or value != plain[key]}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in table.items()}

    def rate(self, step: int, total: int) -> float:
        """Learning rate of one of `total` steps."""
        position = step / total * self.cycles % 1.0
        if self.shape == "constant":
            return self.learning_rate
        if self.shape == "drops":
            return self.learning_rate * math.prod(self.factor for drop in self.drops if position >= drop)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * position))

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of `parameters`.

        One kernel takes all parameters of a step ("fused"): three times as fast as one operation after the other. It
        takes no distributed ones.
        """
        parameters = list(parameters)
        fused = all(type(parameter) is nn.Parameter for parameter in parameters)
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                parameters, lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay, fused=fused
            )
        return torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay, fused=fused)
