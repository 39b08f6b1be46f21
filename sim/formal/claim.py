"""A claim: what holds of a block in every cycle, how it is proved, and what shows that the proof says something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sim.formal.sheet import Design, Sheet

__all__ = ["INDUCTION", "PDR", "Claim"]

PDR = "abc pdr"
"""Property-directed reachability: finds what it needs to know of the states by itself."""
INDUCTION = "smtbmc yices"
"""k-induction over words: for wide arithmetic, where the claim itself says enough of the states."""


@dataclass(frozen=True)
class Claim:
    """One row of the table of properties.

    name : what the command line calls it. block : the class in `hw` that it is about. text : the claim in a sentence.
    proof : writes it on a sheet, for a block of this kind.
    kind : the block. bugs : what is wrong, and a block that is wrong so; each must be found.
    engine : `PDR` or `INDUCTION`. depth : of the induction.
    bound : 0 if the claim is proved for all cycles, else for the first so many from reset on.
    bug_depth, cover_depth : cycles in which the faults show and the covers are reached.
    sample : it is one of those that the tests run.
    """

    name: str
    block: str
    text: str
    proof: Callable[[Sheet, Any], None]
    kind: Any
    bugs: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    engine: str = PDR
    depth: int = 4
    bound: int = 0
    bug_depth: int = 10
    cover_depth: int = 12
    sample: bool = False

    def design(self, kind: Any = None) -> Design:
        """The claim about its block, or about another one in its place."""
        sheet = Sheet()
        self.proof(sheet, kind or self.kind)
        return sheet.design()
