"""Optimizers for large batches: LARS and LAMB, whose steps are in proportion to the norm of what they change.

Both scale the step of every tensor by ‖weight‖ over ‖step‖, so that a rate which suits one layer suits all of them.
Tensors of one dimension (biases, scales of normalization) are not scaled and do not decay, as is usual.

Sources: LARS: Large Batch Training of Convolutional Networks (You, Gitman and Ginsburg, 2017), algorithm 1. LAMB: Large
Batch Optimization for Deep Learning: Training BERT in 76 minutes (You et al., ICLR 2020), algorithm 2 with the identity
for its function phi, and bias correction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

__all__ = ["BETAS", "EPSILON", "LAMB", "LARS", "TRUST"]

TRUST = 0.02
"""Of LARS. For tensors that are scaled only its product with the rate counts; for the others only the rate."""

BETAS, EPSILON = (0.9, 0.999), 1e-6
"""Of LAMB, as published."""


class LARS(torch.optim.Optimizer):
    """velocity ← momentum · velocity + rate · scale · (gradient + decay · weight); weight ← weight - velocity.

    The scale is trust · ‖weight‖ / (‖gradient‖ + decay · ‖weight‖), and 1 where one of the norms is zero.

    Parameters
    ----------
    lr, momentum, weight_decay, trust : rate, momentum, decay, trust.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.9, weight_decay: float = 0.0,
        trust: float = TRUST,
    ) -> None:  # fmt: skip
        _check(lr=lr, momentum=momentum, weight_decay=weight_decay, trust=trust)
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of all parameters that have a gradient."""
        for group, parameter, gradient, state in _taken(self, closure):
            decay = group["weight_decay"] if parameter.dim() > 1 else 0.0
            update = gradient.add(parameter, alpha=decay)
            scale: Tensor | float = 1.0
            if parameter.dim() > 1:
                long = torch.linalg.vector_norm(parameter)
                steep = torch.linalg.vector_norm(gradient)
                scale = _ratio(long, steep + decay * long, group["trust"], (long > 0) & (steep > 0))
            if "velocity" not in state:
                state["velocity"] = torch.zeros_like(parameter)
            state["velocity"].mul_(group["momentum"]).add_(update * scale, alpha=group["lr"])
            parameter.sub_(state["velocity"])


class LAMB(torch.optim.Optimizer):
    """Adam's step plus decay · weight, scaled to the norm of the weight; weight ← weight - rate · scale · step.

    The scale is ‖weight‖ / ‖step‖, and 1 where one of the norms is zero.

    Parameters
    ----------
    lr, weight_decay : rate and decay.
    betas, eps : of the running means.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0,
        betas: tuple[float, float] = BETAS, eps: float = EPSILON,
    ) -> None:  # fmt: skip
        _check(lr=lr, weight_decay=weight_decay, eps=eps, beta_0=betas[0], beta_1=betas[1])
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of all parameters that have a gradient."""
        for group, parameter, gradient, state in _taken(self, closure):
            first, second = group["betas"]
            if "step" not in state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] += 1
            count = float(state["step"])
            state["mean"].lerp_(gradient, 1 - first)
            state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
            root = (state["square"] / (1 - second**count)).sqrt_().add_(group["eps"])
            update = (state["mean"] / (1 - first**count)).div_(root)
            scale: Tensor | float = 1.0
            if parameter.dim() > 1:
                update.add_(parameter, alpha=group["weight_decay"])
                long, far = torch.linalg.vector_norm(parameter), torch.linalg.vector_norm(update)
                scale = _ratio(long, far, 1.0, (long > 0) & (far > 0))
            parameter.sub_(update * scale, alpha=group["lr"])


def _check(**values: float) -> None:
    """Raise `ValueError` for what is not a number from 0, and for momentum or betas of 1 and more."""
    for name, value in values.items():
        most = 1.0 if name in ("momentum", "beta_0", "beta_1") else float("inf")
        if not 0 <= value < most:
            raise ValueError(f"{name} is {value}; expected a number from 0 to below {most}")


def _ratio(above: Tensor, below: Tensor, factor: float, known: Tensor) -> Tensor:
    return torch.where(known, factor * above / below, torch.ones_like(above))


def _taken(
    optimizer: torch.optim.Optimizer, closure: Callable[[], float] | None
) -> Iterable[tuple[dict[str, Any], Tensor, Tensor, dict[str, Any]]]:
    """Group, parameter, gradient and state of each parameter that takes part in this step."""
    if closure is not None:
        raise ValueError("a closure was given; expected none, since the gradients have to be there before the step")
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                yield group, parameter, parameter.grad, cast(dict[str, Any], optimizer.state[parameter])
