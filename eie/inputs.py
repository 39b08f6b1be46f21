"""The inputs of a network from one file: an ``.npy`` array, or an ``.npz`` with an array for each input by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.arrays import read_arrays
from compiler.errors import InputError

__all__ = ["assign_inputs", "read_inputs"]


def read_inputs(path: Path, names: Sequence[str]) -> tuple[NDArray[Any], ...]:
    """An array for each of `names`, in their order; ``-`` reads standard input.

    Raises
    ------
    InputError
        There is no such file, it is none of both, or it does not have exactly these arrays.
    """
    return assign_inputs(path, read_arrays(path), names)


def assign_inputs(
    path: Path, content: NDArray[Any] | dict[str, NDArray[Any]], names: Sequence[str]
) -> tuple[NDArray[Any], ...]:
    """An array for each of `names`, from what `read_arrays` found in the file. Raises `InputError` as `read_inputs`."""
    if isinstance(content, dict):
        if sorted(content) != sorted(names):
            held = ", ".join(content) or "nothing"
            raise InputError(f"{path} holds {held}; expected an array for each input: {', '.join(names)}")
        return tuple(content[name] for name in names)
    if len(names) != 1:
        raise InputError(f"{path}: the network has inputs {', '.join(names)}; expected an .npz with an array for each")
    return (content[np.newaxis] if content.ndim == 1 else content,)
