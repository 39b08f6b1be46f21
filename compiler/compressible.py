"""What stands behind the arguments of ``eie compress`` and ``eie decompress``: trained networks in their files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from compiler.coding.container import Coder, compress, decompress
from compiler.coding.sizes import Sizes
from compiler.compressed import CompressedModel
from compiler.dcnet import parse_form, read_net
from compiler.errors import CodingError, InputError
from compiler.pickled import refuse_pickled
from compiler.plain_tensors import read_tensors

__all__ = ["check_layers", "compress_network", "load_network", "naming", "read_file"]


def read_file(path: Path) -> bytes:
    """All of a file.

    Raises
    ------
    InputError
        There is no such file, or it is a folder.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the block's coder begin with the file that it reads."""
    try:
        yield
    except CodingError as error:
        raise CodingError(f"{path}: {error}") from None


def check_layers(path: Path, layers: Sequence[str]) -> None:
    """Refuse layers for a file that says itself what its layers are. Raises `InputError`."""
    if layers and path.suffix != ".net":
        raise InputError(f"--layer belongs to .net files; {path} says itself what its layers are")


def load_network(path: Path, layers: Sequence[str] = ()) -> CompressedModel:
    """The trained network of a RUN/ folder, a `.safetensors`, a `.eiez` or a `.net` file (with `layers`).

    Raises
    ------
    EieError
        It is none of these, or damaged.
    """
    if path.is_dir():
        compressed, plain = path / "model.eiez", path / "model.safetensors"
        if not plain.is_file():
            raise InputError(f"{path} holds no model.safetensors; expected the folder of a finished `eie train`")
        if not compressed.is_file():
            return CompressedModel.from_state(read_tensors(plain))
        path = compressed
    if path.suffix != ".net":
        refuse_pickled(path)
    with naming(path):
        if path.suffix == ".net":
            return read_net(read_file(path), [parse_form(layer) for layer in layers])
        if path.suffix == ".safetensors":
            return CompressedModel.from_state(read_tensors(path))
        return decompress(read_file(path)).network


def compress_network(network: CompressedModel, coder: Coder) -> tuple[bytes, Sizes]:
    """The `.eiez` file of a network, once it is proven to give the same values again, and its bits by part.

    Raises
    ------
    CodingError
        It does not.
    """
    data = compress(network, coder)
    content = decompress(data)
    if name := network.difference(content.network):
        raise CodingError(f"{name}: the file would hold not what was compressed; nothing is written: report this")
    return data, content.sizes
