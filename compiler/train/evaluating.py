"""A module in evaluation mode for a while, watched by hooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

__all__ = ["evaluating"]


@contextmanager
def evaluating(module: nn.Module, handles: Sequence[RemovableHandle] = ()) -> Iterator[None]:
    """Evaluation mode, without gradients; then the mode is as it was, and the hooks of these handles are gone."""
    training = module.training
    try:
        with torch.no_grad():
            module.eval()
            yield
    finally:
        module.train(training)
        for handle in handles:
            handle.remove()
