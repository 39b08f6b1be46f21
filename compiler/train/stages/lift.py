"""Training after the masks are lifted: the second half of dense-sparse-dense training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from compiler.train import dsd
from compiler.train.stages.base import Context, Stage

__all__ = ["Lift"]


@dataclass(frozen=True, kw_only=True)
class Lift(Stage):
    """Let weights that earlier stages pruned restart from zero, and train all of them."""

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Open the masks and report how many weights come back."""
        return {"lifted": dsd.lift(module)}
