"""Training of another network that later stages learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compiler.train.models import ModelSpec
from compiler.train.stages.base import Stage
from compiler.train.table import Table

__all__ = ["Teach"]


@dataclass(frozen=True, kw_only=True)
class Teach(Stage):
    """Train a network of its own, `model`; the recipe's network waits."""

    model: ModelSpec

    @classmethod
    def options(cls, table: Table, layers: list[str] | None) -> dict[str, Any]:
        """The table ``model``, as the recipe's own."""
        return {"model": ModelSpec.parse(table.table("model"))}

    def asdict(self) -> dict[str, Any]:
        """As a recipe says it."""
        return {**super().asdict(), "model": self.model.asdict()}
