"""Physical removal of dead structure from any network: residual blocks, then channels across shortcuts.

A channel is dead if no layer that takes it has a weight for it, or if every layer that makes it has no weight left:
then it is a constant. Zero simply goes; another constant moves into the biases of the layers that take it where that
is exact (they have one, and do not pad). What cannot go exactly stays. The function is compared before and after, to
float rounding; a network in which it changed (one that mixes channels in a way that no layer here does, such as a
normalization over channels) is left as it was.

Source: Learning Structured Sparsity in Deep Neural Networks (Wen et al., NIPS 2016), section 4.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compiler.errors import ModelError
from compiler.train import channels
from compiler.train.bypass import bypass
from compiler.train.channels import Channels, End
from compiler.train.layers import make_plain, weights
from compiler.train.optimizers import changed
from compiler.train.prune import attach, find

__all__ = ["Removed", "remove", "same_tensors", "tensors"]

_CLOSE = 1e-4
"""How far outputs may be from those before, as a share of the largest output; float sums are grouped differently."""


@dataclass(frozen=True)
class Removed:
    """What went.

    Attributes
    ----------
    channels : number of channels, one that several layers share counted once.
    blocks : paths of residual blocks that are their shortcut now.
    kept : dead channels that had to stay: a constant that no bias can take, or the last channel of its layer.
    """

    channels: int
    blocks: tuple[str, ...]
    kept: int


def remove(module: nn.Module, inputs: Tensor) -> Removed:
    """Remove what is dead, in place.

    Parametrized weights are written out; what was masked is masked again, in the smaller shape. The parameter objects
    stay, so optimizers that hold them go on. Channels of tied layers stay.

    Parameters
    ----------
    inputs : some samples, two or more, to trace the network with and to compare outputs on.

    Raises
    ------
    ModelError
        The network cannot be traced, or its outputs changed; it is then as before, its parameters plain.
    ToolError
        torch-pruning is not installed.
    """
    masked = {site.key for site in weights(module) if find(site.module, site.name) is not None}
    make_plain(module)
    trial = copy.deepcopy(module).eval()
    with torch.no_grad():
        before = tensors(trial(inputs))
    paths = bypass(trial, inputs)
    total, kept = 0, 0
    while True:
        found = channels.find(trial, inputs)
        constants = _constants(trial, found, inputs)
        with torch.no_grad():
            counts = [_shrink(each, constants) for each in found]
        kept = sum(stuck for _, stuck in counts)
        if not any(gone for gone, _ in counts):
            break
        total += sum(gone for gone, _ in counts)
    with torch.no_grad():
        after = tensors(trial(inputs))
    if not same_tensors(before, after):
        raise ModelError(
            f"removing dead channels would change the outputs of {type(module).__name__}: it has an operation that "
            "mixes channels and is not a Linear or a convolution, and is left as it was"
        )
    _take_over(module, trial)
    for site in weights(module):
        if site.key in masked:
            attach(site.module, site.name).mask.copy_(site.value.detach() != 0)
    return Removed(total, tuple(paths), kept)


def _shrink(found: Channels, constants: dict[nn.Module, Tensor]) -> tuple[int, int]:
    """Remove the dead ones of some channels; how many went, and how many are dead but stay."""
    makers = [_nonzero_outputs(end.layer) for end in found.makers]
    fed = _any(((end, nonzero) for end, nonzero in zip(found.makers, makers, strict=True)), found.count)
    used = _any(((end, _nonzero_inputs(end.layer)) for end in found.takers), found.count)
    exact = torch.ones(found.count, dtype=torch.bool)
    for end in found.takers:
        exact &= ~_any([(end, ~_foldable(end.layer, constants[end.layer]))], found.count)
    drop = ~used | (~fed & exact)
    if bool(drop.all()):
        drop[int(torch.argmax((used & fed).int()))] = False  # a layer keeps at least one channel
    stuck = int((~fed & used & ~drop).sum())
    if not bool(drop.any()):
        return 0, stuck
    for end in found.takers:
        _fold(end, drop & ~fed, constants[end.layer])
    found.remove(torch.nonzero(drop).flatten().tolist())
    return int(drop.sum()), stuck


def _constants(module: nn.Module, found: Iterable[Channels], inputs: Tensor) -> dict[nn.Module, Tensor]:
    """For each layer that takes channels: what each of its inputs is in all samples and places, NaN if it varies."""
    takers = {end.layer for each in found for end in each.takers}
    seen: dict[nn.Module, Tensor] = {}

    def note(layer: nn.Module, taken: tuple[Tensor, ...]) -> None:
        dim = -1 if isinstance(layer, nn.Linear) else -3 if isinstance(layer, nn.Conv2d) else -2
        values = taken[0].detach().movedim(dim, 0).flatten(1)
        low, high = values.amin(1), values.amax(1)
        one = torch.where(low == high, low, torch.full_like(low, torch.nan))
        before = seen.get(layer)
        seen[layer] = one if before is None else torch.where(before == one, one, torch.full_like(low, torch.nan))

    handles = [layer.register_forward_pre_hook(cast(Any, note)) for layer in takers]
    try:
        with torch.no_grad():
            module(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _any(ends: Iterable[tuple[End, Tensor]], count: int) -> Tensor:
    """For each channel, whether any of its places at any end is marked."""
    total = torch.zeros(count + 1)  # the last one is for what belongs to no channel
    for end, marked in ends:
        total.index_add_(0, end.channels % (count + 1), marked.float())
    return total[:-1] > 0


def _nonzero_outputs(layer: nn.Module) -> Tensor:
    return cast(Tensor, layer.weight).detach().flatten(1).abs().amax(1) > 0


def _nonzero_inputs(layer: nn.Module) -> Tensor:
    return cast(Tensor, layer.weight).detach().movedim(1, 0).flatten(1).abs().amax(1) > 0


def _foldable(layer: nn.Module, constant: Tensor) -> Tensor:
    """For which inputs a constant is nothing to this layer, or is something that its bias can take."""
    padded = not isinstance(layer, nn.Linear) and layer.padding not in (0, (0,), (0, 0), "valid")
    ready = layer.bias is not None and not padded
    return (constant == 0) | ~_nonzero_inputs(layer) | (torch.isfinite(constant) & ready)


def _fold(end: End, drop: Tensor, constant: Tensor) -> None:
    """Move the constants of the channels `drop` into the bias of a layer that takes them."""
    chosen = torch.cat((drop, torch.zeros(1, dtype=torch.bool)))[end.channels]
    moved = torch.where(chosen, constant, torch.zeros_like(constant)).nan_to_num()
    if bool(moved.any()):
        weight = cast(Tensor, end.layer.weight)
        gain = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
        bias = cast(Tensor, end.layer.bias)
        bias += gain @ moved


def _take_over(module: nn.Module, trial: nn.Module) -> None:
    """Make `module` hold what `trial` holds, in its own parameters."""
    mine = dict(module.named_parameters(remove_duplicate=False))
    for path, layer in trial.named_modules():
        for name in list(layer._parameters):
            old, new = mine.get(f"{path}.{name}" if path else name), getattr(layer, name)
            if old is not None and new is not None:
                changed(old, new)
                setattr(layer, name, old)
    for name, child in trial.named_children():
        setattr(module, name, child.train(module.training))
    for name, parameter in trial.named_parameters(recurse=False):
        setattr(module, name, parameter)


def tensors(outputs: Any) -> list[Tensor]:
    """All tensors of what a module returned, in order."""
    return [each.detach() for each in tree_leaves(outputs) if isinstance(each, Tensor)]


def same_tensors(before: list[Tensor], after: list[Tensor]) -> bool:
    """Whether shapes are equal, and values to float rounding."""
    return len(before) == len(after) and all(
        a.shape == b.shape and float((a - b).abs().max()) <= _CLOSE * float(b.abs().max())
        for a, b in zip(after, before, strict=True)
        if b.numel()
    )
