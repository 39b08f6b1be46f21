"""Stochastic ternarization of one gradient: every element becomes -1, 0 or 1 times the tensor's scaler.

With the scaler s, an element g is kept, as sign(g) · s, with probability min(|g| / s, 1) and is 0 otherwise. Its
expectation is g clipped to ±s: exactly g wherever |g| ≤ s. Clipping needs no step of its own: beyond s an element is
always kept.

Source: TernGrad (Wen et al., NIPS 2017), equations 1 to 3 and section 3.2 (clipping, 2.5 standard deviations); the
scaler with clipping is 2.5 standard deviations itself, not the largest clipped magnitude, as in the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compiler.train.loop import seed_of

__all__ = ["generator_of", "scaler", "ternarize"]


def scaler(gradient: Tensor, clip: float) -> Tensor:
    """Scaler of a gradient, float32 scalar: `clip` standard deviations (of the population, around the mean).

    Infinite where the gradient is not finite, so that the largest over the workers says so to all of them: what is
    decoded with it is not a number, as a float sum would be.

    Parameters
    ----------
    clip : 0 for the largest magnitude instead.
    """
    flat = gradient.detach().reshape(-1).float()
    scale = clip * flat.std(correction=0) if clip else flat.abs().max()
    return torch.where(scale.isfinite(), scale, torch.inf)


def generator_of(seed: int, step: int, worker: int, tensor: int) -> torch.Generator:
    """The random numbers of one tensor of one worker in one step, wherever and in whatever order they are drawn."""
    return torch.Generator().manual_seed(seed_of(seed, step, worker, tensor))


def ternarize(gradient: Tensor, scale: Tensor, generator: torch.Generator) -> Tensor:
    """Codes -1, 0, 1 of a gradient, int8, flat, in the order of its logical elements.

    Parameters
    ----------
    scale : float32 scalar that all workers share.
    """
    flat = gradient.detach().reshape(-1).float()
    # Uniform in 0 … scale, the upper end never reached: at most one of the two comparisons holds, and neither for 0.
    threshold = torch.rand(flat.shape, generator=generator) * scale
    return (threshold < flat).to(torch.int8) - (threshold < -flat).to(torch.int8)
