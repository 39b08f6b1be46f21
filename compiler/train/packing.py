"""A trained module as a compressed file, by every coder."""

from __future__ import annotations

import numpy as np
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
    state = {name: np.ascontiguousarray(value.numpy()) for name, value in plain.state_dict().items()}
    model = CompressedModel.from_state(state)
    return {coder: compress(model, coder) for coder in CODERS}
