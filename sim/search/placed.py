"""Policies of bits whose first level is an array: what is searched for, and the networks that are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from compiler.errors import RecipeError
from compiler.experiments.haq import QUANTIZERS
from compiler.experiments.policy.network import Variants
from compiler.experiments.policy.problem import Policy
from compiler.train.table import Table
from hw.params import Params, ParamsError

__all__ = ["MEASURES", "Placed", "Search"]

MEASURES = ("cycles", "energy", "bytes")
"""What can be limited: cycles and picojoules of a sample on the array, bytes of the codes."""


@dataclass(frozen=True)
class Search:
    """What is searched for.

    Attributes
    ----------
    name : in tables. quantizer : one of `QUANTIZERS`.
    pes, queue_depth : what the array may have; all pairs are tried, and bits are 8 at most. The first of each are the
        reference.
    limits : one of `MEASURES` → the limit, as a multiple of what uniform bits take on the reference.
    """

    name: str
    quantizer: str
    pes: tuple[int, ...]
    queue_depth: tuple[int, ...]
    limits: Mapping[str, float]

    def arrays(self, code_bits: int) -> list[Params]:
        """All arrays, the reference first."""
        return [
            Params(pes=n, queue_depth=depth, code_bits=code_bits) for n, depth in product(self.pes, self.queue_depth)
        ]

    @classmethod
    def parse(cls, table: Table) -> Search:
        """A table ``[[searches]]``. Raises `RecipeError`."""
        inner = table.table("limits")
        limits = {name: inner.number(name, 0, 100) for name in MEASURES if inner.has(name)}
        inner.finish()
        found = cls(
            table.text("name"), table.choice("quantizer", tuple(QUANTIZERS), default="grid"),
            table.integers("pes", 1, 256), table.integers("queue_depth", 1, 4096, default=[32]), limits,
        )  # fmt: skip
        table.finish()
        if not limits or not found.pes or not found.queue_depth:
            raise RecipeError(
                f"{table.source}: search {found.name} has limits {limits}, pes {list(found.pes)} and queue_depth "
                f"{list(found.queue_depth)}; expected one of each or more, limits of {', '.join(MEASURES)}"
            )
        try:
            found.arrays(8)
        except ParamsError as error:
            raise RecipeError(f"{table.source}: search {found.name}: {error}") from error
        return found


@dataclass(frozen=True, eq=False)
class Placed:
    """Networks at policies whose first level is an array.

    Attributes
    ----------
    variants : of the levels behind it. arrays : in the order of that level. limits : of the whole network, by measure.
    sure : of each array a policy whose whole network keeps to the limits.
    """

    variants: Variants
    arrays: Sequence[Params]
    limits: Mapping[str, float]
    sure: Sequence[Policy] = ()

    def array(self, policy: Policy) -> Params:
        """Where a policy runs."""
        return self.arrays[policy[0]]

    def named(self, policy: Policy) -> list[float]:
        """Bits of each layer."""
        return self.variants.named(policy[1:])

    def found(self, policy: Policy) -> Any:
        """As of `Variants.found`."""
        return self.variants.found(policy[1:])

    def score(self, policy: Policy) -> float:
        """As of `Variants.score`: the array changes no value."""
        return self.variants.score(policy[1:])
