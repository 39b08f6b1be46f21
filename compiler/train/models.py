"""The networks that recipes name: plain chains of Linear and ReLU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import nn

__all__ = ["LENET_300_100", "linears", "mlp", "plain_copy"]

LENET_300_100 = (300, 100)
"""Hidden layers of LeNet-300-100 (LeCun et al., 1998), the paper's fully connected network on MNIST."""


def mlp(features: int, hidden: Sequence[int], classes: int) -> nn.Sequential:
    """Linear layers fc1, fc2, … with ReLU relu1, relu2, … between them, none after the last."""
    sizes = [features, *hidden, classes]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        layers[f"fc{number}"] = nn.Linear(inputs, outputs)
        layers[f"relu{number}"] = nn.ReLU()
    layers.popitem()
    return nn.Sequential(layers)


def linears(module: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Name and module of every Linear, in the module's order."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            yield name, child


def plain_copy(module: nn.Module, features: int, hidden: Sequence[int], classes: int) -> nn.Sequential:
    """The same network with plain weights: masks applied, shared weights written out."""
    copy = mlp(features, hidden, classes)
    sources = dict(linears(module))
    with torch.no_grad():
        for name, layer in linears(copy):
            layer.weight.copy_(sources[name].weight)
            layer.bias.copy_(sources[name].bias)
    return copy
