"""Weight sharing and training of the shared values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from compiler.errors import RecipeError
from compiler.train import quantize
from compiler.train.cluster import STARTS
from compiler.train.layers import Site, biases, weights
from compiler.train.loop import Hook, seed_of
from compiler.train.stages.base import Context, Stage, selection
from compiler.train.table import Table

__all__ = ["Share"]

_PER_EPOCH = 10
"""How often an epoch free labels are chosen anew."""


@dataclass(frozen=True, kw_only=True)
class Share(Stage):
    """Let the weights that are left share 2**code_bits - 1 values, and train those.

    Attributes
    ----------
    code_bits : one number, or a number for each layer.
    bias_bits : the same for the biases of all layers, or None to leave them as they are.
    start : how the first values are found, see `cluster.STARTS`.
    grid : "free": any values; "uniform": multiples of one step, whose greatest is trained.
    labels : "fixed": a weight keeps its value's number (the thesis' -c); "free": it may change (-c+1).
    only, ignore : patterns of the weights that are shared (empty: all), or left as they are, see `select.chosen`.
    """

    code_bits: int | Mapping[str, int]
    bias_bits: int | None
    start: str
    grid: str
    labels: str
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    least_epochs: ClassVar[int | None] = 0

    @classmethod
    def options(cls, table: Table, layers: list[str] | None) -> dict[str, Any]:
        """Widths, and how values are found and trained."""
        patterns, layers = selection(table, layers)
        return {
            **patterns,
            "code_bits": table.per_layer("code_bits", layers, lambda t, key: t.integer(key, 1, 8, default=4)),
            "bias_bits": table.integer("bias_bits", 1, 8) if table.has("bias_bits") else None,
            "start": table.choice("start", STARTS, default="exact"),
            "grid": table.choice("grid", ("free", "uniform"), default="free"),
            "labels": table.choice("labels", ("fixed", "free"), default="fixed"),
        }

    def begin(self, module: nn.Module, context: Context) -> dict[str, Any]:
        """Cluster the weights, and the biases if that is asked for."""
        sites = list(weights(module, self.only or None, self.ignore))
        bits = self.code_bits if isinstance(self.code_bits, Mapping) else {site.key: self.code_bits for site in sites}
        if set(bits) != {site.key for site in sites}:
            keys = ", ".join(site.key for site in sites)
            raise RecipeError(f"stage {self.name}: code_bits names {', '.join(bits)}; the layers are {keys}")
        attached = [(site, bits[site.key]) for site in sites]
        if self.bias_bits is not None:
            layers = {site.module for site in sites}
            attached += [(site, self.bias_bits) for site in biases(module) if site.module in layers]
        before = {site.key: site.value.detach().clone() for site, _ in attached}
        for number, (site, width) in enumerate(attached):
            quantize.attach(
                site.module,
                width,
                site.name,
                start=self.start,
                uniform=self.grid == "uniform",
                free=self.labels == "free",
                seed=seed_of(context.seed, context.number, number),
                key=site.key,
            )
        errors = {site.key: float(((site.value.detach() - before[site.key]) ** 2).sum()) for site, _ in attached}
        return {"squared_error": errors, "validation_before_training": context.measure(module)}

    def hooks(self, module: nn.Module, context: Context, record: Mapping[str, Any]) -> list[Hook]:
        """Choose free labels anew after steps."""
        assert self.schedule is not None
        if self.labels != "free":
            return []
        return [_Reassigner([*weights(module), *biases(module)], self.schedule.epochs)]


class _Reassigner(Hook):
    def __init__(self, sites: list[Site], epochs: int) -> None:
        self.sites, self.epochs = sites, epochs

    def after_step(self, step: int, total: int) -> None:
        every = max(1, total // self.epochs // _PER_EPOCH)
        if step % every == every - 1:
            for site in self.sites:
                quantize.reassign(site.module, site.name)
