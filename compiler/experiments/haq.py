"""Bits of the shared weights of each layer, under a limit on their bytes, by agents and by what they have to beat.

Source: HAQ: Hardware-Aware Automated Quantization with Mixed Precision (Wang et al., CVPR 2019), with shared weights
(k-means) as in its table 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from compiler.experiments.policy.comparison import Comparison, Known
from compiler.experiments.policy.network import Variants, example, features, shared
from compiler.experiments.policy.problem import Problem
from compiler.experiments.subject import Subject
from compiler.train.layers import weights
from compiler.train.packing import compressed_files
from compiler.train.stages import Share
from compiler.train.table import Table

__all__ = ["Haq", "layer_bytes"]

AGENTS = ("uniform", "random", "greedy", "tpe", "cmaes", "ddpg")


@dataclass(frozen=True, kw_only=True)
class Haq(Comparison):
    """Codes of `low` to `high` bits; the limit is the bytes of codes of `uniform` bits in all layers.

    Attributes
    ----------
    ends : bits of the first and the last layer, as published 8; 0 leaves them to the agents.
    """

    kind: ClassVar[str] = "haq"
    low: int
    high: int
    uniform: int
    ends: int

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Widths, the limit, and what all comparisons have."""
        low = table.integer("low", 1, 8, default=2)
        high = table.integer("high", low + 1, 8, default=8)
        return {
            "low": low, "high": high, "uniform": table.integer("uniform", low, high),
            "ends": table.integer("ends", 0, 8, default=8), **cls.common(table, AGENTS),
        }  # fmt: skip

    def problem(self, subject: Subject, options: Mapping[str, Any]) -> Known:
        """Bytes of each layer at each width, and the network that has them."""
        sites = list(weights(subject.module))
        levels = [list(range(self.low, self.high + 1)) for _ in sites]
        if self.ends:
            levels[0] = levels[-1] = [self.ends]
        costs = [[layer_bytes(site.value.numel(), bits) for bits in each]
                 for site, each in zip(sites, levels, strict=True)]  # fmt: skip
        budget = sum(cost[0] if len(cost) == 1 else cost[self.uniform - self.low] for cost in costs)
        split = subject.dataset.validation.take(slice(self.judged))
        variants = Variants.make(subject.module, levels, shared, subject.lesson, split)
        described = features(subject.module, example(subject.lesson))
        return Known(Problem(costs, budget, variants.score, described), variants, options)

    def costs(
        self, subject: Subject, known: Known, found: nn.Module, trained: nn.Module, levels: Sequence[float]
    ) -> dict[str, float]:
        """Codes in fixed width with their tables, as the limit counts them, and the whole file, entropy-coded."""
        counted = sum(
            layer_bytes(site.value.numel(), int(bits)) for site, bits in zip(weights(found), levels, strict=True)
        )
        return {"bytes": counted, "bytes of .eiez": min(map(len, compressed_files(found).values()))}

    def stage(self, levels: Mapping[str, float]) -> Share:
        """The shared values are trained."""
        return Share(
            kind="share", name="share", schedule=self.finetune, bias_bits=None, start="density", grid="free",
            labels="free", code_bits={key: int(bits) for key, bits in levels.items()},
        )  # fmt: skip


def layer_bytes(count: int, bits: int) -> float:
    """A code for each weight, and a table of int16 values."""
    return count * bits / 8 + 2 * ((1 << bits) - 1)
