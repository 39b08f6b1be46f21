"""Bits of the shared weights of each layer, under a limit on their bytes, by agents and by what they have to beat.

Source: HAQ: Hardware-Aware Automated Quantization with Mixed Precision (Wang et al., CVPR 2019), with shared weights
(k-means) as in its table 6, or on a uniform grid as in its other tables. `sim.search.haq` limits cycles and energy.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from compiler.errors import RecipeError
from compiler.experiments.policy.comparison import Comparison, Known
from compiler.experiments.policy.network import Change, Variants, example, features, gridded, shared
from compiler.experiments.policy.problem import Policy, Problem
from compiler.experiments.subject import Subject
from compiler.train.layers import weights
from compiler.train.packing import compressed_files
from compiler.train.stages import Share
from compiler.train.table import Table

__all__ = ["QUANTIZERS", "Haq", "layer_bytes"]

AGENTS = ("uniform", "random", "greedy", "tpe", "cmaes", "ddpg")
QUANTIZERS: Mapping[str, Change] = {"shared": shared, "grid": gridded}
"""How bits become values: "shared" any 2**bits - 1 beside zero, "grid" multiples of one step, zero among them."""


@dataclass(frozen=True, kw_only=True)
class Haq(Comparison):
    """Codes of `low` to `high` bits; the limit is the bytes of codes of `uniform` bits in all layers.

    Attributes
    ----------
    ends : bits of the first and the last layer, as published 8; 0 leaves them to the agents.
    quantizers : names of `QUANTIZERS`; each is searched for.
    """

    kind: ClassVar[str] = "haq"
    low: int
    high: int
    uniform: int
    ends: int
    quantizers: tuple[str, ...]

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Widths, the limit, and what all comparisons have."""
        quantizers = table.texts("quantizers", default=["shared"])
        if not quantizers or any(name not in QUANTIZERS for name in quantizers):
            raise RecipeError(
                f"{table.source}: quantizers is {list(quantizers)}; expected some of {', '.join(QUANTIZERS)}"
            )
        return {**cls.widths(table), "quantizers": quantizers}

    @classmethod
    def widths(cls, table: Table) -> dict[str, Any]:
        """The fields that do not say what is searched for. Raises `RecipeError`."""
        low = table.integer("low", 1, 8, default=2)
        high = table.integer("high", low + 1, 8, default=8)
        return {
            "low": low, "high": high, "uniform": table.integer("uniform", low, high),
            "ends": table.integer("ends", 0, 8, default=8), **cls.common(table, AGENTS),
        }  # fmt: skip

    def settings(self) -> list[Mapping[str, Any]]:
        """Each quantizer."""
        return [{"quantizer": name} for name in self.quantizers]

    def quantizer(self, options: Mapping[str, Any]) -> str:
        """The name of the one that belongs to one of `settings`."""
        return str(options["quantizer"])

    def levels(self, count: int) -> list[list[int]]:
        """Widths that each of so many layers may have."""
        found = [list(range(self.low, self.high + 1)) for _ in range(count)]
        if self.ends:
            found[0] = found[-1] = [self.ends]
        return found

    def variants(
        self, subject: Subject, options: Mapping[str, Any], groups: Sequence[Sequence[int]] | None = None
    ) -> Variants:
        """The network's layers at all of their widths; `groups` as of `Variants.make`."""
        split = subject.dataset.validation.take(slice(self.judged))
        levels = self.levels(len(list(weights(subject.module))))
        change = QUANTIZERS[self.quantizer(options)]
        return Variants.make(subject.module, levels, change, subject.lesson, split, groups)

    def problem(self, subject: Subject, options: Mapping[str, Any]) -> Known:
        """Bytes of each layer at each width, and the network that has them."""
        variants, quantizer = self.variants(subject, options), self.quantizer(options)
        costs = [[layer_bytes(site.value.numel(), int(bits), quantizer) for bits in each]
                 for site, each in zip(variants.sites, variants.levels, strict=True)]  # fmt: skip
        budget = sum(cost[0] if len(cost) == 1 else cost[self.uniform - self.low] for cost in costs)
        described = features(subject.module, example(subject.lesson))
        return Known(Problem(costs, budget, variants.score, described), variants, options)

    def costs(
        self, subject: Subject, known: Known, policy: Policy, found: nn.Module, trained: nn.Module
    ) -> dict[str, float]:
        """Codes in fixed width with their tables, as the limit counts them, and the whole file, entropy-coded."""
        bits = map(int, known.variants.named(policy))
        sizes = [site.value.numel() for site in weights(found)]
        quantizer = self.quantizer(known.options)
        counted = sum(layer_bytes(size, width, quantizer) for size, width in zip(sizes, bits, strict=True))
        return {"bytes": counted, "bytes of .eiez": min(map(len, compressed_files(found).values()))}

    def trained(self, subject: Subject, known: Known, policy: Policy) -> nn.Module:
        """Trained on from the trained weights; those that the quantizer made zero stay it."""
        found = known.variants.found(policy)
        start = copy.deepcopy(subject.module)
        with torch.no_grad():
            for site, quantized in zip(weights(start), weights(found), strict=True):
                site.value.mul_(quantized.value != 0)
        return super().trained(replace(subject, module=start), known, policy)

    def stage(self, levels: Mapping[str, float], options: Mapping[str, Any]) -> Share:
        """The shared values are trained, or the step of the grid."""
        return Share(
            kind="share", name="share", schedule=self.finetune, bias_bits=None, start="density",
            grid="uniform" if self.quantizer(options) == "grid" else "free", labels="free",
            code_bits={key: int(bits) for key, bits in levels.items()},
        )  # fmt: skip


def layer_bytes(count: int, bits: int, quantizer: str = "shared") -> float:
    """A code for each weight, and a table of int16 values, or the step of a grid."""
    return count * bits / 8 + 2 * (1 if quantizer == "grid" else (1 << bits) - 1)
