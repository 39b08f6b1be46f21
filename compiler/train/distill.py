"""Distillation: a network learns the softened outputs of another one beside the labels.

Source: Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network (2015).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

__all__ = ["Teacher"]


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network that is learned from.

    Attributes
    ----------
    module : takes the same inputs and gives the same classes; it is not trained.
    temperature : the outputs of both networks are divided by it.
    weight : share of the teacher in the loss, 0 … 1; the labels have the rest.
    """

    _AT_ONCE = 1000

    module: nn.Module
    temperature: float
    weight: float
    known: dict[Hashable, Tensor] = field(default_factory=dict)

    def answers(self, inputs: Tensor) -> Tensor:
        """The teacher's outputs."""
        with torch.no_grad():
            outputs: Tensor = self.module(inputs)
        return outputs

    def recall(self, key: Hashable, inputs: Tensor, arrange: Callable[[Tensor], Tensor]) -> Tensor:
        """The teacher's outputs for all of `inputs`, which are the same whenever `key` is; computed once."""
        if key not in self.known:
            parts = [self.answers(arrange(part.float())).float() for part in torch.split(inputs, self._AT_ONCE)]
            self.known[key] = torch.cat(parts)
        return self.known[key]

    def blend(self, loss: Tensor, outputs: Tensor, answers: Tensor) -> Tensor:
        """The loss against labels, mixed with the divergence from the teacher's outputs on the same inputs.

        The divergence is scaled by the temperature squared, so that its gradient does not shrink with it.
        """
        theirs = nn.functional.log_softmax(answers / self.temperature, 1)
        ours = nn.functional.log_softmax(outputs / self.temperature, 1)
        apart = nn.functional.kl_div(ours, theirs, log_target=True, reduction="batchmean")
        return (1 - self.weight) * loss + self.weight * self.temperature**2 * apart
