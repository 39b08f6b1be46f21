"""The structure of a compressed module beside its numbers, so that a saved state becomes the same module again.

`describe` says which parameters are masked, gated or shared, which residual blocks are their shortcut, which batch
normalizations are folded, which layers became several, and which recurrent ones lost units; `rebuild` gives that
structure, and the shapes of a state, to a fresh module and loads the state.
Shapes may be smaller than the fresh module's: neurons may have been removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compiler.errors import InputError, ModelError
from compiler.train.bypass import Bypassed, blocks, replace
from compiler.train.factored import Factored, put_factored
from compiler.train.fold import Folded, put_folded
from compiler.train.gates import Gate
from compiler.train.layers import make_plain
from compiler.train.narrowed import Narrowed
from compiler.train.parametrized import register
from compiler.train.prune import Mask
from compiler.train.quantize import SharedWeight

__all__ = ["describe", "fit_sizes", "rebuild", "replace_layers"]


def describe(module: nn.Module) -> dict[str, dict[str, Any]]:
    """Full name of every parametrized parameter, path of every layer that was replaced → what it is now; for JSON."""
    found: dict[str, dict[str, Any]] = {}
    for path, layer in module.named_modules():
        if isinstance(layer, Bypassed | Factored | Folded | Narrowed):
            found[path] = layer.describe()
        if parametrize.is_parametrized(layer):
            for name, chain in cast(Any, layer.parametrizations).items():
                full = f"{path}.{name}" if path else name
                if not isinstance(chain[0], Mask | Gate | SharedWeight) or len(chain) > 1:
                    kinds = ", ".join(type(step).__name__ for step in chain)
                    raise ModelError(
                        f"{full} is parametrized by {kinds}; expected plain weights, or the masks, gates and "
                        "shared weights of this kit: write it out first, as "
                        "torch.nn.utils.parametrize.remove_parametrizations does"
                    )
                found[full] = chain[0].describe()
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
        description = replace_layers(module, description, source)
        # Tied parameters under each of their names, as the state has them.
        named = module.named_parameters(remove_duplicate=False)
        shapes = {name: tuple(parameter.shape) for name, parameter in named}
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


def replace_layers(module: nn.Module, description: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Put what is described in the place of layers, blocks and normalizations; the rest of the description.

    Raises
    ------
    InputError
        The module has no such block or layer.
    """
    rest = dict(description)
    for path, entry in description.items():
        if isinstance(entry, Mapping) and entry.get("kind") == Factored.kind:
            put_factored(module, path, rest.pop(path), source)
    rest = _narrow(module, _bypass(module, rest, source), source)
    for path, entry in list(rest.items()):
        if isinstance(entry, Mapping) and entry.get("kind") == Folded.kind:
            put_folded(module, path, rest.pop(path), source)
    return rest


def _bypass(module: nn.Module, description: Mapping[str, Any], source: str) -> dict[str, Any]:
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


def _narrow(module: nn.Module, description: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Put narrowed layers where recurrent ones are described as such; what is left of the description."""
    rest = dict(description)
    for path, entry in description.items():
        if isinstance(entry, Mapping) and entry.get("kind") == Narrowed.kind:
            parent, _, name = path.rpartition(".")
            try:
                owner = module.get_submodule(parent)
                setattr(owner, name, Narrowed.described(getattr(owner, name), entry))
            except (AttributeError, ModelError, TypeError, ValueError, KeyError) as error:
                raise InputError(f"{source} describes {path} as narrowed, which does not fit: {error}") from error
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
    mask, codes = _key(full, "0.mask"), _key(full, "0.codes")
    names = {None: full, Mask.kind: mask, Gate.kind: mask, SharedWeight.kind: codes}
    if kind not in names:
        raise InputError(f"{source} describes {full} as {kind!r}; expected {', '.join(filter(None, names))}")
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
    old = cast(nn.Parameter, getattr(layer, name))
    if old.shape != stored:  # not yet, as one that is tied to it
        old.data = old.new_zeros(stored)
    if name == "weight":
        fit_sizes(layer)


def fit_sizes(layer: nn.Module) -> None:
    """Set the sizes that a Linear, convolution or batch normalization states of itself to those of its weight."""
    weight = cast(Tensor, layer.weight)
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = weight.shape
    elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        layer.out_channels, layer.in_channels = weight.shape[0], weight.shape[1] * layer.groups
    elif isinstance(layer, nn.Embedding):
        layer.num_embeddings, layer.embedding_dim = weight.shape
    elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        layer.num_features = len(weight)
        for buffer in (layer.running_mean, layer.running_var):
            if buffer is not None:
                buffer.resize_(len(weight))


def _attach(module: nn.Module, full: str, entry: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> None:
    layer, name = _split(module, full)
    if parametrize.is_parametrized(layer, name):
        return  # by way of a layer that is tied to it
    weight = cast(Tensor, getattr(layer, name)).detach()
    if entry["kind"] == Mask.kind:
        register(layer, name, Mask(weight))
        return
    if entry["kind"] == Gate.kind:
        register(layer, name, Gate(weight))
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
    register(layer, name, shared, beside=free)
