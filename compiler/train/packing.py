"""A trained module as a compressed file, by every coder."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from compiler.coding.container import CODERS, compress
from compiler.compressed import CompressedModel

__all__ = ["compressed_files"]


def compressed_files(plain: nn.Module) -> dict[str, bytes]:
    """Coder → the `.eiez` file of a module without parametrizations; the file holds its whole state.

    Raises
    ------
    ModelError
        A tensor is neither float32 nor of whole numbers or truth values.
    """
    narrow = (torch.bfloat16, torch.float16)  # every value of which is one of float32
    state = {name: value.float() if value.dtype in narrow else value for name, value in plain.state_dict().items()}
    arrays = {name: np.asarray(value.numpy(), order="C") for name, value in state.items()}
    model = CompressedModel.from_state(arrays)
    return {coder: compress(model, coder) for coder in CODERS}
