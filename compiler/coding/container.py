"""The `.eiez` file: a compressed network, entropy-coded, with everything that is needed to have it again bit for bit.

Layout, every integer of variable length (`wire.py`)::

    "EIEZ" · version and coder · kind · content (`float_form.py` or `fixed_form.py`) · CRC-32 of all before

The checksum finds damage; the readers check every size before they allocate by it, because a file may also lie.
Nothing in a file is executed.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

from compiler.coding import float_form
from compiler.coding.sizes import Sizes, TensorSize
from compiler.coding.wire import Reader, Writer
from compiler.compressed import CompressedModel
from compiler.errors import CodingError

__all__ = ["CODERS", "Coder", "Content", "compress", "decompress"]

Coder = Literal["huffman", "context"]
CODERS: tuple[Coder, ...] = ("huffman", "context")

_MAGIC = b"EIEZ"
_VERSION = 1
_KINDS = ("float", "fixed")
_CRC_BYTES = 4


@dataclass(frozen=True)
class Content:
    """What a file holds, and what each part of it takes."""

    network: CompressedModel
    sizes: Sizes


def compress(network: CompressedModel, coder: Coder = "context") -> bytes:
    """The whole file of a network.

    Raises
    ------
    ModelError
        The network does not verify.
    """
    network.verify()
    writer = Writer()
    writer.raw(_MAGIC)
    writer.byte(_VERSION << 2 | CODERS.index(coder))
    writer.byte(_KINDS.index("float"))
    float_form.write(writer, network, coder)
    writer.raw(zlib.crc32(writer.data).to_bytes(_CRC_BYTES, "little"))
    return bytes(writer.data)


def decompress(data: bytes) -> Content:
    """The network in a file, equal in every bit, and the sizes of its parts.

    Raises
    ------
    CodingError
        It is no such file, damaged, of another version, contradicts itself, or is larger than `float_form` allows.
    """
    if data[: len(_MAGIC)] != _MAGIC:
        raise CodingError("not an .eiez file: it does not begin with EIEZ")
    if len(data) < len(_MAGIC) + 2 + _CRC_BYTES:
        raise CodingError(f"the file ends within its header: {len(data)} bytes")
    stored, crc = int.from_bytes(data[-_CRC_BYTES:], "little"), zlib.crc32(data[:-_CRC_BYTES])
    reader = Reader(data[:-_CRC_BYTES])
    reader.at = len(_MAGIC)
    head = reader.byte("version")
    if head >> 2 != _VERSION:
        raise CodingError(f"format version {head >> 2}; this kit reads {_VERSION}: compress the network again")
    if crc != stored:
        raise CodingError(f"the file is damaged: CRC-32 {crc:08x}, it states {stored:08x}")
    if head & 3 >= len(CODERS):
        raise CodingError(f"coder {head & 3}; expected less than {len(CODERS)}")
    kind = _KINDS[reader.byte("kind of content", 0)]
    network, tensors = float_form.read(reader, CODERS[head & 3])
    if reader.left:
        raise CodingError(f"{reader.left} bytes behind the end of the content")
    return Content(network, _sizes(kind, CODERS[head & 3], len(data), tensors))


def _sizes(kind: str, coder: Coder, size: int, tensors: tuple[TensorSize, ...]) -> Sizes:
    return Sizes(kind, coder, size, tensors)
