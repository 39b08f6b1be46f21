"""Batch normalization goes into the layers before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from compiler.train import fold
from compiler.train.stages.base import Context, Stage

__all__ = ["Fold"]

_SAMPLES = 16


@dataclass(frozen=True, kw_only=True)
class Fold(Stage):
    """Fold every batch normalization that follows a layer; the function stays."""

    least_epochs: ClassVar[int | None] = None

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Fold, and report layers and normalizations."""
        return {"folded": fold.fold(module, context.example(_SAMPLES))}
