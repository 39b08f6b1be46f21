"""The inputs of a network from one file: an ``.npy`` array, or an ``.npz`` with an array for each input by name."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError
from eie.batch import read_batch

__all__ = ["read_inputs"]


def read_inputs(path: Path, names: Sequence[str]) -> tuple[NDArray[Any], ...]:
    """An array for each of `names`, in their order.

    Raises
    ------
    InputError
        There is no such file, it is none of both, or it does not have exactly these arrays.
    """
    if path.suffix != ".npz":
        if len(names) != 1:
            raise InputError(
                f"{path}: the network has inputs {', '.join(names)}; expected an .npz with an array for each"
            )
        return (read_batch(path),)
    try:
        with np.load(path, allow_pickle=False) as archive:
            if sorted(archive.files) != sorted(names):
                held = ", ".join(archive.files) or "nothing"
                raise InputError(f"{path} holds {held}; expected an array for each input: {', '.join(names)}")
            return tuple(archive[name] for name in names)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not an .npz file of plain numbers ({error})") from None
