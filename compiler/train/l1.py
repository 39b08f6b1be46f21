"""L1 regularization: the plain way to zeros, one weight at a time, that other ways are compared with.

`Proximal` is what stages have. `L1` and `Frozen` are the authors' baseline of Learning Intrinsic Sparse Structures (Wen
et al., ICLR 2018), which the experiment on it repeats: L1 on all parameters but the embedding, small weights set to
zero after every step, then training on with the zeros kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from compiler.train.loop import Hook

__all__ = ["L1", "Frozen", "Proximal"]


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


class Proximal(Hook):
    """The same penalty without a gradient: after each step every magnitude loses rate · strength, and stops at zero.

    Zeros are exact, and come back where the loss wants them by more than that. With the adaptive rates of Adam a
    strength is a share of a full step of the optimizer, whatever the size of the loss.

    Source: Proximal Algorithms (Parikh and Boyd, 2014), section 6.5.2 (soft thresholding).
    """

    def __init__(self, parameters: Iterable[Tensor], strength: float) -> None:
        if not strength >= 0:
            raise ValueError(f"strength is {strength}; expected a number from 0")
        self.parameters, self.strength = list(parameters), strength
        self.optimizer: torch.optim.Optimizer | None = None

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer, whose rate says how far a step goes."""
        self.optimizer = optimizer

    def after_step(self, step: int, total: int) -> None:
        """Soft thresholding."""
        assert self.optimizer is not None
        with torch.no_grad():
            least = self.optimizer.param_groups[0]["lr"] * self.strength
            for parameter in self.parameters:
                parameter.copy_(nn.functional.softshrink(parameter, least))
