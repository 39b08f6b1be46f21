"""Training as several workers would that send each other ternary gradients, all in this process.

Source: TernGrad: Ternary Gradients to Reduce Communication in Distributed Deep Learning (Wen et al., NIPS 2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from compiler.errors import RecipeError
from compiler.train.images import Images
from compiler.train.loop import Hook, seed_of
from compiler.train.stages.base import Context, Stage
from compiler.train.table import Table
from compiler.train.terngrad.averaging import Clock
from compiler.train.terngrad.exchange import Exchange
from compiler.train.terngrad.settings import Settings
from compiler.train.terngrad.virtual import VirtualWorkers

__all__ = ["TernGrad"]


@dataclass(frozen=True, kw_only=True)
class TernGrad(Stage):
    """Train what there is with the average of the workers' ternary gradients.

    Attributes
    ----------
    workers : how many share each batch; `schedule.batch` is that of all together.
    gradients : how they are turned ternary.
    """

    workers: int
    gradients: Settings

    @classmethod
    def options(cls, table: Table, layers: list[str] | None) -> dict[str, Any]:
        """The number of workers, and the table ``gradients``."""
        workers = table.integer("workers", 1, 1 << 14)
        content = table.table("gradients") if table.has("gradients") else Table({}, table.source, table.where)
        return {"workers": workers, "gradients": Settings.parse(content, 0)}

    def asdict(self) -> dict[str, Any]:
        """As a recipe says it."""
        return {**super().asdict(), "gradients": self.gradients.asdict()}

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """See that every worker has a share of every batch."""
        assert self.schedule is not None
        if isinstance(context.lesson, Images):
            samples = len(context.lesson.split)
            batch = min(self.schedule.batch, samples)
            least = samples % batch or batch
            if least < self.workers:
                raise RecipeError(
                    f"stage {self.name}: {samples} samples in batches of {batch} leave {least} in the last one, fewer "
                    f"than the {self.workers} workers; choose another batch, or number of samples or of workers"
                )
        return {"ternary": []}

    def hooks(self, module: nn.Module, context: Context, record: Mapping[str, Any]) -> list[Hook]:
        """The workers, and what tells them which step it is."""
        assert self.schedule is not None
        settings = replace(self.gradients, seed=seed_of(context.seed, context.number))
        workers = VirtualWorkers(module, settings, self.workers)
        return [_Workers(workers, context.lesson.steps(self.schedule.batch), record["ternary"])]


class _Workers(Clock):
    """Makes the gradients of a step; reports after an epoch which tensors are ternary."""

    def __init__(self, workers: VirtualWorkers, steps: int, ternary: list[str]) -> None:
        super().__init__(workers.exchange, steps)
        self.backward, self.ternary = workers, ternary

    def after_epoch(self, epoch: int) -> None:
        """The names, the same after every epoch."""
        assert isinstance(self.exchange, Exchange)
        self.ternary[:] = [name for name, yes in self.exchange.plan.ternary.items() if yes]
