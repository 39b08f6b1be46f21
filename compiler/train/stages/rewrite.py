"""Convolutions are rewritten into others with fewer products, which are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from compiler.train import rewrite
from compiler.train.loop import seed_of
from compiler.train.stages.base import Context, Stage, selection
from compiler.train.table import Table

__all__ = ["Rewrite"]


@dataclass(frozen=True, kw_only=True)
class Rewrite(Stage):
    """Rewrite convolutions, and train.

    Attributes
    ----------
    form : one of `rewrite.FORMS`.
    only, ignore : patterns of the layers that are rewritten (empty: all), or left as they are, see `select.chosen`.
    """

    form: str
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    @classmethod
    def options(cls, table: Table, layers: list[str] | None) -> dict[str, Any]:
        """The form."""
        patterns, _ = selection(table, layers)
        return {"form": table.choice("form", rewrite.FORMS), **patterns}

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Rewrite, and record weights before and after."""
        seed = seed_of(context.seed, context.number) % (1 << 32)
        return {"rewritten": rewrite.rewrite(module, self.form, self.only or None, self.ignore, seed)}
