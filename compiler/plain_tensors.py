"""Tensors of a safetensors file that somebody else wrote, floats as float32, without loss.

numpy has no bfloat16, so those are read from the file's bytes: one is the upper half of a float32.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError

__all__ = ["MOST_AXES", "read_tensors"]

MOST_AXES = 32
"""Of a tensor: numpy knows 64, and raises what no reader expects beyond."""

_WIDENED = ("F16", "BF16")
_KEPT = ("F32", "BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64")
_NAMES = {"F64": "float64", "C64": "complex64"}


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Name → values of every tensor; float16 and bfloat16 are widened to float32, which changes no value.

    Raises
    ------
    InputError
        There is no such file, it is damaged, or it holds floats that float32 does not hold exactly; all are named.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            types = {name: str(part.get_dtype()) for name, part in slices.items()}
            _check(path, types)
            if deep := [name for name, part in slices.items() if len(part.get_shape()) > MOST_AXES]:
                raise InputError(f"{path}: {deep[0]} has more than {MOST_AXES} axes; no weights do")
            numpy_reads = {name: file.get_tensor(name) for name, kind in types.items() if kind != "BF16"}
        halves = [name for name, kind in types.items() if kind == "BF16"]
        read = {**numpy_reads, **(_bfloat16(path, halves) if halves else {})}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, SafetensorError) as error:  # ValueError: an axis longer than numpy counts
        raise InputError(f"{path}: not a readable safetensors file ({error})") from None
    return {name: read[name].astype(np.float32) if kind in _WIDENED else read[name] for name, kind in types.items()}


def _check(path: Path, types: dict[str, str]) -> None:
    wrong = {name: kind for name, kind in types.items() if kind not in (*_WIDENED, *_KEPT)}
    if wrong:
        listed = ", ".join(f"{name} ({_NAMES.get(kind, kind)})" for name, kind in wrong.items())
        raise InputError(
            f"{path}: {listed}; expected float32, float16, bfloat16 or whole numbers: "
            "convert with .float() before saving"
        )


def _bfloat16(path: Path, names: list[str]) -> dict[str, NDArray[np.float32]]:
    """Tensors of a file whose header safetensors has found sound."""
    content = np.memmap(path, np.uint8, mode="r")
    length = int(content[:8].view("<u8")[0])
    header: dict[str, Any] = json.loads(content[8 : 8 + length].tobytes())
    read = {}
    for name in names:
        begin, end = header[name]["data_offsets"]
        upper = content[8 + length + begin : 8 + length + end].view("<u2").astype(np.uint32)
        read[name] = (upper << 16).view(np.float32).reshape(header[name]["shape"])
    return read
