"""Which layers read the hidden units of a recurrent one, found by running the network with one unit changed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_map

from compiler.errors import ModelError
from compiler.train.evaluating import evaluating

__all__ = ["readers", "recurrent_layers"]

_KINDS = (nn.RNN, nn.LSTM, nn.GRU)


def recurrent_layers(module: nn.Module) -> list[str]:
    """Paths of torch's recurrent modules."""
    return [path for path, layer in module.named_modules() if isinstance(layer, _KINDS)]


def readers(module: nn.Module, path: str, inputs: Tensor) -> list[str]:
    """Paths of the Linear layers that take the outputs of the recurrent module at `path`, unit by unit.

    A layer reads the units if a change of one unit changes just that one of its inputs.

    Parameters
    ----------
    inputs : a few samples, for some runs of the module.

    Raises
    ------
    ModelError
        There is no such module, no Linear layer reads it so, or something else does.
    """
    known = dict(module.named_modules())
    if not isinstance(known.get(path), _KINDS):
        listed = ", ".join(recurrent_layers(module)) or "none"
        raise ModelError(f"{path} is no RNN, LSTM or GRU of this network; it has {listed}")
    rnn: Any = known[path]
    units = rnn.hidden_size
    plain = _inputs(module, rnn, inputs, None)
    probes = sorted({0, units // 2, units - 1})
    changed = [_inputs(module, rnn, inputs, unit) for unit in probes]
    found = []
    for name, before in plain.items():
        places = [_changed(before, each[name]) for each in changed]
        if places == [[unit] for unit in probes]:
            found.append(name)
    wrong = [name for name in found if not isinstance(known[name], nn.Linear) or known[name].in_features != units]
    if wrong or not found:
        read = ", ".join(f"{name} ({type(known[name]).__name__})" for name in wrong or found) or "no layer"
        raise ModelError(
            f"the {units} units of {path} are read by {read}; expected Linear layers of {units} inputs that take them "
            "as they come, so that units can be removed"
        )
    return found


def _inputs(module: nn.Module, rnn: nn.Module, inputs: Tensor, unit: int | None) -> dict[str, Tensor]:
    """What every layer with parameters of its own takes, the outputs of one unit being changed."""
    seen: dict[str, Tensor] = {}

    def note(path: str) -> Any:
        def hook(layer: nn.Module, taken: tuple[Any, ...]) -> None:
            if taken and isinstance(taken[0], Tensor) and taken[0].is_floating_point():
                seen.setdefault(path, taken[0].detach().clone())

        return hook

    def shift(layer: nn.Module, taken: Any, given: Any) -> Any:
        return tree_map(lambda each: _shifted(each, unit), given, is_leaf=lambda each: isinstance(each, PackedSequence))

    handles = [
        layer.register_forward_pre_hook(note(path))
        for path, layer in module.named_modules()
        if layer is not rnn and (any(True for _ in layer.parameters(recurse=False)) or is_parametrized(layer))
    ]
    if unit is not None:
        handles.append(rnn.register_forward_hook(shift))
    with evaluating(module, handles):
        module(inputs)
    return seen


def _shifted(value: Any, unit: int | None) -> Any:
    if isinstance(value, PackedSequence):
        return value._replace(data=_shifted(value.data, unit))
    if not isinstance(value, Tensor):
        return value
    moved = value.clone()
    moved[..., unit] += 1.0
    return moved


def _changed(before: Tensor, after: Tensor) -> list[int] | None:
    """Places of the last dimension that differ; None if the shape does."""
    if before.shape != after.shape or not before.dim():
        return None
    differs = (before != after).flatten(0, -2).any(0) if before.dim() > 1 else before != after
    return torch.nonzero(differs).flatten().tolist()
