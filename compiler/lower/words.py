"""Arrays of field values to memory words, by the layouts of `hw.layouts`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from amaranth.lib import data
from numpy.typing import NDArray

from hw.layouts import fields

__all__ = ["pack_words"]


def pack_words(layout: data.Layout, values: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Words of a layout from arrays of field values.

    Parameters
    ----------
    layout : what a word looks like.
    values : leaf name of the layout (as `hw.layouts.fields` gives it) → integers, all of one shape; absent: zero.

    Returns
    -------
    uint8 (*shape, ceil(bits / 8)), the low byte first.

    Raises
    ------
    ValueError
        A value does not fit its field, or a name is not in the layout. Silently cut bits would be a wrong image.
    """
    leaves = {name: (first, width) for name, first, width in fields(layout)}
    if unknown := set(values) - set(leaves):
        raise ValueError(f"no field {', '.join(sorted(unknown))}; expected some of {', '.join(leaves)}")
    arrays = {name: np.asarray(value, np.int64) for name, value in values.items()}
    shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
    words = np.zeros((*shape, -(-layout.size // 64)), np.uint64)
    for name, array in arrays.items():
        first, width = leaves[name]
        if array.size and (int(array.min()) < 0 or int(array.max()) >> width):
            raise ValueError(f"{name} is {int(array.min())} to {int(array.max())}; expected {width} unsigned bits")
        word, bit = divmod(first, 64)
        words[..., word] |= array.astype(np.uint64) << np.uint64(bit)
        if bit + width > 64:
            words[..., word + 1] |= array.astype(np.uint64) >> np.uint64(64 - bit)
    as_bytes: NDArray[np.uint8] = words.astype("<u8", copy=False).view(np.uint8)
    return np.ascontiguousarray(as_bytes[..., : -(-layout.size // 8)])
