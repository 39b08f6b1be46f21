"""Convolutions are rewritten into others with fewer products, which are trained on."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from compiler.errors import RecipeError
from compiler.train import rewrite
from compiler.train.images import Images
from compiler.train.imitate import Imitation
from compiler.train.loop import fit, seed_of
from compiler.train.stages.base import Context, Stage, selection
from compiler.train.table import Table

__all__ = ["Rewrite"]


@dataclass(frozen=True, kw_only=True)
class Rewrite(Stage):
    """Rewrite convolutions, and train.

    Attributes
    ----------
    form : one of `rewrite.FORMS`.
    imitate : epochs before those of the schedule, in which the new layers alone learn to answer as the old ones did.
    only, ignore : patterns of the layers that are rewritten (empty: all), or left as they are, see `select.chosen`.
    """

    form: str
    imitate: int = 0
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    @classmethod
    def options(cls, table: Table, layers: list[str] | None) -> dict[str, Any]:
        """The form, and how it starts."""
        patterns, _ = selection(table, layers)
        imitate = table.integer("imitate", 0, 100_000, default=0)
        return {"form": table.choice("form", rewrite.FORMS), "imitate": imitate, **patterns}

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Rewrite, and record weights before and after, and the accuracy before the network as a whole is trained.

        Raises
        ------
        RecipeError
            Layers are to imitate others, and the lesson has no images.
        """
        seed = seed_of(context.seed, context.number) % (1 << 32)
        before = self._answers(module, context) if self.imitate else None
        counts = rewrite.rewrite(module, self.form, self.only or None, self.ignore, seed)
        if before is not None:
            assert self.schedule is not None
            lesson, schedule = replace(before, paths=tuple(counts)), replace(self.schedule, epochs=self.imitate)
            fit(module, lesson, schedule, (context.seed, context.number, 1))
        return {"rewritten": counts, "validation_before_training": context.measure(module)}

    def _answers(self, module: nn.Module, context: Context) -> Imitation:
        """Of the network as it is now, of no layers yet."""
        if not isinstance(context.lesson, Images):
            raise RecipeError(f"stage {self.name}: imitate is {self.imitate}; expected 0, as the lesson has no images")
        return Imitation(context.lesson, copy.deepcopy(module).eval(), ())
