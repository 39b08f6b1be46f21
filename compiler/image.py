"""The image of a network for one array, and its file form `.eie`.

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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from compiler.errors import ImageError
from compiler.image_check import check
from compiler.steps import Step, parse_steps
from hw.layouts import FORMAT_VERSION, Memory, identity, memory_shape
from hw.params import Params, ParamsError

__all__ = ["Image", "LayerInfo", "memory_words", "readmemh", "row_orders"]

_TENSORS: dict[str, tuple[str, int]] = {  # dtype in safetensors' spelling, dimensions
    "entries": ("U8", 3),
    "pointers": ("U8", 3),
    "tiles": ("U8", 2),
    "codebooks": ("I16", 2),
    "bias": ("I64", 2),
    "descriptors": ("U8", 2),
    "row_order": ("I32", 1),
}


@dataclass(frozen=True)
class LayerInfo:
    """What a user of an image wants to know of a layer; the array itself needs only the descriptor.

    Attributes
    ----------
    name : unique in the network.
    inputs, outputs : neurons.
    columns : columns of the stored matrix: `inputs` in the first layer, the positions of the layer before otherwise.
    activation : "none" or "relu".
    input_exponent, weight_exponent, output_exponent : value = raw * 2**exponent.
    shift : ``output_exponent - input_exponent - weight_exponent``.
    exact : weights and bias are represented without any rounding.
    nonzeros, padding : entries of either kind.
    descriptors : how many it takes: one, or one for each tile.
    """

    name: str
    inputs: int
    outputs: int
    columns: int
    activation: Literal["none", "relu"]
    input_exponent: int
    weight_exponent: int
    shift: int
    output_exponent: int
    exact: bool
    nonzeros: int
    padding: int
    descriptors: int


@dataclass(frozen=True, eq=False)
class Image:
    """Memory contents of a network for one array.

    Attributes
    ----------
    params : the array.
    layers : one a layer.
    entries : uint8 (pes, words, word_bytes), weight memory as far as used.
    pointers : uint8 (pes, blocks, ceil(bits / 8)), pointer memory as far as used.
    tiles : uint8 (beats, 16), what the refill stream brings for each vector; empty if all layers stay on chip.
    codebooks : int16 (layers, 2**code_bits).
    bias : int64 (groups, words), bias memory as far as used.
    descriptors : uint8 (one for each layer or tile, and END; 32).
    row_order : int32 (sum of the layers' positions,), position → neuron or -1.
    """

    params: Params
    layers: tuple[LayerInfo, ...]
    entries: NDArray[np.uint8]
    pointers: NDArray[np.uint8]
    tiles: NDArray[np.uint8]
    codebooks: NDArray[np.int16]
    bias: NDArray[np.int64]
    descriptors: NDArray[np.uint8]
    row_order: NDArray[np.int32]

    @property
    def inputs(self) -> int:
        """Width of an input vector."""
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        """Width of an output vector."""
        return self.layers[-1].outputs

    @property
    def input_exponent(self) -> int:
        """Power of two of the raw inputs."""
        return self.layers[0].input_exponent

    @property
    def output_exponent(self) -> int:
        """Power of two of the raw outputs."""
        return self.layers[-1].output_exponent

    @cached_property
    def identity(self) -> str:
        """Hash of parameters and layouts; an array with another one cannot run this image."""
        return identity(self.params)

    @cached_property
    def steps(self) -> list[list[Step]]:
        """The descriptors of each layer."""
        return parse_steps(self.params, self.descriptors, [layer.descriptors for layer in self.layers])

    def verify(self) -> None:
        """Check that every size agrees with every other and every address lies within its memory.

        Raises
        ------
        ImageError
            Naming what is wrong.
        """
        check(self)

    def save(self, path: str | Path) -> None:
        """Write the image; `path` holds either the whole new file or what it held before.

        Raises
        ------
        ImageError
            The image does not verify, or the file cannot be written.
        """
        self.verify()
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in _TENSORS}
        header = {
            "format": FORMAT_VERSION,
            "identity": self.identity,
            "params": self.params.asdict(),
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
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

    @classmethod
    def load(cls, path: str | Path, params: Params | None = None) -> Image:
        """Read and check an image.

        Parameters
        ----------
        path : a file that `save` wrote.
        params : the array that shall run it; None takes any.

        Raises
        ------
        ImageError
            The file is not an image, is damaged, contradicts itself, or was made for other parameters or layouts.
        """
        path = Path(path)
        try:
            with safe_open(path, framework="numpy") as file:
                header = _read_header(file.metadata())
                image = cls._read(file, header, params)
        except (OSError, SafetensorError) as e:
            raise ImageError(f"{path}: not a readable image ({e})") from None
        except ImageError as e:
            raise ImageError(f"{path}: {e}") from None
        return image

    @classmethod
    def _read(cls, file: Any, header: dict[str, Any], params: Params | None) -> Image:
        found = _params(header)
        if params is not None and found != params:
            theirs, ours = found.asdict(), params.asdict()
            differing = ", ".join(f"{n} {theirs[n]} here, {ours[n]} there" for n in ours if ours[n] != theirs[n])
            raise ImageError(
                f"made for {identity(found)}, the array is {identity(params)} ({differing}): compile it again"
            )
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
        image = cls(found, _layers(header), **tensors)
        image.verify()
        return image


def row_orders(image: Image) -> list[NDArray[np.int32]]:
    """For each layer, position → neuron (-1 for a hole)."""
    params = image.params
    sizes = [sum(params.positions(step.outputs(params)) for step in steps if not step.keep) for steps in image.steps]
    return np.split(image.row_order, np.cumsum(sizes)[:-1])


def memory_words(image: Image) -> dict[Memory, list[list[int]]]:
    """Words to load: memory → unit → words from address 0 on, as far as used."""
    return {memory: [_integers(unit) for unit in words] for memory, words in _word_bytes(image).items()}


def readmemh(image: Image, folder: str | Path) -> None:
    """Write each memory unit as ``$readmemh`` text, ``<memory>_<unit>.hex``.

    The names are ``weights_<pe>``, ``pointers_<pe>``, ``codebook_0``, ``bias_<group>``, ``descriptors_0``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for memory, units in _word_bytes(image).items():
        digits = -(-memory_shape(image.params, memory)[2] // 4)
        for number, words in enumerate(units):
            text = words[:, ::-1].tobytes().hex().encode()
            characters = np.frombuffer(text, np.uint8).reshape(len(words), 2 * words.shape[1])[:, -digits:]
            lines = np.concatenate([characters, np.full((len(words), 1), ord("\n"), np.uint8)], axis=1)
            (folder / f"{memory.name.lower()}_{number}.hex").write_bytes(lines.tobytes())


def _word_bytes(image: Image) -> dict[Memory, NDArray[np.uint8]]:
    """Memory → uint8 (units, words, bytes), the low byte first."""
    mask = np.uint64((1 << image.params.acc_bits) - 1)
    bias = np.ascontiguousarray(image.bias).view(np.uint64) & mask
    bias_bytes = -(-image.params.acc_bits // 8)
    return {
        Memory.WEIGHTS: image.entries,
        Memory.POINTERS: image.pointers,
        Memory.CODEBOOK: np.ascontiguousarray(image.codebooks, "<i2").view(np.uint8).reshape(1, -1, 2),
        Memory.BIAS: bias.astype("<u8").view(np.uint8).reshape(*bias.shape, 8)[:, :, :bias_bytes],
        Memory.DESCRIPTORS: image.descriptors[np.newaxis],
    }


def _integers(words: NDArray[np.uint8]) -> list[int]:
    """Python integers of (n, bytes), through 64-bit pieces: `int.from_bytes` word by word is ten times slower."""
    pieces = -(-words.shape[1] // 8)
    wide = np.zeros((len(words), pieces * 8), np.uint8)
    wide[:, : words.shape[1]] = words
    columns = wide.view("<u8").T.tolist()
    total: list[int] = columns[-1]
    for column in columns[-2::-1]:
        total = [high << 64 | low for high, low in zip(total, column, strict=True)]
    return total


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
