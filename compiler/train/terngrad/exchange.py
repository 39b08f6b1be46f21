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

from compiler.train.terngrad.averaging import Averaging
from compiler.train.terngrad.channel import Channel
from compiler.train.terngrad.settings import Plan, Settings, plan_for
from compiler.train.terngrad.ternarize import generator_of, scaler, ternarize

__all__ = ["Exchange"]


class Exchange(Averaging):
    """Averages gradients by ternary codes; the step decides the random numbers.

    Attributes
    ----------
    settings : as they were given.
    """

    def __init__(self, module: nn.Module, settings: Settings, channel: Channel) -> None:
        super().__init__(module, channel, settings.seed)
        self.settings = settings
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

    def coded(self, numbers: Sequence[int]) -> list[int]:
        """By the plan; none in an epoch that is float."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        kinds = list(self.plan.ternary.values())
        everything_float = self.settings.float_epoch(self.epoch)
        return [place for place, number in enumerate(numbers) if kinds[number] and not everything_float]

    def few_bits(self, gradients: list[list[Tensor]], numbers: list[int]) -> list[Tensor]:
        """Codes are added up exactly."""
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
