"""A trained module as a compressed file, by every coder."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from compiler.coding.container import CODERS, compress
from compiler.compressed import CompressedModel

__all__ = ["compressed_files"]


def compressed_files(plain: nn.Module) -> dict[str, bytes]:
    """Coder → the `.eiez` file of a module without parametrizations; its float32 state is what the file holds."""
    state = {name: value.numpy() for name, value in plain.state_dict().items() if value.dtype is torch.float32}
    model = CompressedModel.from_state(
        {name: np.ascontiguousarray(value) for name, value in state.items() if value.ndim}
    )
    return {coder: compress(model, coder) for coder in CODERS}
