"""Parametrizations of torch that can be copied, taken away from one copy, and shared by tied layers.

Torch makes a class for a parametrized module and puts a property into it. A deep copy shares that class, so that what
is taken away from the one breaks the other; here every module has a class of its own. The parameter object stays the
one that it was, whatever its shape, so optimizers that hold it go on (see `optimizers`).
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compiler.errors import ModelError
from compiler.train.optimizers import changed, forget_shape
from compiler.train.ties import places

__all__ = ["finite", "refuse_parametrized", "register", "write_out"]


def finite(module: nn.Module, name: str, key: str | None = None) -> None:
    """Raise `ModelError` with the tensor's name if a value of parameter `name` is NaN or infinite."""
    value = cast(Tensor, getattr(module, name)).detach()
    if not bool(torch.isfinite(value).all()):
        wrong = int((~torch.isfinite(value)).sum())
        raise ModelError(
            f"{key or name} of {type(module).__name__} has {wrong} of {value.numel()} values that are not finite; "
            "expected numbers: train it anew, or from a state before it diverged"
        )


def refuse_parametrized(module: nn.Module, name: str) -> None:
    """Raise `ModelError` if anything parametrizes parameter `name`."""
    if parametrize.is_parametrized(module, name):
        chain = module.get_submodule(f"parametrizations.{name}")
        kinds = ", ".join(type(each).__name__ for each in cast(Any, chain))
        raise ModelError(
            f"{name} of {type(module).__name__} is parametrized by {kinds} already; write it out first, "
            "with layers.make_plain"
        )


def register(module: nn.Module, name: str, step: nn.Module, beside: bool = False) -> None:
    """Let `step` compute plain parameter `name` of a module, and of every layer that is tied to it.

    Parameters
    ----------
    step : the parametrization; its ``right_inverse``, if it has one, says what is trained.
    beside : two parameters are trained, the old one being the first.

    Raises
    ------
    ModelError
        Something else parametrizes it.
    """
    refuse_parametrized(module, name)
    parameter = cast(nn.Parameter, getattr(module, name))
    tied = places(module, name)
    before = parameter.shape
    first: Any = None
    for owner, key in tied:
        _own_class(owner)
        # The weight's own shape may differ from that of what is trained, which torch only lets pass unchecked.
        parametrize.register_parametrization(owner, key, nn.Identity() if first is not None else step, unsafe=True)
        chains = cast(nn.ModuleDict, owner.parametrizations)
        first = chains[key] if first is None else first
        chains[key] = first
        if "__deepcopy__" in vars(type(owner)):  # torch's; a class that has one of its own keeps it
            cast(Any, type(owner)).__deepcopy__ = _deepcopy
    if beside:
        first.original0 = parameter
        changed(parameter, beside=(first.original1,))
    elif parameter.shape != before:
        forget_shape(parameter)
        changed(parameter)


def write_out(module: nn.Module, name: str) -> None:
    """Make parametrized parameter `name` a plain one with the value that it stands for, in every tied layer."""
    value = cast(Tensor, getattr(module, name)).detach().clone()
    chain = cast(Any, module.get_submodule(f"parametrizations.{name}"))
    original: Tensor = chain.original if chain.is_tensor else chain.original0
    if isinstance(original, nn.Parameter):
        changed(original, value)
        value = original
    for owner, key in places(module, name):
        _take_away(owner, key, value)


def _take_away(module: nn.Module, name: str, value: Tensor) -> None:
    _own_class(module)
    delattr(type(module), name)
    chains = cast(nn.ModuleDict, module.parametrizations)
    del chains[name]
    if not len(chains):
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
    if isinstance(value, nn.Parameter):
        setattr(module, name, value)  # not register_parameter: recurrent layers keep a list beside it
    else:
        module.register_buffer(name, value)


def _own_class(module: nn.Module) -> None:
    """Give a parametrized module a class that no copy of it shares."""
    if parametrize.is_parametrized(module):
        module.__class__ = _copied(type(module))


def _copied(cls: type) -> Any:
    content = {key: value for key, value in vars(cls).items() if key not in ("__dict__", "__weakref__")}
    return type(cls.__name__, cls.__bases__, content)


def _deepcopy(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A copy with a class of its own; what a recurrent layer derives from its weights is derived anew."""
    cls = _copied(type(module))
    replica = cast(nn.Module, cls.__new__(cls))
    memo[id(module)] = replica
    derived = ("_flat_weights", "_flat_weight_refs") if isinstance(module, nn.RNNBase) else ()
    content = {key: value for key, value in module.__dict__.items() if key not in derived}
    replica.__dict__.update(copy.deepcopy(content, memo))
    if isinstance(replica, nn.RNNBase):
        replica._init_flat_weights()
    return replica
