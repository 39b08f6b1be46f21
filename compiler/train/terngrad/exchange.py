"""One step's gradients of all workers become their average: ternary where the plan says so, float elsewhere.

1. Each worker's scaler for every ternary tensor; the largest over the workers is shared.
2. Each worker's codes, with random numbers that seed, step, worker and tensor decide.
3. The exact sum of the codes over the workers, times the shared scaler, over their number.

Who the workers are is the channel's business: processes or virtual ones get the same bits.

Source: TernGrad (Wen et al., NIPS 2017), algorithm 1 and section 3.2 (scaler sharing).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compiler.train.loop import Hook
from compiler.train.terngrad.channel import Channel
from compiler.train.terngrad.settings import Plan, Settings, plan_for
from compiler.train.terngrad.ternarize import generator_of, scaler, ternarize

__all__ = ["Clock", "Exchange"]


class Exchange:
    """Averages gradients; knows which step of the training it is.

    Attributes
    ----------
    settings : as they were given.
    plan : which tensors are ternary.
    channel : where the workers meet.
    step, epoch : from 0; the step decides the random numbers. `set_epoch`, `Clock` and the communication hook set them.
    """

    def __init__(self, module: nn.Module, settings: Settings, channel: Channel) -> None:
        self.settings, self.channel = settings, channel
        self.plan: Plan = plan_for(module, settings)
        self.step = self.epoch = 0
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._numbers = {id(parameter): number for number, parameter in enumerate(trained)}
        self._trained = trained  # keeps them alive, so that the ids stay theirs

    def set_epoch(self, epoch: int) -> None:
        """Say that an epoch begins, counted from 0; needed only if every n-th one is float."""
        self.epoch = epoch

    def numbers(self, parameters: Sequence[Tensor]) -> list[int]:
        """The places of parameters in the plan."""
        return [self._numbers[id(parameter)] for parameter in parameters]

    def average(self, gradients: Sequence[Sequence[Tensor]], numbers: Sequence[int]) -> list[Tensor]:
        """Mean over all workers of some tensors' gradients, float32, each in its gradient's shape.

        Parameters
        ----------
        gradients : for each worker of this process, its gradients of the same tensors.
        numbers : the tensors' places in the plan.
        """
        kinds = list(self.plan.ternary.values())
        everything_float = self.settings.float_epoch(self.epoch)
        ternary = [place for place, number in enumerate(numbers) if kinds[number] and not everything_float]
        rest = [place for place in range(len(numbers)) if place not in ternary]
        means: dict[int, Tensor] = {}
        if ternary:
            picked = [[mine[place] for place in ternary] for mine in gradients]
            means.update(zip(ternary, self._ternary(picked, [numbers[place] for place in ternary]), strict=True))
        if rest:
            picked = [[mine[place] for place in rest] for mine in gradients]
            means.update(zip(rest, self._float(picked), strict=True))
        return [means[place] for place in range(len(numbers))]

    def _ternary(self, gradients: list[list[Tensor]], numbers: list[int]) -> list[Tensor]:
        clip, channel = self.settings.clip, self.channel
        scales = channel.largest([torch.stack([scaler(tensor, clip) for tensor in mine]) for mine in gradients])
        codes = [
            torch.cat([
                ternarize(tensor, scale, generator_of(self.settings.seed, self.step, worker, number))
                for tensor, scale, number in zip(mine, scales, numbers, strict=True)
            ])
            for worker, mine in zip(channel.here, gradients, strict=True)
        ]  # fmt: skip
        sums = torch.split(channel.add_codes(codes), [tensor.numel() for tensor in gradients[0]])
        return [
            (part.float() * (scale / channel.workers)).view(tensor.shape)
            for part, scale, tensor in zip(sums, scales, gradients[0], strict=True)
        ]

    def _float(self, gradients: list[list[Tensor]]) -> list[Tensor]:
        flat = [torch.cat([tensor.detach().reshape(-1) for tensor in mine]) for mine in gradients]
        means = self.channel.add_floats(flat) / self.channel.workers
        parts = torch.split(means, [tensor.numel() for tensor in gradients[0]])
        return [part.view(tensor.shape) for part, tensor in zip(parts, gradients[0], strict=True)]


class Clock(Hook):
    """Tells an exchange which step of a training by `loop.fit` it is, also after a restart.

    Parameters
    ----------
    steps : of an epoch.
    """

    def __init__(self, exchange: Exchange, steps: int) -> None:
        self.exchange, self.steps = exchange, steps

    def before_step(self, step: int, total: int) -> None:
        """The step decides the random numbers, the epoch whether all is float."""
        self.exchange.step = step
        self.exchange.set_epoch(step // self.steps)
