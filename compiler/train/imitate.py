"""New layers learn to answer what the trained ones answered in whose place they are, before the network is trained on.

Each learns by itself, from what the old layer reads: so fresh weights meet the other layers as those expect it.

Sources: a layer's response as the goal: Accelerating Very Deep Convolutional Networks (Zhang et al., 2015), section 2;
with gradients: the hints of FitNets (Romero et al., ICLR 2015).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compiler.train.images import ImageBatch, Images

__all__ = ["Imitation"]


@dataclass(frozen=True, eq=False)
class Imitation:
    """A `loop.Lesson`: images on which layers of a network answer like those of another one.

    Attributes
    ----------
    lesson : whose inputs are taken. old : the trained network. paths : of the layers, in both networks.
    """

    lesson: Images
    old: nn.Module
    paths: tuple[str, ...]

    def steps(self, size: int) -> int:
        """Batches an epoch."""
        return self.lesson.steps(size)

    def batches(self, epoch: int, size: int, generator: torch.Generator) -> Iterator[_Answers]:
        """The images, in the lesson's order."""
        for batch in self.lesson.batches(epoch, size, generator):
            yield _Answers(self, batch)


@dataclass(frozen=True, eq=False)
class _Answers:
    """Images of a step; what the old layers read and answer there is computed when it is asked for."""

    imitation: Imitation
    batch: ImageBatch

    def __len__(self) -> int:
        return len(self.batch)

    def split(self, parts: int) -> Sequence[_Answers]:
        """Shares for as many workers."""
        return [_Answers(self.imitation, share) for share in self.batch.split(parts)]

    def loss(self, module: nn.Module) -> Tensor:
        """Mean over the layers of the squared error of an answer, as a share of the variance of the old one."""
        errors = []
        for path, (reads, answer) in self._known().items():
            error = nn.functional.mse_loss(module.get_submodule(path)(reads), answer)
            errors.append(error / answer.var().clamp_min(torch.finfo(answer.dtype).tiny))
        return torch.stack(errors).mean()

    def _known(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Path → what the old layer reads, and its answer."""
        known: dict[str, tuple[Tensor, Tensor]] = {}

        def noting(path: str) -> Any:
            def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                known[path] = (inputs[0], output)

            return note

        old = self.imitation.old
        handles = [old.get_submodule(path).register_forward_hook(noting(path)) for path in self.imitation.paths]
        try:
            with torch.no_grad():
                old(self.batch.inputs)
        finally:
            for handle in handles:
                handle.remove()
        return known
