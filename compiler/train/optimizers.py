"""Optimizers that were made before a parameter changed go on with it as it is now.

Masks, sharing, writing out and removal keep the parameter object that an optimizer holds, but may give it another
shape, or another parameter beside it. Before an optimizer's next step its running means of the old shape are dropped,
so that they start anew for that parameter, and the new parameter joins the group of the old one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["changed", "forget_shape"]

_CHANGED: Any = WeakIdKeyDictionary()
"""Parameter that changed → the parameters that are trained beside it."""


def changed(parameter: nn.Parameter, value: Tensor | None = None, beside: tuple[nn.Parameter, ...] = ()) -> None:
    """Give a parameter another value, of any shape, and tell every optimizer that holds it.

    Parameters
    ----------
    value : None to leave it as it is.
    beside : parameters that are to be trained with it from now on.
    """
    if value is not None:
        reshaped = value.shape != parameter.shape
        parameter.data = value.detach()
        if reshaped:
            forget_shape(parameter)
    if not _CHANGED:
        register_optimizer_step_pre_hook(_follow)
    _CHANGED[parameter] = beside


def forget_shape(parameter: nn.Parameter) -> None:
    """Let autograd know nothing of the shape that a parameter had.

    As long as some result of an earlier forward pass is there, such as the last loss, torch goes on with the node that
    adds up the gradient of the old shape. It makes a new one when the type changes.
    """
    parameter.grad = None
    value = parameter.data
    parameter.data = value.to(torch.float32 if value.dtype is torch.float64 else torch.float64)
    parameter.data = value


def _follow(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for group in optimizer.param_groups:
        for parameter in list(group["params"]):
            beside = _CHANGED.get(parameter)
            if beside is None:
                continue
            state = optimizer.state.get(parameter, {})
            kept = (value for value in state.values() if isinstance(value, Tensor) and value.dim())
            if any(value.shape != parameter.shape for value in kept):
                del optimizer.state[parameter]
            group["params"] += [each for each in beside if id(each) not in held]
