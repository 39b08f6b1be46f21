"""What every way of averaging gradients over workers shares: numbers of parameters, the step, and float sums."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compiler.errors import ModelError
from compiler.train.loop import Hook
from compiler.train.terngrad.channel import Channel

__all__ = ["Averaging", "Clock"]


class Averaging(ABC):
    """Averages gradients over the workers of a channel; knows which step of the training it is.

    Parameters
    ----------
    module : whose parameters have gradients; those that are unfrozen later have their numbers too.
    channel : where the workers meet.
    seed : of what the module draws, and of what the averaging does.

    Attributes
    ----------
    step, epoch : from 0. `set_epoch`, `Clock` and the communication hook set them.
    """

    def __init__(self, module: nn.Module, channel: Channel, seed: int) -> None:
        self.channel, self.module, self.seed = channel, module, seed
        self.step = self.epoch = 0
        # All of them, and held, so that the ids stay theirs.
        self._known = dict(module.named_parameters())
        self._numbers = {id(parameter): number for number, parameter in enumerate(self._known.values())}

    def set_epoch(self, epoch: int) -> None:
        """Say that an epoch begins, counted from 0."""
        self.epoch = epoch

    def numbers(self, parameters: Sequence[Tensor]) -> list[int]:
        """The places of parameters among those of the module.

        Raises
        ------
        ModelError
            One was put into the module after this was made.
        """
        unknown = [tuple(parameter.shape) for parameter in parameters if id(parameter) not in self._numbers]
        if unknown:
            raise ModelError(
                f"parameters of shape {', '.join(map(str, unknown))} were not in the module when the exchange was "
                "made; make it anew after whatever replaces parameters"
            )
        return [self._numbers[id(parameter)] for parameter in parameters]

    def average(self, gradients: Sequence[Sequence[Tensor]], numbers: Sequence[int]) -> list[Tensor]:
        """Mean over all workers of some tensors' gradients, float32, each in its gradient's shape.

        Parameters
        ----------
        gradients : for each worker of this process, its gradients of the same tensors.
        numbers : the tensors' places among the parameters.
        """
        few = self.coded(numbers)
        rest = [place for place in range(len(numbers)) if place not in few]
        means: dict[int, Tensor] = {}
        if few:
            picked = [[mine[place] for place in few] for mine in gradients]
            means.update(zip(few, self.few_bits(picked, [numbers[place] for place in few]), strict=True))
        if rest:
            picked = [[mine[place] for place in rest] for mine in gradients]
            means.update(zip(rest, self._float(picked), strict=True))
        return [means[place] for place in range(len(numbers))]

    @abstractmethod
    def coded(self, numbers: Sequence[int]) -> list[int]:
        """Indices into `numbers` of the tensors that are sent in few bits; the others are float."""

    @abstractmethod
    def few_bits(self, gradients: list[list[Tensor]], numbers: list[int]) -> list[Tensor]:
        """Means of tensors that are sent in few bits."""

    def _float(self, gradients: list[list[Tensor]]) -> list[Tensor]:
        flat = [torch.cat([tensor.detach().reshape(-1) for tensor in mine]) for mine in gradients]
        means = self.channel.add_floats(flat) / self.channel.workers
        parts = torch.split(means, [tensor.numel() for tensor in gradients[0]])
        return [part.view(tensor.shape) for part, tensor in zip(parts, gradients[0], strict=True)]


class Clock(Hook):
    """Tells an averaging which step of a training by `loop.fit` it is, also after a restart.

    Parameters
    ----------
    steps : of an epoch.
    """

    def __init__(self, exchange: Averaging, steps: int) -> None:
        self.exchange, self.steps = exchange, steps

    def before_step(self, step: int, total: int) -> None:
        """The step decides random numbers, the epoch whether all is float."""
        self.exchange.step = step
        self.exchange.set_epoch(step // self.steps)
