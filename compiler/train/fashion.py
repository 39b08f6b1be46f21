"""Fashion-MNIST: in the format of MNIST, from Debian's package or a folder of one's own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError, ToolError
from compiler.train.mnist import FILES, Mnist, parse_idx, read_raw

__all__ = ["FOLDER_VARIABLE", "PACKAGE_FOLDER", "load"]

PACKAGE_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's dataset-fashion-mnist puts the files."""

FOLDER_VARIABLE = "FASHION_MNIST_DIR"
"""Environment variable that names a folder with the four files."""

_SHAPES = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}


def load(folder: Path | None = None) -> Mnist:
    """Read Fashion-MNIST from `folder`, else the folder in FASHION_MNIST_DIR, else that of Debian's package.

    Raises
    ------
    ToolError
        The files are not there; says what to install or where to put them.
    InputError
        A file is missing from the folder, is damaged, or is not what its name says.
    """
    named = folder or (Path(os.environ[FOLDER_VARIABLE]) if os.environ.get(FOLDER_VARIABLE) else None)
    if named is None:
        named = PACKAGE_FOLDER
        if not named.is_dir():
            raise ToolError(
                "Fashion-MNIST is not on this machine: install it (Debian: sudo apt install dataset-fashion-mnist), or "
                f"put the files {', '.join(FILES)} (or the same with .gz) into a folder and name it with "
                f"{FOLDER_VARIABLE}=FOLDER"
            )
    elif not named.is_dir():
        raise InputError(f"the Fashion-MNIST folder {named} does not exist; put the files {', '.join(FILES)} there")
    return Mnist(*(_read(named, name, shape) for name, shape in _SHAPES.items()))


def _read(folder: Path, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    data, path = read_raw(folder, name)
    array = parse_idx(data, path)
    if array.shape != shape or ("labels" in name and array.max() > 9):
        raise InputError(f"{path} holds {array.shape}; expected Fashion-MNIST's {shape}, labels from 0 to 9")
    return array
