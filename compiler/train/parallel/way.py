"""How processes of one group train a module together, and how its parts become whole again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from compiler.train.loop import Batch

__all__ = ["WAYS", "Way", "shares"]

WAYS = ("data", "sharded", "tensor", "data-tensor", "pipeline")
"""Shares of each batch, with whole parameters (DDP) or split ones (FSDP2); split layers; both; one part of the layers
after the other."""


class Way(Protocol):
    """One process' part; also the `loop.Backward` of its training.

    Attributes
    ----------
    module : what this process trains.
    channels_last : whether `fit` may lay the parameters out anew.
    """

    module: nn.Module
    channels_last: bool

    def __call__(self, module: nn.Module, batch: Batch) -> float:
        """The gradients of this process' parameters on the whole batch; the loss, as far as it knows it."""

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of this process, whole and of all processes; every process must call it."""

    def part(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """What this process holds of whole ones, by the names of its parameters."""


def shares(way: str, processes: int) -> int:
    """Shares of each batch that a way makes with so many processes; data-tensor splits layers in two."""
    return {"data": processes, "sharded": processes, "data-tensor": processes // 2}.get(way, 1)
