"""Tensors and JSON in one safetensors file, written whole or not at all. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from compiler.errors import InputError
from compiler.files import write_file

__all__ = ["load", "save", "write_atomic"]

_KEY = "eie"
_FORMAT = 1


def save(path: Path, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
    """Write tensors and JSON content to `path`; a file that stands there is replaced in one step.

    Tensors of tied layers are stored once, as safetensors' own `save_model` does, which `load_model` undoes: the
    metadata says under which name another one is found.
    """
    first: dict[Any, str] = {}
    header = {_KEY: json.dumps({"format": _FORMAT, **content})}
    flat: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else name
        if place in first:
            header[name] = first[place]
        else:
            first[place] = name
            flat[name] = tensor.detach().cpu().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, _ordered(to_bytes(flat, metadata=header)))


def _ordered(file: bytes) -> bytes:
    """The file with its metadata in alphabetical order: safetensors writes several entries in no stated one."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    if len(header["__metadata__"]) == 1:
        return file
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[8 + length :]


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and content of a file that `save` wrote.

    Raises
    ------
    InputError
        There is no such file, it is damaged, or `save` did not write it.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            header = stream.metadata() or {}
            content = json.loads(header.pop(_KEY))
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}
            tensors.update({name: tensors[kept] for name, kept in header.items() if kept in tensors})
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except RecursionError:
        raise InputError(f"{path} was not written by this kit: its metadata is nested too deeply") from None
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged or was not written by this kit: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        found = content.get("format") if isinstance(content, dict) else content
        raise InputError(f"{path} has format {found!r}; expected {_FORMAT}")
    return tensors, content


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, into a folder that may be new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, data)
