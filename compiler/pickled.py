"""Recognize what `torch.save` wrote. Such files are pickles, which run code when read, so this kit never reads them."""

from __future__ import annotations

import zipfile
from pathlib import Path

from compiler.errors import InputError

__all__ = ["refuse_pickled"]


def refuse_pickled(path: Path) -> None:
    """Do nothing, unless the file is one of torch.save.

    Raises
    ------
    InputError
        It is; says how to convert it where its origin is trusted.
    """
    if not _is_pickled(path):
        return
    target = path.with_suffix(".safetensors")
    raise InputError(
        f"{path} was written by torch.save, as a pickle, which can run any code when it is read; expected safetensors. "
        f'If you trust it: python -c "import torch; from safetensors.torch import save_file; '
        f"save_file(torch.load('{path}', weights_only=True), '{target}')\" (if it holds more than the state, with "
        "['state_dict'] behind the torch.load)"
    )


def _is_pickled(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if start[:2] == b"PK":
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith("data.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False
    # A pickle begins with opcode 0x80 and its protocol, which may be the length of a safetensors header as well.
    return start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5") and start[8:9] != b"{"
