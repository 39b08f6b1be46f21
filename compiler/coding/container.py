"""The `.eiez` file: a compressed network, entropy-coded, with everything that is needed to have it again bit for bit.

Layout, every integer of variable length (`wire.py`)::

    "EIEZ" · version, kind and coder · content (`float_form.py` or `fixed_form.py`) · CRC-32 of all before

The checksum finds damage; the readers check every size before they allocate by it, because a file may also lie.
Nothing in a file is executed. Fixed-point networks of versions 2 and 3 are read by `chain_form.py`; those of
version 4 have no loops, functions and operations, and their array no streams for maps; those of version 5 have no
rates of rows.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Literal

from compiler.coding import chain_form, fixed_form, float_form
from compiler.coding.program_form import RATED, STEPS
from compiler.coding.sizes import Sizes
from compiler.coding.wire import MAGIC, Reader, Writer
from compiler.compressed import CompressedModel
from compiler.errors import CodingError
from compiler.lower.partition import Partition
from compiler.lower.program_check import check_program
from compiler.options import Options
from hw.params import Params

__all__ = [
    "CODERS", "MAGIC", "Coder", "Content", "FixedContent", "compress", "compress_fixed", "decompress", "decompress_any",
    "decompress_fixed",
]  # fmt: skip

Coder = Literal["huffman", "context"]
CODERS: tuple[Coder, ...] = ("huffman", "context")

_FLOAT_VERSION, _FIXED_VERSION = 2, 6  # each kind counts its own changes, from a common 2 on
_RATES = 6  # from this version on layers may have rates, by which their rows are dealt
_LOOPS = 5  # from this version on programs may have loops, functions and operations
_PROGRAMS = 4  # from this version on a fixed-point network is programs; before, it was a chain
_CRC_BYTES = 4
_CODER, _FIXED, _DESCRIBED = 1, 2, 4  # bits of the byte behind the magic; the version stands above them


@dataclass(frozen=True)
class Content:
    """A float network out of a file, and what each part of it takes there."""

    network: CompressedModel
    sizes: Sizes


@dataclass(frozen=True)
class FixedContent:
    """A fixed-point network out of a file.

    Attributes
    ----------
    parts : the programs of the array, and the graph around them.
    params, options : with which they make the `.eie` file that was compressed.
    image_crc : the CRC-32 of that file; None in versions before 6, because this kit writes such a file differently, or
        gives channels other places in it.
    version : of the format.
    """

    parts: Partition
    params: Params
    options: Options
    sizes: Sizes
    image_crc: int | None
    version: int


def compress(network: CompressedModel, coder: Coder = "context") -> bytes:
    """The whole file of a float network.

    Raises
    ------
    ModelError
        The network does not verify, or is larger than a file may be.
    """
    network.verify()
    writer = _begin(coder, _DESCRIBED if network.metadata else 0)
    float_form.write(writer, network, coder)
    return _end(writer)


def compress_fixed(
    parts: Partition, params: Params, options: Options, image_crc: int, coder: Coder = "context"
) -> bytes:
    """The whole file of a fixed-point network; the other arguments are as in `FixedContent`.

    Raises
    ------
    ModelError
        A program does not verify, or the network is larger than a file may be.
    """
    for program in parts.programs:
        check_program(program, params)
    writer = _begin(coder, _FIXED)
    fixed_form.write(writer, parts, params, options, coder, image_crc)
    return _end(writer)


def decompress(data: bytes) -> Content:
    """The float network in a file, equal in every bit, and the sizes of its parts.

    Raises
    ------
    CodingError
        It is no such file, damaged, of another version, contradicts itself, is larger than this kit reads, or holds
        a fixed-point network.
    """
    content = decompress_any(data)
    if not isinstance(content, Content):
        raise CodingError("holds the fixed-point network of an array; expected a trained network")
    return content


def decompress_fixed(data: bytes) -> FixedContent:
    """The fixed-point network in a file.

    Raises
    ------
    CodingError
        As `decompress`, or it holds a float network.
    """
    content = decompress_any(data)
    if not isinstance(content, FixedContent):
        raise CodingError("holds a trained network; expected the fixed-point network of an array")
    return content


def decompress_any(data: bytes) -> Content | FixedContent:
    """The network of either kind in a file."""
    if data[: len(MAGIC)] != MAGIC:
        raise CodingError("not an .eiez file: it does not begin with EIEZ")
    if len(data) < len(MAGIC) + 1 + _CRC_BYTES:
        raise CodingError(f"the file ends within its header: {len(data)} bytes")
    reader = Reader(data[:-_CRC_BYTES])
    reader.at = len(MAGIC)
    head = reader.byte("version")
    version, fixed = head >> 3, bool(head & _FIXED)
    if not _FLOAT_VERSION <= version <= (_FIXED_VERSION if fixed else _FLOAT_VERSION):
        known = f"{_FLOAT_VERSION} to {_FIXED_VERSION}" if fixed else f"{_FLOAT_VERSION}"
        raise CodingError(f"format version {version}; this kit reads {known}: compress the network again")
    stored, crc = int.from_bytes(data[-_CRC_BYTES:], "little"), zlib.crc32(data[:-_CRC_BYTES])
    if crc != stored:
        raise CodingError(f"the file is damaged: CRC-32 {crc:08x}, it states {stored:08x}")
    coder = CODERS[head & _CODER]
    content: Content | FixedContent
    if fixed:
        image_crc: int | None = None
        if version >= _PROGRAMS:
            before = version < _LOOPS
            renewed = _renewed if before else _same
            flags = 0 if before else STEPS if version < _RATES else STEPS | RATED
            parts, params, options, tensors, image_crc = fixed_form.read(reader, coder, renewed, flags)
            image_crc = image_crc if version >= _RATES else None
        else:
            chain, options, around, tensors = chain_form.read(reader, coder, version > 2)
            parts, params = chain_form.parts_of(chain, around), chain.params
        sizes = Sizes("fixed", coder, len(data), tensors)
        content = FixedContent(parts, params, options, sizes, image_crc, version)
    else:
        model, tensors = float_form.read(reader, coder, bool(head & _DESCRIBED))
        content = Content(model, Sizes("float", coder, len(data), tensors))
    if reader.left:
        raise CodingError(f"{reader.left} bytes behind the end of the content")
    return content


def _same(values: dict[str, Any]) -> dict[str, Any]:
    return values


def _renewed(values: dict[str, Any]) -> dict[str, Any]:
    """Parameters of version 4, whose arrays have no streams for maps."""
    return {"streams": False, "judged": True, **values}


def _begin(coder: Coder, flags: int) -> Writer:
    writer = Writer()
    writer.raw(MAGIC)
    version = _FIXED_VERSION if flags & _FIXED else _FLOAT_VERSION
    writer.byte(version << 3 | flags | CODERS.index(coder))
    return writer


def _end(writer: Writer) -> bytes:
    writer.raw(zlib.crc32(writer.data).to_bytes(_CRC_BYTES, "little"))
    return bytes(writer.data)
