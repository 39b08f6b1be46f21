"""Read a batch of inputs from a file. What it must look like is for the network to say (`sim.run.check_input`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError

__all__ = ["read_batch"]


def read_batch(path: Path) -> NDArray[Any]:
    """The array in an ``.npy`` file; one vector (inputs,) becomes a batch of one, (1, inputs).

    Raises
    ------
    InputError
        There is no such file, or it is not an ``.npy`` file of plain numbers.
    """
    try:
        x = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not an .npy file of plain numbers ({error})") from None
    if not isinstance(x, np.ndarray):
        x.close()
        raise InputError(f"{path}: an .npz archive; expected one array, as numpy.save writes it (.npy)")
    return x[np.newaxis] if x.ndim == 1 else x
