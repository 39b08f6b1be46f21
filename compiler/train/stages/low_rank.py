"""Layers become products of smaller ones, which are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from compiler.train import low_rank
from compiler.train.stages.base import Context, Stage, selection
from compiler.train.table import Table

__all__ = ["LowRank"]


@dataclass(frozen=True, kw_only=True)
class LowRank(Stage):
    """Factor layers, and train.

    Attributes
    ----------
    keep : share of a layer's weights that its factors may have. way : of convolutions, one of `low_rank.WAYS`.
    only, ignore : patterns of the layers that are factored (empty: all), or left as they are, see `select.chosen`.
    """

    keep: float
    way: str
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    least_epochs: ClassVar[int | None] = 0

    @classmethod
    def options(cls, table: Table, layers: list[str] | None) -> dict[str, Any]:
        """How much is kept, and by which factors."""
        patterns, _ = selection(table, layers)
        return {
            "keep": table.number("keep", 0, 1, high_included=True),
            "way": table.choice("way", low_rank.WAYS, default="channels"), **patterns,
        }  # fmt: skip

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Factor, and record ranks, weights and errors of the layers."""
        found = low_rank.low_rank(module, self.keep, self.way, self.only or None, self.ignore)
        return {"factored": found, "validation_before_training": context.measure(module)}
