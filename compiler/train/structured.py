"""From words to groups: which terms of a group lasso a recipe's lines stand for, on a given network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from compiler.errors import InputError, RecipeError
from compiler.train import bypass, channels, group_lasso
from compiler.train.group_lasso import Term, norms_after, term
from compiler.train.groups import SHAPES, Partition, along, blocks, by_labels, whole
from compiler.train.layers import Site, weights
from compiler.train.table import Table

__all__ = ["KINDS", "Groups", "Plan", "make_terms", "plan"]

KINDS = (*SHAPES, "block", "depth", "coupled", "labels")

_BLOCK = (
    "a block is a module with the methods branch(), which returns its layers under the shortcut, and bypassed(), which "
    "returns what is left without them, as compiler.train.bypass.Residual says"
)


@dataclass(frozen=True, kw_only=True)
class Groups:
    """One line of a recipe.

    Attributes
    ----------
    by : one of `KINDS`. "filter", "channel", "shape", "element", "whole": see `groups`. "block": tiles of `rows` x
        `columns`. "depth": all weights under a shortcut are one group. "coupled": a channel with all weights that make
        or take it, in every layer that shares it. "labels": integers in a file, see `groups.by_labels`.
    strength : lambda.
    layers : keys of the weights; for "depth" paths of residual blocks and for "coupled" of the first layer that makes
        the channels, where empty stands for all.
    by_size : times the square root of a group's size (Yuan and Lin, 2006; the paper has no such factor).
    norms : the scale of a batch normalization that follows is part of the group.
    rows, columns, file : see above.
    """

    by: str
    strength: float
    layers: tuple[str, ...] = ()
    by_size: bool = False
    norms: bool = True
    rows: int = 1
    columns: int = 1
    file: str | None = None

    @classmethod
    def parse(cls, table: Table) -> Groups:
        """From its table. Raises `RecipeError`."""
        by = table.choice("by", KINDS)
        free = by in ("depth", "coupled")
        fields: dict[str, Any] = {
            "by": by,
            "strength": table.number("strength", 0, 1e3),
            "layers": table.texts("layers", default=[]) if free else table.texts("layers"),
            "by_size": table.flag("by_size", default=False),
        }
        if free or by == "filter":
            fields["norms"] = table.flag("norms", default=True)
        if by == "block":
            fields |= {name: table.integer(name, 1, 1 << 16) for name in ("rows", "columns")}
        if by == "labels":
            fields["file"] = table.text("file")
        table.finish()
        return cls(**fields)

    def asdict(self) -> dict[str, Any]:
        """As a recipe says it."""
        found: dict[str, Any] = {"by": self.by, "strength": self.strength, "layers": list(self.layers)}
        found["by_size"] = self.by_size
        if self.by in ("depth", "coupled", "filter"):
            found["norms"] = self.norms
        if self.by == "block":
            found |= {"rows": self.rows, "columns": self.columns}
        if self.by == "labels":
            found["file"] = self.file
        return found


@dataclass(frozen=True)
class Plan:
    """What of a network must be known while its parameters are plain; plain data for JSON.

    Attributes
    ----------
    norms : path of a layer → path of the batch normalization of its output.
    channels : what `channels.find` finds: root, count, and makers and takers as [path, labels].
    """

    norms: dict[str, str] = field(default_factory=dict)
    channels: list[dict[str, Any]] = field(default_factory=list)


def plan(module: nn.Module, groups: Sequence[Groups], inputs: Tensor) -> Plan:
    """Trace a network with plain parameters on a few samples. Raises `ModelError`, `ToolError`."""
    found = []
    if any(each.by == "coupled" for each in groups):
        paths = {layer: path for path, layer in module.named_modules()}
        for each in channels.find(module, inputs):
            ends = {
                name: [[paths[end.layer], end.channels.tolist()] for end in part]
                for name, part in (("makers", each.makers), ("takers", each.takers))
            }
            found.append({"root": each.root, "count": each.count, **ends})
    return Plan(norms_after(module, inputs), found)


def make_terms(module: nn.Module, groups: Sequence[Groups], known: Plan) -> list[Term]:
    """The terms that some lines of a recipe stand for.

    Raises
    ------
    RecipeError
        A line names a layer or block that is not there, or finds nothing.
    InputError
        A file of labels cannot be read or does not fit its layer.
    """
    sites = {site.key: site for site in weights(module)}
    terms: list[Term] = []
    for each in groups:
        if each.by == "depth":
            made = _depth(module, each, sites, known)
        elif each.by == "coupled":
            made = _coupled(module, each, known)
        else:
            made = [_plain(module, each, _named(key, sites, each.by), known) for key in each.layers]
        if not made:
            advice = _BLOCK if each.by == "depth" else "give layers, or leave them out"
            raise RecipeError(f"groups by {each.by} find nothing in this network; {advice}")
        terms += [_sized(one, each) for one in made]
    return terms


def _plain(module: nn.Module, groups: Groups, site: Site, known: Plan) -> Term:
    shape = site.value.shape
    norm = known.norms.get(site.key) if groups.by == "filter" and groups.norms else None
    partition: Partition
    if groups.by == "block":
        partition = blocks(shape, groups.rows, groups.columns)
    elif groups.by == "labels":
        partition = _from_file(Path(cast(str, groups.file)), tuple(shape))
    else:
        partition = group_lasso.partition(site, groups.by)
    return term(site, partition, groups.strength, None if norm is None else module.get_submodule(norm))


def _depth(module: nn.Module, groups: Groups, sites: Mapping[str, Site], known: Plan) -> list[Term]:
    residual = dict(bypass.blocks(module))
    paths = {layer: path for path, layer in module.named_modules()}
    terms = []
    for path in groups.layers or residual:
        if path not in residual:
            raise RecipeError(
                f"groups by depth name {path}; this network has {', '.join(residual) or 'none'}: {_BLOCK}"
            )
        block = residual[path]
        parts = [sites[paths[layer]] for layer in block.branch()]
        if groups.norms:
            norms = [known.norms[site.key] for site in parts if site.key in known.norms]
            parts += [Site(norm, module.get_submodule(norm), "weight") for norm in norms]
        whole_parts = tuple((site, whole(site.value.shape)) for site in parts)
        terms.append(Term(whole_parts, groups.strength, series=True, name=path))
    return terms


def _coupled(module: nn.Module, groups: Groups, known: Plan) -> list[Term]:
    found = {each["root"]: each for each in known.channels}
    terms = []
    for root in groups.layers or found:
        entry = _named(root, found, groups.by)
        parts: list[tuple[Site, Partition]] = []
        for side, dim in (("makers", 0), ("takers", 1)):
            for path, labels in entry[side]:
                site = Site(path, module.get_submodule(path), "weight")
                parts.append((site, along(site.value.shape, (dim,), torch.tensor(labels), entry["count"])))
                if groups.norms and side == "makers" and path in known.norms:
                    scale = Site(known.norms[path], module.get_submodule(known.norms[path]), "weight")
                    parts.append((scale, along(scale.value.shape, (0,), torch.tensor(labels), entry["count"])))
        terms.append(Term(tuple(parts), groups.strength, name=root))
    return terms


def _sized(made: Term, groups: Groups) -> Term:
    strength = groups.strength * made.sizes().sqrt() if groups.by_size else groups.strength
    return Term(made.parts, strength, made.series, f"{groups.by} {made.name}")


def _named(key: str, among: Mapping[str, Any], by: str) -> Any:
    if key not in among:
        raise RecipeError(f"groups by {by} name {key}; this network has {', '.join(among) or 'none'}")
    return among[key]


def _from_file(path: Path, shape: tuple[int, ...]) -> Partition:
    try:
        labels = np.load(path, allow_pickle=False)
        if labels.shape != shape or labels.dtype.kind not in "iub":
            raise ValueError(f"it holds {labels.dtype} {labels.shape}; expected whole numbers {shape}")
        return by_labels(torch.from_numpy(labels if labels.dtype == np.bool_ else labels.astype(np.int64)))
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as labels of groups: {error}") from error
