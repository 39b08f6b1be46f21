"""A claim: what holds of a block in every cycle, how it is proved, and what shows that the proof says something."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
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
    narrow : names in modules of `hw` that are something else in the proof: what a block only passes on is narrow then,
        as "ACT_BITS" (in all modules) or "hw.activation_queue.job".
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
    narrow: Mapping[str, Any] = field(default_factory=dict)
    sample: bool = False

    def design(self, kind: Any = None) -> Design:
        """The claim about its block, or about another one in its place."""
        with _narrow(self.narrow):
            sheet = Sheet()
            self.proof(sheet, kind or self.kind)
            return sheet.design()


@contextlib.contextmanager
def _narrow(names: Mapping[str, Any]) -> Iterator[None]:
    """Hardware that is made meanwhile takes these for what they are named."""
    with contextlib.ExitStack() as stack:
        for name, value in names.items():
            module, _, attribute = name.rpartition(".")
            for known, loaded in list(sys.modules.items()):
                if known == module or (not module and known.startswith("hw.") and hasattr(loaded, attribute)):
                    stack.callback(setattr, loaded, attribute, getattr(loaded, attribute))
                    setattr(loaded, attribute, value)
        yield
