"""Read an ONNX file without trusting it: nothing in it is run, and every size is checked before it is used."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ModelError, ToolError

__all__ = ["MAX_NUMBERS", "decode", "load"]

MAX_NUMBERS = 1 << 28
"""Numbers in one tensor: beyond, it is a mistake or an attack and not a network."""

MAX_FILE = (1 << 31) - 1
"""Bytes that a protobuf message can have."""

_FIELDS = {
    1: "float_data", 11: "double_data", 6: "int32_data", 7: "int64_data", 2: "int32_data",
    3: "int32_data", 4: "int32_data", 5: "int32_data", 9: "int32_data", 10: "int32_data",
    16: "int32_data", 12: "uint64_data", 13: "uint64_data",
}  # fmt: skip
"""Type of a tensor → where its numbers are unless they are raw bytes."""

_BYTES = {1: 4, 11: 8, 6: 4, 7: 8, 2: 1, 3: 1, 4: 2, 5: 2, 9: 1, 10: 2, 16: 2, 12: 4, 13: 8}


def load(given: str | Path | bytes) -> tuple[Any, Path | None]:
    """The model as its message, and the folder that its external data may lie in.

    Raises
    ------
    ModelError
        It cannot be read, or is no ONNX model.
    ToolError
        The package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise ToolError('reading .onnx files needs the package onnx: pip install "eie-kit[onnx]"') from error
    name, folder = "the model", None
    if not isinstance(given, bytes):
        name, folder = str(given), Path(given).resolve().parent
        try:
            if Path(given).stat().st_size > MAX_FILE:
                raise ModelError(
                    f"{name} has more than 2 GiB; expected an ONNX model with its weights in external data"
                )
            given = Path(given).read_bytes()
        except OSError as error:
            raise ModelError(f"{name} cannot be read: {error.strerror}") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(given)
    except Exception as error:  # protobuf's DecodeError, which has no types to import
        raise ModelError(f"{name} is not an ONNX model: it does not parse") from error
    if not model.HasField("graph") or not model.graph.output:
        raise ModelError(f"{name} is not an ONNX model: it has no graph with outputs")
    if not _readable(model):
        raise ModelError(f"{name} is damaged: a name in it is not text")
    return model, folder


def _readable(message: Any) -> bool:
    """Whether every text is one; protobuf hands out bytes where it is not."""
    for kind, value in message.ListFields():
        if kind.type == kind.TYPE_STRING:
            texts = [value] if isinstance(value, str | bytes) else value
            if not all(isinstance(text, str) for text in texts):
                return False
        elif kind.type == kind.TYPE_MESSAGE:
            inner = [value] if hasattr(value, "ListFields") else value
            if not all(_readable(item) for item in inner):
                return False
    return True


def decode(tensor: Any, folder: Path | None) -> NDArray[Any]:
    """The numbers of a tensor: float32, float64, or integers as they are.

    Raises
    ------
    ValueError
        In words: its dimensions, type, size or place are not sound.
    """
    import onnx.numpy_helper

    dims = tuple(tensor.dims)
    if any(size < 0 for size in dims) or math.prod(dims) > MAX_NUMBERS:
        raise ValueError(f"its dimensions are {_short(dims)}; expected at most {MAX_NUMBERS} numbers")
    if tensor.data_type not in _FIELDS:
        name = onnx.TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in range(1, 26) else "unknown"
        raise ValueError(f"its type is {name}; expected floats or integers of 8 to 64 bits")
    count, size = math.prod(dims), _BYTES[tensor.data_type]
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raw = _external(tensor, folder, count * size)
        tensor = onnx.TensorProto(dims=dims, data_type=tensor.data_type, raw_data=raw)
    field = _FIELDS[tensor.data_type]
    if tensor.HasField("raw_data"):
        found, wanted, what = len(tensor.raw_data), count * size, "bytes"
    else:
        found, wanted, what = len(getattr(tensor, field)), count, "numbers"
    if found != wanted:
        raise ValueError(f"it has {found} {what}; its dimensions {dims} need {wanted}")
    array: NDArray[Any] = onnx.numpy_helper.to_array(tensor)
    if tensor.data_type in (10, 16):
        array = array.astype(np.float32)
    if array.dtype.kind == "f" and bool(np.isnan(array).any()):
        raise ValueError(f"{int(np.isnan(array).sum())} of its {array.size} numbers are NaN")
    return array


def _external(tensor: Any, folder: Path | None, size: int) -> bytes:
    """Bytes from a file beside the model."""
    entries: dict[str, str] = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ValueError(f"its numbers are in the file {location!r}, and a model given as bytes has no folder")
    path = (folder / location).resolve()
    if not location or Path(location).is_absolute() or not path.is_relative_to(folder):
        raise ValueError(f"its numbers are in {location!r}; expected a file in the folder of the model")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
        there = path.stat().st_size if path.is_file() else -1
    except (ValueError, OSError) as error:
        raise ValueError(f"its external data is not sound: {error}") from error
    if there < 0:
        raise ValueError(f"its numbers are in {location!r}, which is not there; keep that file beside the model")
    if offset < 0 or length != size or offset + length > there:
        raise ValueError(f"it takes {length} bytes from byte {offset} of {location!r}, which has {there}; needs {size}")
    with path.open("rb") as file:
        file.seek(offset)
        content: bytes = file.read(length)
    return content


def _short(dims: tuple[int, ...]) -> str:
    return str(dims) if len(dims) <= 8 else f"{dims[:8]} and {len(dims) - 8} more"
