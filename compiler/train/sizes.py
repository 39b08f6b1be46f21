"""What a compressed layer takes in bytes, everything counted, in the format of the paper."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["layer_size"]

_GAP_BITS = 4  # Deep Compression's published files use 4-bit gaps for fully connected layers


def layer_size(weight: NDArray[np.float32], biases: int, code_bits: int | None) -> dict[str, Any]:
    """Weights, zeros and bytes of one layer.

    Parameters
    ----------
    weight : (out, in).
    biases : how many biases the layer has, 4 bytes each.
    code_bits : width of a code, or None for weights that are not shared (32 bits each).

    Returns
    -------
    weights, nonzeros, density, distinct (nonzero values), dense_bytes (float32, biases included) and sparse_bytes:
    codes and 4-bit gaps of the row-major flattened matrix with the fillers that longer gaps need, codebook and
    biases, before any Huffman coding. (Deep Compression, section 2 and figure 2.)
    """
    positions = np.flatnonzero(weight)
    gaps = np.diff(positions, prepend=-1) - 1
    fillers = int((gaps >> _GAP_BITS).sum())
    value_bits = 32 if code_bits is None else code_bits
    codebook = 0 if code_bits is None else 4 << code_bits
    bits = (len(positions) + fillers) * (value_bits + _GAP_BITS)
    return {
        "weights": int(weight.size),
        "nonzeros": len(positions),
        "density": len(positions) / weight.size,
        "distinct": len(np.unique(weight[weight != 0])),
        "dense_bytes": 4 * (weight.size + biases),
        "sparse_bytes": -(-bits // 8) + codebook + 4 * biases,
    }
