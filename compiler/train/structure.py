"""The structure of a compressed module beside its numbers, so that a saved state becomes the same module again.

`describe` says which parameters are masked or shared, and which residual blocks are their shortcut; `rebuild` gives
that structure, and the shapes of a state, to a fresh module and loads the state. Shapes may be smaller than the fresh
module's: neurons may have been removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compiler.errors import InputError
from compiler.train.bypass import Bypassed, blocks, replace
from compiler.train.layers import make_plain
from compiler.train.prune import Mask
from compiler.train.quantize import SharedWeight

__all__ = ["bypass", "describe", "fit_sizes", "rebuild"]


def describe(module: nn.Module) -> dict[str, dict[str, Any]]:
    """Full name of every parametrized parameter → what parametrizes it, of every bypassed block → that; for JSON."""
    found: dict[str, dict[str, Any]] = {}
    for path, layer in module.named_modules():
        if isinstance(layer, Bypassed):
            found[path] = {"kind": Bypassed.kind}
        if parametrize.is_parametrized(layer):
            for name, chain in cast(Any, layer.parametrizations).items():
                (only,) = chain  # this kit never puts one on the other
                found[f"{path}.{name}" if path else name] = only.describe()
    return found


def rebuild(module: nn.Module, description: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> None:
    """Make `module`, a fresh one, what it was when `state` and `description` were taken from it; in place.

    Parameters
    ----------
    source : what messages call the state.

    Raises
    ------
    InputError
        State or description do not belong to such a module.
    """
    with torch.no_grad():
        make_plain(module)
        description = bypass(module, description, source)
        shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
        for full, entry in description.items():
            if full not in shapes or not isinstance(entry, Mapping):
                raise InputError(f"{source} describes {full}, which is no parameter of this network")
        for full in shapes:
            stored = _stored_shape(full, description.get(full), state, source)
            _resize(module, full, shapes[full], stored, source)
        for full, entry in description.items():
            _attach(module, full, entry, state, source)
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        raise InputError(f"{source} does not hold this network: {error}") from error


def bypass(module: nn.Module, description: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Bypass the blocks that are described as such; what is left of the description."""
    residual = dict(blocks(module))
    rest = dict(description)
    for path, entry in description.items():
        if isinstance(entry, Mapping) and entry.get("kind") == Bypassed.kind:
            if path not in residual:
                raise InputError(f"{source} describes {path}, which is no residual block of this network")
            replace(module, path)
            del rest[path]
    return rest


def _split(module: nn.Module, full: str) -> tuple[nn.Module, str]:
    path, _, name = full.rpartition(".")
    return module.get_submodule(path), name


def _key(full: str, part: str) -> str:
    path, _, name = full.rpartition(".")
    return f"{path}.parametrizations.{name}.{part}" if path else f"parametrizations.{name}.{part}"


def _stored_shape(full: str, entry: Any, state: Mapping[str, Tensor], source: str) -> tuple[int, ...]:
    """Shape that parameter `full` has in `state`, under whichever name the structure gives it there."""
    kind = None if entry is None else entry.get("kind")
    names = {None: full, Mask.kind: _key(full, "0.mask"), SharedWeight.kind: _key(full, "0.codes")}
    if kind not in names:
        raise InputError(f"{source} describes {full} as {kind!r}; expected {Mask.kind} or {SharedWeight.kind}")
    if names[kind] not in state:
        raise InputError(f"{source} does not hold this network: {names[kind]} is missing")
    return tuple(state[names[kind]].shape)


def _resize(module: nn.Module, full: str, fresh: tuple[int, ...], stored: tuple[int, ...], source: str) -> None:
    """Give a plain parameter a smaller shape, and its layer the sizes that follow from it."""
    if stored == fresh:
        return
    if len(stored) != len(fresh) or any(not 1 <= s <= f for s, f in zip(stored, fresh, strict=True)):
        raise InputError(f"{source} does not hold this network: {full} has shape {stored}; at most {fresh} is expected")
    layer, name = _split(module, full)
    old = cast(Tensor, getattr(layer, name))
    setattr(layer, name, nn.Parameter(old.new_zeros(stored)))
    if name == "weight":
        fit_sizes(layer)


def fit_sizes(layer: nn.Module) -> None:
    """Set the sizes that a Linear, convolution or batch normalization states of itself to those of its weight."""
    weight = cast(Tensor, layer.weight)
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = weight.shape
    elif isinstance(layer, nn.Conv1d | nn.Conv2d):
        layer.out_channels, layer.in_channels = weight.shape[0], weight.shape[1] * layer.groups
    elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        layer.num_features = len(weight)
        for buffer in (layer.running_mean, layer.running_var):
            if buffer is not None:
                buffer.resize_(len(weight))


def _attach(module: nn.Module, full: str, entry: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> None:
    layer, name = _split(module, full)
    weight = cast(Tensor, getattr(layer, name)).detach()
    if entry["kind"] == Mask.kind:
        parametrize.register_parametrization(layer, name, Mask(weight))
        return
    free, uniform = bool(entry.get("free")), bool(entry.get("reach"))
    values = state.get(_key(full, "original1" if free else "original"))
    levels = state.get(_key(full, "0.levels"))
    codes = torch.zeros(weight.shape, dtype=torch.uint8)
    clusters = levels if uniform else values
    if values is None or clusters is None or values.dim() != 1 or clusters.dim() != 1 or not 1 <= len(clusters) <= 255:
        raise InputError(f"{source} does not hold this network: {full} lacks its shared values")
    stored = state[_key(full, "0.codes")]
    if stored.numel() and int(stored.max()) > len(clusters):
        raise InputError(f"{source}: {full} has code {int(stored.max())}; there are {len(clusters)} shared values")
    shared = SharedWeight(
        codes,
        torch.zeros_like(values),
        torch.zeros_like(clusters) if uniform else None,
        weight.clone() if free else None,
    )
    parametrize.register_parametrization(layer, name, shared, unsafe=True)
