"""A network whose layers take stated seconds, as they would on a processor of their own.

Hosts that share one machine share its cores, so that what they compute would disturb what they exchange. A paced layer
waits instead of computing: its gradient is there when its time is over, and the cores are free for the exchange.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FORWARD", "paced"]

FORWARD = 1 / 3
"""Part of a step's seconds before the backward pass, which does twice the multiplications."""


class _Wait(torch.autograd.Function):
    """The identity, late."""

    @staticmethod
    def forward(context: Any, inputs: Tensor, before: float, after: float) -> Tensor:
        time.sleep(before)
        context.seconds = after
        return inputs.view_as(inputs)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        time.sleep(context.seconds)
        return gradients[0], None, None


class _Paced(nn.Module):
    """A layer, and seconds of its forward and backward pass."""

    def __init__(self, layer: nn.Module, forward: float, backward: float) -> None:
        super().__init__()
        self.layer, self.seconds = layer, (forward, backward)

    def forward(self, inputs: Tensor) -> Tensor:
        """The layer's outputs; their gradient is passed on when the backward pass of the layer is over."""
        outputs: Tensor = _Wait.apply(self.layer(inputs), *self.seconds)  # type: ignore[no-untyped-call]
        return outputs


def paced(module: nn.Sequential, example: Tensor, seconds: float) -> nn.Sequential:
    """The same layers, which take so many seconds together, each in proportion to its multiplications.

    Parameters
    ----------
    module : layers with weights are Linear or Conv2d.
    example : inputs, for the sizes of maps.
    seconds : of forward and backward pass, beside what the layers compute themselves.
    """
    works: dict[str, int] = {}
    outputs = example
    with torch.no_grad():
        for name, layer in module.named_children():
            outputs = layer(outputs)
            if isinstance(layer, nn.Linear | nn.Conv2d):
                works[name] = layer.weight.numel() * (outputs[0, 0].numel() if isinstance(layer, nn.Conv2d) else 1)
    total = sum(works.values())
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in module.named_children():
        share = seconds * works.get(name, 0) / total
        layers[name] = _Paced(layer, FORWARD * share, (1 - FORWARD) * share) if name in works else layer
    return nn.Sequential(layers)
