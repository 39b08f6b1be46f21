"""One step's gradients of all workers become their average: ternary where the plan says so, float elsewhere.

1. Each worker's scaler for every ternary tensor; the largest over the workers is shared.
2. Each worker's codes, with random numbers that seed, step, worker and tensor decide.
3. The exact sum of the codes over the workers, times the shared scaler, over their number.

Who the workers are is the channel's business: processes or virtual ones get the same bits.

Source: TernGrad (Wen et al., NIPS 2017), algorithm 1 and section 3.2 (scaler sharing).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from compiler.errors import ModelError
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
    channel : where the workers meet.
    step, epoch : from 0; the step decides the random numbers. `set_epoch`, `Clock` and the communication hook set them.
    """

    def __init__(self, module: nn.Module, settings: Settings, channel: Channel) -> None:
        self.settings, self.channel, self.module = settings, channel, module
        self.step = self.epoch = 0
        # All, so that one that is unfrozen later has its number; held, so that the ids stay theirs.
        self._known = dict(module.named_parameters())
        self._numbers = {id(parameter): number for number, parameter in enumerate(self._known.values())}
        everything = plan_for(module, replace(settings, last=True))  # refuses a network of which nothing is ternary
        self._plan: Plan | None = everything if settings.last else None
        self._last: str | None = None
        self._handles = [self._watched(*each) for each in self._known.items() if each[1].requires_grad]

    @property
    def plan(self) -> Plan:
        """Which tensors are ternary.

        The last layer is the one whose gradient comes first in the first backward pass: the one that the network used
        last. Until then it is taken to be the one registered last.

        Raises
        ------
        RecipeError
            Nothing would be ternary.
        """
        if self._plan is not None:
            return self._plan
        plan = plan_for(self.module, self.settings, self._last)
        if self._last is not None:
            self._plan = plan
        return plan

    def _watched(self, name: str, parameter: nn.Parameter) -> RemovableHandle:
        def note(_: Tensor) -> None:
            self._last = self._last or name

        handle: RemovableHandle = parameter.register_post_accumulate_grad_hook(note)  # type: ignore[no-untyped-call]
        return handle

    def set_epoch(self, epoch: int) -> None:
        """Say that an epoch begins, counted from 0; needed only if every n-th one is float."""
        self.epoch = epoch

    def numbers(self, parameters: Sequence[Tensor]) -> list[int]:
        """The places of parameters in the plan.

        Raises
        ------
        ModelError
            One was put into the module after the exchange was made.
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
        numbers : the tensors' places in the plan.
        """
        for handle in self._handles:
            handle.remove()
        self._handles = []
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
