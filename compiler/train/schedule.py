"""How long, how fast and with which optimizer a module trains."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compiler.train.large_batch import LAMB, LARS, TRUST
from compiler.train.table import Table

__all__ = ["OPTIMIZERS", "SHAPES", "Schedule"]

OPTIMIZERS = ("adamw", "sgd", "lars", "lamb")
SHAPES = ("cosine", "constant", "drops")

_ALWAYS = 4  # fields that a recipe always says


@dataclass(frozen=True)
class Schedule:
    """How long, how fast and with which optimizer.

    Attributes
    ----------
    epochs, batch : passes over the samples, and samples a step.
    learning_rate : the greatest, at a batch of `base_batch` where that is given; see `greatest`.
    weight_decay : decoupled (AdamW), added to the gradient (SGD, LARS), or to the step (LAMB).
    cycles : how many times over the rate takes its course.
    optimizer : one of `OPTIMIZERS`; see `large_batch` for the latter two.
    momentum : of SGD and LARS.
    trust : of LARS.
    clip : greatest norm of all gradients together; 0: none.
    shape : "cosine": the rate falls to zero along half a cosine; "constant"; "drops": it is multiplied by `factor` at
        each of `drops`.
    drops : 0 … 1, parts of the training.
    warmup : 0 … 1, part of the training in which the rate rises in a line to what the shape says.
    base_batch : samples of the batch that `learning_rate` was chosen for; 0: of `batch`.
    accumulate : parts in which the batch of a step goes through the network; gradients add up, the step stays the same.
        Layers that look at their whole batch, as batch normalization does, see one part at a time.

    Source of `warmup` and `base_batch`: Accurate, Large Minibatch SGD (Goyal et al., 2017), sections 2.1 and 2.2.
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
    warmup: float = 0.0
    base_batch: int = 0
    accumulate: int = 1
    trust: float = TRUST

    @classmethod
    def parse(cls, table: Table, least_epochs: int) -> Schedule:
        """From the table of a stage. Raises `RecipeError`."""
        optimizer = table.choice("optimizer", OPTIMIZERS, default="adamw")
        shape = table.choice("shape", SHAPES, default="cosine")
        stepped = shape == "drops"
        batch = table.integer("batch", 1, 1 << 16, default=64)
        return cls(
            epochs=table.integer("epochs", least_epochs, 10_000),
            batch=batch,
            learning_rate=table.number("learning_rate", 0, 100),
            weight_decay=table.number("weight_decay", 0, 1, default=0.0, low_included=True),
            optimizer=optimizer,
            momentum=table.number("momentum", 0, 1, default=0.9, low_included=True)
            if optimizer in ("sgd", "lars")
            else 0.9,
            clip=table.number("clip", 0, 1e6, default=0.0, low_included=True),
            shape=shape,
            drops=table.numbers("drops", 0, 1) if stepped else (),
            factor=table.number("factor", 0, 1, default=0.1) if stepped else 0.1,
            warmup=table.number("warmup", 0, 1, default=0.0, low_included=True, high_included=True),
            base_batch=table.integer("base_batch", 0, 1 << 16, default=0),
            accumulate=table.integer("accumulate", 1, batch, default=1),
            trust=table.number("trust", 0, 1, default=TRUST) if optimizer == "lars" else TRUST,
        )

    def asdict(self) -> dict[str, Any]:
        """As a recipe says it: what differs from plain AdamW is there, `cycles`, which a stage decides, is not."""
        table = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "cycles"}
        plain = {field.name: field.default for field in dataclasses.fields(self)[_ALWAYS:]}
        table = {key: value for key, value in table.items() if key not in plain or value != plain[key]}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in table.items()}

    @property
    def greatest(self) -> float:
        """Learning rate of a step at its greatest: in proportion to the batch where `base_batch` is given."""
        return self.learning_rate * self.batch / self.base_batch if self.base_batch else self.learning_rate

    def rate(self, step: int, total: int) -> float:
        """Learning rate of one of `total` steps."""
        position = step / total * self.cycles % 1.0
        rising = self.warmup * total
        greatest = self.greatest * (min(1.0, (step + 1) / rising) if rising else 1.0)
        if self.shape == "constant":
            return greatest
        if self.shape == "drops":
            return greatest * math.prod(self.factor for drop in self.drops if position >= drop)
        return greatest * 0.5 * (1 + math.cos(math.pi * position))

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of `parameters`.

        One kernel takes all parameters of a step ("fused"): three times as fast as one operation after the other. It
        takes no distributed ones.
        """
        parameters = list(parameters)
        if self.optimizer == "lars":
            return LARS(parameters, self.greatest, self.momentum, self.weight_decay, self.trust)
        if self.optimizer == "lamb":
            return LAMB(parameters, self.greatest, self.weight_decay)
        fused = all(type(parameter) is nn.Parameter for parameter in parameters)
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                parameters, lr=self.greatest, momentum=self.momentum, weight_decay=self.weight_decay, fused=fused
            )
        return torch.optim.AdamW(parameters, lr=self.greatest, weight_decay=self.weight_decay, fused=fused)
