"""Removal of neurons that pruning left without any input or without any output.

For a chain (`nn.Sequential` of Linear, Conv2d and what works on each channel by itself). A neuron or filter with no
output left is dropped. One with no input left gives a constant, which moves into the biases of the next layer. Both
leave the function of the network as it is, to float rounding; the removal of one may strand another, so it goes on
until nothing changes. Inputs and outputs of the network stay.

Source: Deep Compression's forerunner, Learning both Weights and Connections (Han et al., NIPS 2015), section 3.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from compiler.errors import ModelError
from compiler.train import removal
from compiler.train.layers import make_plain
from compiler.train.optimizers import changed
from compiler.train.prune import attach, find
from compiler.train.structure import fit_sizes

__all__ = ["Link", "links", "remove"]

# Modules that treat every channel by itself and keep constants constant where they do not pad.
_CHANNELWISE = (nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Dropout, nn.Identity)
_SHAPING = (nn.Flatten, nn.Unflatten)


@dataclass(frozen=True, eq=False)
class Link:
    """Two layers that follow each other.

    Attributes
    ----------
    above, below : the layer that makes the channels, and the one that takes them.
    between : modules in between, in order.
    spread : inputs of `below` that one channel of `above` feeds (pixels of a channel before a flattening, else 1).
    """

    above: nn.Linear | nn.Conv2d
    below: nn.Linear | nn.Conv2d
    between: tuple[nn.Module, ...]
    spread: int


def links(module: nn.Module) -> list[Link]:
    """The chain of a Sequential.

    Raises
    ------
    ModelError
        The module is no such chain; says which part is not supported.
    """
    if not isinstance(module, nn.Sequential):
        raise ModelError(
            f"removing neurons without samples needs an nn.Sequential; the network is a {type(module).__name__}: give "
            "dead.remove a few samples to trace it with"
        )
    found: list[Link] = []
    above: nn.Linear | nn.Conv2d | None = None
    between: list[nn.Module] = []
    for name, layer in module.named_children():
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1):
            if above is not None:
                inputs = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
                outputs = above.out_features if isinstance(above, nn.Linear) else above.out_channels
                if inputs % outputs:
                    raise ModelError(f"layer {name} takes {inputs} inputs; the one before has {outputs} outputs")
                found.append(Link(above, layer, tuple(between), inputs // outputs))
            above, between = layer, []
        elif isinstance(layer, (*_CHANNELWISE, *_SHAPING)):
            between.append(layer)
        else:
            raise ModelError(
                f"removing neurons without samples does not know how {name} ({type(layer).__name__}) treats channels; "
                "expected Linear, Conv2d, ReLU, pooling, Dropout, Flatten, or a few samples to trace the network with"
            )
    return found


def remove(module: nn.Module, inputs: Tensor | None = None) -> int:
    """Remove dead neurons and filters in place; how many went.

    Parametrized weights are written out; what was masked is masked again, in the smaller shape. The parameter objects
    stay, so optimizers that hold them go on.

    Parameters
    ----------
    inputs : some samples, for a module that is no chain: `removal.remove` traces it with them.

    Raises
    ------
    ModelError
        It is no chain and there are no samples, or as `removal.remove`.
    ToolError
        As `removal.remove`.
    """
    if inputs is not None:
        try:
            links(module)
        except ModelError:
            return removal.remove(module, inputs).channels
    chain = links(module)
    layers: list[nn.Module] = list(dict.fromkeys(layer for link in chain for layer in (link.above, link.below)))
    masked = [layer for layer in layers if find(layer) is not None]
    make_plain(module)
    removed = 0
    with torch.no_grad():
        while count := sum(_remove_from(link) for link in chain):
            removed += count
        for layer in masked:
            kept = cast(Tensor, layer.weight) != 0
            attach(layer).mask.copy_(kept)
    return removed


def _remove_from(link: Link) -> int:
    above, below = link.above, link.below
    into = torch.unflatten(below.weight.detach(), 1, (-1, link.spread))
    used = into.abs().movedim(1, 0).flatten(1).amax(1) > 0
    fed = above.weight.detach().abs().flatten(1).amax(1) > 0
    constant = _constants(link)
    foldable = torch.zeros_like(fed) if constant is None else ~fed
    if constant is not None:
        # A constant that is zero needs no bias to move to.
        foldable &= (constant == 0) | torch.tensor(below.bias is not None) | ~used
    drop = ~used | foldable
    if drop.all():
        drop[int(torch.argmax(used.int()))] = False  # a layer keeps at least one neuron
    if not drop.any():
        return 0
    keep = ~drop
    if constant is not None and below.bias is not None:
        moved = torch.where(foldable, constant, torch.zeros_like(constant)) * drop
        spread = moved.repeat_interleave(link.spread)
        gain = below.weight.flatten(2).sum(2) if below.weight.dim() > 2 else below.weight
        below.bias += gain @ spread
    _replace(above, "weight", above.weight[keep])
    if above.bias is not None:
        _replace(above, "bias", above.bias[keep])
    _replace(below, "weight", below.weight[:, keep.repeat_interleave(link.spread)])
    return int(drop.sum())


def _constants(link: Link) -> Tensor | None:
    """What each channel is where it has no input, as `below` sees it; None if that is not one number per channel."""
    bias = link.above.bias
    value = torch.zeros(len(link.above.weight)) if bias is None else bias.detach().clone()
    for layer in link.between:
        if isinstance(layer, nn.ReLU):
            value = value.clamp(min=0)
        elif isinstance(layer, nn.AvgPool2d) and layer.padding not in (0, (0, 0)):
            return None  # the border averages the constant with zeros
    below = link.below
    padded = isinstance(below, nn.Conv2d) and below.padding not in (0, (0, 0), "valid")
    return None if padded and bool(value.any()) else value


def _replace(layer: nn.Module, name: str, value: Tensor) -> None:
    changed(cast(nn.Parameter, getattr(layer, name)), value.detach().clone())
    if name == "weight":
        fit_sizes(layer)
