"""What networks of a space take on an array, as a table that adds up, and what is expected of a mixed one.

Source: ProxylessNAS (Cai et al., ICLR 2019), section 3.3: latency as a sum over operations is differentiable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compiler.errors import InputError
from compiler.train.nas.space import Choices

__all__ = ["FORMS", "LatencyTable", "weighed"]

FORMS = ("multiply", "add")
"""How the latency enters the loss, see `weighed`."""


@dataclass(frozen=True)
class LatencyTable:
    """Cycles of a sample on one array.

    Attributes
    ----------
    base : of what all networks have. rows : of each block, of each operation that it may be.
    """

    base: float
    rows: tuple[tuple[float, ...], ...]

    def of(self, choices: Choices) -> float:
        """Cycles of one network, as the table adds them up."""
        return self.base + sum(row[choice] for row, choice in zip(self.rows, choices, strict=True))

    def expected(self, probabilities: Sequence[Tensor]) -> Tensor:
        """Mean cycles of networks whose operations are drawn with these probabilities, one tensor (ops,) a block.

        A scalar, through which gradients go.

        Raises
        ------
        InputError
            There are probabilities of another space than the table's.
        """
        shapes = [tuple(each.shape) for each in probabilities]
        if shapes != [(len(row),) for row in self.rows]:
            raise InputError(
                f"the table has {[len(row) for row in self.rows]} operations in its blocks; probabilities are of "
                f"{shapes}: measure a table of this space"
            )
        parts = [(each * each.new_tensor(row)).sum() for each, row in zip(probabilities, self.rows, strict=True)]
        return torch.stack(parts).sum() + self.base


def weighed(loss: Tensor, cycles: Tensor, target: float, form: str, strength: float) -> Tensor:
    """The loss with the latency in it; scalars.

    Parameters
    ----------
    cycles : expected. target : cycles that are wanted.
    form : "multiply": loss · (cycles / target) ** strength; "add": loss + strength · (cycles / target - 1), the
        source's equation 6 up to a constant.
    """
    if form == "multiply":
        return loss * (cycles / target) ** strength
    return loss + strength * (cycles / target - 1)
