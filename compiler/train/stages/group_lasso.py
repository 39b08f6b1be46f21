"""Training with a group lasso, which takes whole groups of weights to zero.

Source: Learning Structured Sparsity in Deep Neural Networks (Wen et al., NIPS 2016).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from compiler.errors import RecipeError
from compiler.train import group_lasso, prune, structure
from compiler.train.bypass import Bypassed
from compiler.train.layers import make_plain
from compiler.train.loop import Hook
from compiler.train.narrowed import Narrowed
from compiler.train.stages.base import Context, Stage
from compiler.train.structured import Groups, Plan, make_terms, plan
from compiler.train.table import Table

__all__ = ["GroupLasso"]

_SAMPLES = 4


@dataclass(frozen=True, kw_only=True)
class GroupLasso(Stage):
    """Train with a penalty on the norms of groups; what is zero after an epoch stays zero, here and in later stages.

    Attributes
    ----------
    groups : which, and how strongly.
    threshold : magnitude below which a weight is set to zero after a step.
    """

    groups: tuple[Groups, ...]
    threshold: float

    @classmethod
    def options(cls, table: Table, layers: list[str] | None) -> dict[str, Any]:
        """The tables ``[[stages.groups]]`` and the threshold."""
        groups = tuple(Groups.parse(each) for each in table.tables("groups"))
        if not groups:
            raise RecipeError(f"{table.source}: {table.where}.groups is empty; expected one table or more")
        least = table.number("threshold", 0, 1, default=group_lasso.THRESHOLD, low_included=True)
        return {"groups": groups, "threshold": least}

    def asdict(self) -> dict[str, Any]:
        """As a recipe says it."""
        return {**super().asdict(), "groups": [each.asdict() for each in self.groups]}

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Trace the network, and put masks on everything that may be frozen."""
        masked = structure.describe(module)
        if any(entry["kind"] not in (prune.Mask.kind, Bypassed.kind, Narrowed.kind) for entry in masked.values()):
            raise RecipeError(f"stage {self.name}: the network has shared weights; a group lasso comes before sharing")
        make_plain(module)
        known = plan(module, self.groups, context.example(_SAMPLES))
        for full, entry in masked.items():
            if entry["kind"] == prune.Mask.kind:
                path, _, name = full.rpartition(".")
                owner = module.get_submodule(path)
                prune.attach(owner, name).mask.copy_(getattr(owner, name) != 0)
        terms, norms = self._terms(module, known)
        group_lasso.prepare(terms, norms)
        return {**asdict(known), "count": {each.name: each.count for each in terms}, "dead": {}}

    def hooks(self, module: nn.Module, context: Context, record: Mapping[str, Any]) -> list[Hook]:
        """The penalty, the threshold, and freezing."""
        terms, norms = self._terms(module, Plan(record["norms"], record["channels"]))
        return [group_lasso.Regularizer(terms, self.threshold, norms, record["dead"])]

    def _terms(self, module: nn.Module, known: Plan) -> tuple[list[group_lasso.Term], dict[nn.Module, nn.Module]]:
        norms = {module.get_submodule(layer): module.get_submodule(norm) for layer, norm in known.norms.items()}
        return make_terms(module, self.groups, known), norms
