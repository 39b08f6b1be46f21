"""Weight sharing and training of the shared values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from compiler.errors import ModelError, RecipeError
from compiler.train import quantize
from compiler.train.cluster import STARTS
from compiler.train.layers import Site, biases, weights
from compiler.train.loop import Hook, seed_of
from compiler.train.select import chosen
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
    together : patterns, each of weights that have one set of values for all of them. The compiler puts a recurrent
        layer's weights of the input and of the state side by side, as one layer of the array with one codebook.
    only, ignore : patterns of the weights that are shared (empty: all), or left as they are, see `select.chosen`.
    """

    code_bits: int | Mapping[str, int]
    bias_bits: int | None
    start: str
    grid: str
    labels: str
    together: tuple[str, ...] = ()
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
            "together": _together(table, layers),
        }

    def asdict(self) -> dict[str, Any]:
        """As a recipe says it."""
        table = super().asdict()
        patterns = list(table.pop("together"))
        return {**table, "together": patterns} if patterns else table

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
        group_of = {key: group for group in self._groups(sites, bits) for key in group}
        numbers = {site.key: number for number, (site, _) in enumerate(attached)}
        for site, width in attached:
            group = group_of.get(site.key, [site.key])
            quantize.attach(
                site.module,
                width,
                site.name,
                start=self.start,
                uniform=self.grid == "uniform",
                free=self.labels == "free",
                seed=seed_of(context.seed, context.number, numbers[group[0]]),
                key=site.key,
                among=[before[key] for key in group if key != site.key],
            )
        errors = {site.key: float(((site.value.detach() - before[site.key]) ** 2).sum()) for site, _ in attached}
        return {"squared_error": errors, "validation_before_training": context.measure(module)}

    def hooks(self, module: nn.Module, context: Context, record: Mapping[str, Any]) -> list[Hook]:
        """Add up the gradients of values that are one; choose free labels anew after steps."""
        assert self.schedule is not None
        sites = {site.key: site for site in weights(module, self.only or None, self.ignore)}
        groups = [[sites[key] for key in chosen(list(sites), pattern)] for pattern in self.together]
        found: list[Hook] = [_Together(groups)] if groups else []
        if self.labels == "free":
            found.append(_Reassigner([*weights(module), *biases(module)], self.schedule.epochs))
        return found

    def _groups(self, sites: list[Site], bits: Mapping[str, int]) -> list[list[str]]:
        """Keys of the weights that have their values together."""
        groups = [chosen([site.key for site in sites], pattern) for pattern in self.together]
        for group in groups:
            if len({bits[key] for key in group}) > 1:
                raise RecipeError(
                    f"stage {self.name}: {', '.join(group)} have their values together; expected one code_bits for them"
                )
        return groups


def _together(table: Table, layers: list[str] | None) -> tuple[str, ...]:
    """Patterns, checked against the weights where these are known."""
    patterns = table.texts("together", default=[])
    if layers is None:
        return patterns
    try:
        groups = [chosen(layers, pattern) for pattern in patterns]
    except ModelError as error:
        raise RecipeError(f"{table.source}: {table.where}.together: {error}") from None
    keys = [key for group in groups for key in group]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise RecipeError(
            f"{table.source}: {table.where}.together names {', '.join(sorted(twice))} twice; expected once"
        )
    return patterns


class _Together(Hook):
    """Values of several layers begin the same and get the same gradients, so that they stay the same."""

    def __init__(self, groups: list[list[Site]]) -> None:
        self.groups = groups

    def after_backward(self, step: int, total: int) -> None:
        for group in self.groups:
            values = [quantize.values_of(site.module, site.name) for site in group]
            gradients = [value.grad for value in values if value.grad is not None]
            for value in values if gradients else []:
                value.grad = torch.stack(gradients).sum(0)


class _Reassigner(Hook):
    def __init__(self, sites: list[Site], epochs: int) -> None:
        self.sites, self.epochs = sites, epochs

    def after_step(self, step: int, total: int) -> None:
        every = max(1, total // self.epochs // _PER_EPOCH)
        if step % every == every - 1:
            for site in self.sites:
                quantize.reassign(site.module, site.name)
