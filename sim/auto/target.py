"""What a compressed network may cost on the array: cycles, bytes or pJ, or a share of the dense one's."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compiler.errors import InputError
from sim.cost import Cost

__all__ = ["KINDS", "Target", "parse"]

KINDS = {"cycles": "cycles of a sample", "energy": "pJ of a sample", "bytes": "bytes in the memories"}
"""What can be limited → its unit."""

_EXPECTED = "expected cycles=N, energy=N or bytes=N, with N a number, or a share of the dense network such as 40%"


@dataclass(frozen=True)
class Target:
    """A limit.

    Attributes
    ----------
    kind : one of `KINDS`. amount : in its unit; where `relative`, as a share of the dense network's, 0 … 1.
    """

    kind: str
    amount: float
    relative: bool = False

    def __str__(self) -> str:
        return f"{self.kind}={100 * self.amount:g}%" if self.relative else f"{self.kind}={self.amount:g}"

    @property
    def word(self) -> str:
        """For names of folders."""
        return str(self).replace("=", "-").replace("%", "pc")

    def of(self, cost: Cost) -> float:
        """What a network costs, in the unit of the target."""
        found = {"cycles": cost.cycles, "energy": cost.energy, "bytes": cost.stored}
        return float(found[self.kind])

    def limit(self, dense: Cost | None) -> float:
        """The limit as a number.

        Parameters
        ----------
        dense : what the dense network costs; None where it does not fit the array.

        Raises
        ------
        InputError
            It is a share of the dense network's, which does not fit.
        """
        if not self.relative:
            return self.amount
        if dense is None:
            raise InputError(
                f"--target {self} is a share of what the dense network costs, and that does not fit the array; give "
                f"a number ({KINDS[self.kind]}), or a larger array by --preset"
            )
        return self.amount * self.of(dense)


def parse(text: str) -> Target:
    """A target as the command line has it: ``cycles=50%``, ``bytes=60000``, ``energy=2.5e6``. Raises `InputError`."""
    kind, separator, number = text.partition("=")
    relative = number.endswith("%")
    try:
        amount = float(number.removesuffix("%").replace("_", ""))
    except ValueError:
        amount = math.nan
    if not separator or kind not in KINDS or not math.isfinite(amount) or amount <= 0:
        raise InputError(f"--target {text}: {_EXPECTED}")
    if relative and amount >= 100:
        raise InputError(f"--target {text} is no less than what the dense network costs; {_EXPECTED}")
    return Target(kind, amount / 100 if relative else amount, relative)
