"""Where gradients of several workers meet. `Local`: all in this process; `wire.Wire`: one in each process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Channel", "Local"]


class Channel(Protocol):
    """What workers have to tell each other in a step. Each method takes what the workers of this process have.

    Attributes
    ----------
    workers : how many there are.
    here : the numbers of those in this process.
    """

    workers: int
    here: range

    def largest(self, scales: Sequence[Tensor]) -> Tensor:
        """Largest of every worker's scalers, elementwise; float32 (tensors,)."""

    def add_codes(self, codes: Sequence[Tensor]) -> Tensor:
        """Exact sums of every worker's codes, int16 (n,); codes are int8 (n,) of -1, 0, 1."""

    def add_floats(self, values: Sequence[Tensor]) -> Tensor:
        """Sums of every worker's float32 (n,), added in the order of the workers, so that all get the same bits."""

    def everyone(self, values: Sequence[Tensor]) -> Tensor:
        """What every worker has, (N, n), of one length and type."""


class Local:
    """A `Channel` of workers that are all in this process."""

    def __init__(self, workers: int) -> None:
        if not 1 <= workers <= 1 << 14:
            raise ValueError(f"workers is {workers}; expected 1 … 16384, whose sums fit 16 bits")
        self.workers, self.here = workers, range(workers)

    def largest(self, scales: Sequence[Tensor]) -> Tensor:
        """Elementwise."""
        return torch.stack(list(scales)).amax(0)

    def add_codes(self, codes: Sequence[Tensor]) -> Tensor:
        """In 16 bits."""
        sums = codes[0].to(torch.int16)
        for more in codes[1:]:
            sums.add_(more)
        return sums

    def add_floats(self, values: Sequence[Tensor]) -> Tensor:
        """From the first worker to the last."""
        sums = values[0].clone()
        for more in values[1:]:
            sums.add_(more)
        return sums

    def everyone(self, values: Sequence[Tensor]) -> Tensor:
        """One row each."""
        return torch.stack(list(values))
