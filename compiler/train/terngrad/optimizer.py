"""TernGrad around any optimizer of torch, without DistributedDataParallel: gradients turn ternary before each step.

The optimizer stays what it is, so learning-rate schedules, `state_dict` and the rest of torch go on working.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.hooks import RemovableHandle

from compiler.train.terngrad.channel import Channel, Local
from compiler.train.terngrad.exchange import Exchange
from compiler.train.terngrad.settings import Settings
from compiler.train.terngrad.wire import Wire

__all__ = ["ternarized"]


def ternarized(
    optimizer: torch.optim.Optimizer, module: nn.Module, settings: Settings, channel: Channel | None = None
) -> tuple[Exchange, RemovableHandle]:
    """Replace gradients by their ternary average before each of the optimizer's steps.

    Parameters
    ----------
    module : whose parameters the optimizer trains; those without a gradient count as zeros.
    channel : between the workers; None for the default process group if there is one, else this one worker alone.

    Returns
    -------
    The exchange (for `set_epoch`, and `step` after a restart), and a handle whose `remove` ends it.
    """
    if channel is None:
        channel = Wire(scheme=settings.scheme) if dist.is_available() and dist.is_initialized() else Local(1)
    exchange = Exchange(module, settings, channel)

    def before_step(_: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        means = exchange.average([gradients], exchange.numbers(trained))
        for parameter, mean in zip(trained, means, strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(mean)
        exchange.step += 1

    return exchange, optimizer.register_step_pre_hook(before_step)
