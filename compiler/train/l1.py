"""L1 regularization: the plain way to zeros, one weight at a time, that structured ways are compared with.

Source: the authors' baseline of Learning Intrinsic Sparse Structures (Wen et al., ICLR 2018): L1 on all parameters but
the embedding, small weights set to zero after every step, then training on with the zeros kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

from compiler.train.loop import Hook

__all__ = ["L1", "Frozen"]


class L1(Hook):
    """strength · sum of magnitudes, and after each step zeros in place of magnitudes below `least`."""

    def __init__(self, parameters: Iterable[Tensor], strength: float, least: float) -> None:
        if strength < 0 or least < 0:
            raise ValueError(f"strength is {strength} and least {least}; expected numbers from 0")
        self.parameters, self.strength, self.least = list(parameters), strength, least

    def penalty(self) -> Tensor | None:
        """The sum, times strength."""
        return self.strength * cast(Tensor, sum(parameter.abs().sum() for parameter in self.parameters))

    def after_step(self, step: int, total: int) -> None:
        """The threshold."""
        with torch.no_grad():
            for parameter in self.parameters:
                parameter.masked_fill_(parameter.abs() < self.least, 0)


class Frozen(Hook):
    """What is zero when training begins is zero after every step."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.zeros = [(parameter, parameter.detach() == 0) for parameter in parameters]

    def after_step(self, step: int, total: int) -> None:
        """Zeros come back."""
        with torch.no_grad():
            for parameter, zero in self.zeros:
                parameter.masked_fill_(zero, 0)
