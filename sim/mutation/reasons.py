"""Reasons: mutants that no simulation, property or proof settles, and why each need not be killed (`reasons.toml`)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from compiler.errors import InputError
from sim.mutation.netlist import Mutant

__all__ = ["Reason", "fitting", "read", "stale"]

_HERE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Reason:
    """Why some mutants of a block need not be killed.

    block : file of `hw` without its ending. text : a piece of the source line that they are of; empty for any. port :
    pattern of the cell's port. cell : pattern of the cell's name. bits : lowest and highest bit. mode : pattern of the
    kind of change. quiet : only those whose bit is the same as without the fault in all recordings. why : a sentence.
    """

    block: str
    why: str
    text: str = ""
    port: str = ""
    cell: str = ""
    bits: tuple[int, int] = (0, 1 << 30)
    mode: str = ""
    quiet: bool = False

    def fits(self, mutant: Mutant, active: int = 0) -> bool:
        """Whether it is about this mutant, which differs in so many recordings."""
        low, high = self.bits
        return (
            mutant.block == self.block
            and not (self.quiet and active)
            and bool(re.search(self.mode, mutant.option("mode")))
            and (not self.text or any(self.text in _source(line) for line in mutant.lines))
            and bool(re.search(self.port, mutant.option("port")))
            and bool(re.search(self.cell, mutant.option("cell")))
            and low <= int(mutant.option("portbit")) <= high
        )


@cache
def _lines(file: str) -> list[str]:
    return (_HERE / file).read_text(encoding="utf-8").splitlines()


def _source(place: str) -> str:
    file, number = place.rsplit(":", 1)
    return _lines(file)[int(number) - 1]


def read(text: str | None = None) -> list[Reason]:
    """All reasons.

    Raises
    ------
    InputError
        A field is unknown or missing, or no source line of the block has the text.
    """
    text = text if text is not None else (resources.files("sim") / "mutation" / "reasons.toml").read_text()
    found = []
    for number, entry in enumerate(tomllib.loads(text).get("reason", []), 1):
        try:
            reason = Reason(**{**entry, "bits": tuple(entry.get("bits", (0, 1 << 30)))})
        except TypeError as error:
            raise InputError(
                f"reasons.toml, reason {number}: {error}; expected block, why, text, port, cell, bits, mode, quiet"
            ) from None
        file = f"hw/{reason.block}.py"
        if not (_HERE / file).exists():
            raise InputError(f"reasons.toml, reason {number}: there is no block {reason.block!r} in hw")
        if reason.text and not any(
            reason.text in line for each in (_HERE / "hw").glob("*.py") for line in _lines(f"hw/{each.name}")
        ):
            raise InputError(f"reasons.toml, reason {number}: no line of hw has {reason.text!r}; write it anew")
        found.append(reason)
    return found


def fitting(reasons: Sequence[Reason], mutant: Mutant, active: int = 0) -> Reason | None:
    """The first reason about a mutant that differs in so many recordings."""
    return next((reason for reason in reasons if reason.fits(mutant, active)), None)


def stale(reasons: Sequence[Reason], mutants: Sequence[tuple[Mutant, int]]) -> list[Reason]:
    """Reasons that are about none of these mutants, each with its recordings: those that were left over."""
    return [reason for reason in reasons if not any(reason.fits(*each) for each in mutants)]
