"""Channels scaled so that those of a layer are alike in size: its weights can then share few values.

ReLU is positively homogeneous, ReLU(s·x) = s·ReLU(x): what makes a channel can be divided by s and what reads it
multiplied by s, and the function stays. After batch normalization is folded, the channels of a depthwise convolution
differ most.

Source: Data-Free Quantization Through Weight Equalization and Bias Correction (Nagel et al., ICCV 2019), section 4.1.
There the largest weights of a channel are made equal, for uniform steps; here root mean squares, as values are shared
that lie where weights are dense.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compiler.errors import ModelError
from compiler.train import prune
from compiler.train.evaluating import evaluating
from compiler.train.fold import Folded
from compiler.train.removal import same_tensors, tensors
from compiler.train.ties import places

__all__ = ["equalize"]

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_PASSING = (nn.ReLU, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
            nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Flatten, nn.Identity, Folded)  # fmt: skip
_ROUNDS, _CLOSE = 50, 1e-3
_MOST = 2.0**10


def equalize(module: nn.Module, inputs: Tensor) -> dict[str, str]:
    """Equalize all channels that go from one layer to the next, in place; path of the layer → that of the next.

    Between the two may be ReLU, pooling, dropout and flattening, as modules. A channel that others read as well stays
    as it is, and so does one without a weight on one side. Masks stay.

    Parameters
    ----------
    inputs : a few samples, to run the module on.

    Raises
    ------
    ModelError
        There is no such pair of layers.
    """
    found = {maker: taker for maker, taker in _pairs(module, inputs).items() if _stays(module, inputs, maker, taker)}
    if not found:
        raise ModelError(
            f"{type(module).__name__} has no layer whose outputs go to one other layer, through ReLU or pooling; "
            "expected at least one pair to equalize"
        )
    layers = {path: module.get_submodule(path) for pair in found.items() for path in pair}
    with torch.no_grad():
        for _ in range(_ROUNDS):
            moved = [_equal(layers[maker], layers[taker]) for maker, taker in found.items()]
            if max(moved) < _CLOSE:
                break
    return found


def _pairs(module: nn.Module, inputs: Tensor) -> dict[str, str]:
    """Layers one behind the other, by the tensors that go from one to the next."""
    made: list[tuple[Tensor, int, str]] = []  # holds the tensors, so that no other one gets their place
    takers: dict[str, list[str]] = {}
    came: dict[nn.Module, str | None] = {}
    names = {layer: path for path, layer in module.named_modules() if isinstance(layer, (*_LAYERS, *_PASSING))}

    def come(layer: nn.Module, taken: tuple[Any, ...], by_name: dict[str, Any]) -> None:
        read = next(iter((*taken, *by_name.values())), None)  # not if it was changed in place since
        came[layer] = next((by for tensor, version, by in made if tensor is read and tensor._version == version), None)

    def note(layer: nn.Module, taken: tuple[Any, ...], given: Tensor) -> None:
        source = came[layer]
        if isinstance(layer, _LAYERS):
            if source is not None:
                takers.setdefault(source, []).append(names[layer])
            made.append((given, given._version, names[layer]))
        elif source is not None:
            made.append((given, given._version, source))

    handles = [layer.register_forward_pre_hook(come, with_kwargs=True) for layer in names]
    handles += [layer.register_forward_hook(note) for layer in names]
    with evaluating(module, handles):
        module(inputs)
    return {maker: found[0] for maker, found in takers.items() if len(found) == 1 and found[0] != maker}


def _stays(module: nn.Module, inputs: Tensor, maker: str, taker: str) -> bool:
    """Whether the function stays when the channels between two layers are scaled at random."""
    first, second = module.get_submodule(maker), module.get_submodule(taker)
    if not all(_plain(layer) for layer in (first, second)) or not _fits(first, second):
        return False
    trial = copy.deepcopy(module).eval()
    generator = torch.Generator().manual_seed(len(maker))
    scale = torch.rand(len(cast(Tensor, first.weight)), generator=generator) + 0.5
    with torch.no_grad():
        before = tensors(trial(inputs))
        _scale(trial.get_submodule(maker), trial.get_submodule(taker), scale)
        return same_tensors(before, tensors(trial(inputs)))


def _plain(layer: nn.Module) -> bool:
    masked = prune.find(layer) is not None
    return (masked or not parametrize.is_parametrized(layer, "weight")) and len(places(layer, "weight")) == 1


def _fits(maker: nn.Module, taker: nn.Module) -> bool:
    """Whether each input of one is one of the other's channels, or a whole number of them after flattening."""
    groups, count = getattr(taker, "groups", 1), len(cast(Tensor, maker.weight))
    weight = cast(Tensor, taker.weight)
    return weight.shape[1] == 1 and groups == count == len(weight) if groups > 1 else weight.shape[1] % count == 0


def _equal(maker: nn.Module, taker: nn.Module) -> float:
    """Scale the channels between two layers once; by how much the farthest one moved, as a share."""
    made = _size(cast(Tensor, maker.weight).flatten(1))
    count = len(made)
    read = _size(_by_channel(taker, cast(Tensor, taker.weight), count))
    scale = (made / read).sqrt().clamp(1 / _MOST, _MOST)
    scale = torch.where((made > 0) & (read > 0), scale, torch.ones_like(scale))
    _scale(maker, taker, scale)
    return float((scale - 1).abs().max())


def _size(rows: Tensor) -> Tensor:
    return rows.square().mean(1).sqrt()


def _by_channel(taker: nn.Module, weight: Tensor, count: int) -> Tensor:
    """The weights that read each channel, a row of them each."""
    if getattr(taker, "groups", 1) > 1:
        return weight.flatten(1)
    return weight.transpose(0, 1).reshape(count, -1)


def _scale(maker: nn.Module, taker: nn.Module, scale: Tensor) -> None:
    made, read = prune.trained(maker), prune.trained(taker)
    made.div_(scale.view(-1, *[1] * (made.dim() - 1)))
    if maker.bias is not None:
        cast(Tensor, maker.bias).div_(scale)
    if getattr(taker, "groups", 1) > 1:
        read.mul_(scale.view(-1, *[1] * (read.dim() - 1)))
    else:
        each = scale.repeat_interleave(read.shape[1] // len(scale))
        read.mul_(each.view(1, -1, *[1] * (read.dim() - 2)))
