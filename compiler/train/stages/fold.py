"""Batch normalization goes into the layers before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from compiler.train import equalize, fold
from compiler.train.stages.base import Context, Stage
from compiler.train.table import Table

__all__ = ["Fold"]

_SAMPLES = 16


@dataclass(frozen=True, kw_only=True)
class Fold(Stage):
    """Fold every batch normalization that follows a layer; the function stays.

    Attributes
    ----------
    equalize : then scale the channels between layers so that the weights of a layer are alike in size, see `equalize`.
    """

    equalize: bool = False
    least_epochs: ClassVar[int | None] = None

    @classmethod
    def options(cls, table: Table, layers: list[str] | None) -> dict[str, Any]:
        """Whether channels are scaled as well."""
        return {"equalize": table.flag("equalize", default=False)}

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Fold, and report layers and normalizations, and the pairs of layers whose channels were scaled."""
        inputs = context.example(_SAMPLES)
        report = {"folded": fold.fold(module, inputs)}
        if self.equalize:
            report["equalized"] = equalize.equalize(module, inputs)
        return report
