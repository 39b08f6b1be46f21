"""The file form of an image, `.eie`.

A file is a safetensors container: seven tensors, and one metadata entry ``eie``, a JSON text with two members,
``header`` (format version, identity, parameters, layers, CRC-32 of each tensor) and ``crc32`` of that header.
One entry, because safetensors writes several in no stated order and equal networks shall give equal files.
Nothing in a file is believed before it is checked; what is in it is data and never code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from compiler.errors import ImageError
from compiler.image.check import check
from compiler.image.memory import LayerInfo, MemoryImage
from hw.layouts import FORMAT_VERSION, identity
from hw.params import Params, ParamsError

__all__ = ["read", "write"]

AnyImage = TypeVar("AnyImage", bound=MemoryImage)

_TENSORS: dict[str, tuple[str, int]] = {  # dtype in safetensors' spelling, dimensions
    "entries": ("U8", 3),
    "pointers": ("U8", 3),
    "tiles": ("U8", 2),
    "codebooks": ("I16", 2),
    "bias": ("I64", 2),
    "descriptors": ("U8", 2),
    "row_order": ("I32", 1),
}


def write(image: MemoryImage, path: str | Path) -> None:
    """Check and write an image; see `compiler.image.image.Image.save`."""
    check(image)
    tensors = {name: np.ascontiguousarray(getattr(image, name)) for name in _TENSORS}
    header = {
        "format": FORMAT_VERSION,
        "identity": image.identity,
        "params": image.params.asdict(),
        "layers": [dataclasses.asdict(layer) for layer in image.layers],
        "crc32": {name: _crc(tensor) for name, tensor in tensors.items()},
    }
    text = json.dumps({"header": header, "crc32": _header_crc(header)}, sort_keys=True)
    content = save(tensors, metadata={"eie": text})
    path = Path(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as e:
        raise ImageError(f"{path}: cannot be written ({e})") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def read(kind: type[AnyImage], path: str | Path, params: Params | None = None) -> AnyImage:
    """Read and check an image, made as a `kind`; see `compiler.image.image.Image.load`."""
    path = Path(path)
    try:
        with safe_open(path, framework="numpy") as file:
            header = _read_header(file.metadata())
            image = _read(kind, file, header, params)
    except (OSError, SafetensorError) as e:
        raise ImageError(f"{path}: not a readable image ({e})") from None
    except ImageError as e:
        raise ImageError(f"{path}: {e}") from None
    return image


def _read(kind: type[AnyImage], file: Any, header: dict[str, Any], params: Params | None) -> AnyImage:
    found = _params(header)
    if params is not None and found != params:
        theirs, ours = found.asdict(), params.asdict()
        differing = ", ".join(f"{n} {theirs[n]} here, {ours[n]} there" for n in ours if ours[n] != theirs[n])
        raise ImageError(f"made for {identity(found)}, the array is {identity(params)} ({differing}): compile it again")
    if sorted(file.keys()) != sorted(_TENSORS):
        raise ImageError(f"holds {', '.join(sorted(file.keys()))}; expected {', '.join(sorted(_TENSORS))}")
    tensors = {}
    for name, (dtype, dimensions) in _TENSORS.items():
        form = file.get_slice(name)
        if form.get_dtype() != dtype or len(form.get_shape()) != dimensions:
            given = f"{form.get_dtype()} {form.get_shape()}"
            raise ImageError(f"{name} is {given}; expected {dtype}, {dimensions} dimensions")
        tensors[name] = file.get_tensor(name)
        stated, crc = header["crc32"].get(name), _crc(tensors[name])
        if crc != stated:
            raise ImageError(f"{name} is damaged: CRC-32 {crc}, the header states {stated}")
    image = kind(found, _layers(header), **tensors)
    check(image)
    return image


def _crc(tensor: NDArray[Any]) -> str:
    return f"{zlib.crc32(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data):08x}"


def _header_crc(header: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(header, sort_keys=True).encode()):08x}"


def _umask() -> int:
    # There is no way to read it without setting it; temporary files are made private, images shall not be.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _read_header(metadata: dict[str, str] | None) -> dict[str, Any]:
    text = (metadata or {}).get("eie")
    if text is None:
        raise ImageError("a safetensors file, but not an image: it has no `eie` metadata")
    try:
        outer = json.loads(text)
        header = outer["header"]
        crc = _header_crc(header)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ImageError("the header is not what an image has") from None
    if not isinstance(header, dict) or set(header) != {"format", "identity", "params", "layers", "crc32"}:
        raise ImageError("the header is not what an image has")
    if header["format"] != FORMAT_VERSION:
        raise ImageError(f"format version {header['format']!r}; this kit reads {FORMAT_VERSION}: compile it again")
    if crc != outer.get("crc32"):
        raise ImageError(f"the header is damaged: CRC-32 {crc}, the file states {outer.get('crc32')!r}")
    if not isinstance(header["crc32"], dict):
        raise ImageError("the header is not what an image has")
    return header


def _params(header: dict[str, Any]) -> Params:
    try:
        params = Params.from_dict(header["params"])
    except (ParamsError, TypeError) as e:
        raise ImageError(f"its parameters are not legal ({e})") from None
    if identity(params) != header["identity"]:
        raise ImageError(
            f"identity {header['identity']!r}, this kit gives its parameters {identity(params)!r}: compile it again"
        )
    return params


_FIELD_TYPES: dict[str, type] = {"name": str, "activation": str, "exact": bool}


def _layers(header: dict[str, Any]) -> tuple[LayerInfo, ...]:
    names = [field.name for field in dataclasses.fields(LayerInfo)]
    layers = header["layers"]
    if not isinstance(layers, list):
        raise ImageError("the list of layers is not a list")
    for layer in layers:
        if not isinstance(layer, dict) or set(layer) != set(names):
            raise ImageError(f"a layer is described by {layer!r:.200}; expected {', '.join(names)}")
        for name in names:
            if type(layer[name]) is not _FIELD_TYPES.get(name, int):
                raise ImageError(f"{name} of a layer is {layer[name]!r:.80}")
    return tuple(LayerInfo(**layer) for layer in layers)
