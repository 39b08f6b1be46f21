"""Between `.eie` and `.eiez` files: out of the images' memories by the decoder, back in by the compiler."""

from __future__ import annotations

import zlib
from pathlib import Path

from compiler.coding.container import Coder, FixedContent, compress_fixed, decompress_fixed
from compiler.coding.sizes import Sizes
from compiler.errors import CodingError, ImageError, ModelError
from compiler.lower.build import build
from compiler.lower.partition import Partition
from compiler.network import Network
from compiler.network_file import load, to_file
from compiler.options import Options
from hw.params import Params
from sim.programs import program_of

__all__ = ["compress_image", "image_file", "restore_image"]


def image_file(parts: Partition, params: Params, options: Options) -> bytes:
    """The `.eie` file of a network."""
    images = tuple(build(program, params, options) for program in parts.programs)
    return to_file(Network(params, parts.graph, images))


def compress_image(path: Path, coder: Coder) -> tuple[bytes, Sizes]:
    """The `.eiez` file of an `.eie` file, from which `restore_image` gives the same bytes again; its bits by part.

    Raises
    ------
    ImageError
        It is no compiled network.
    CodingError
        This kit does not build its network to these bytes.
    """
    network = load(path)
    content = path.read_bytes()
    parts = Partition(network.graph, tuple(program_of(image) for image in network.images))
    if _made(parts, network.params, network.options) != content:
        raise CodingError(
            f"{path}: building its network again gives another file, so compressing would lose something; "
            "it was made by another version of the kit: compile the network again"
        )
    data = compress_fixed(parts, network.params, network.options, zlib.crc32(content), coder)
    coded = decompress_fixed(data)
    if _made(coded.parts, coded.params, coded.options) != content:
        raise CodingError(f"{path}: the file would hold not what was compressed; nothing is written: report this")
    return data, coded.sizes


def _made(parts: Partition, params: Params, options: Options) -> bytes:
    """The `.eie` file of a network; empty if this kit builds none."""
    try:
        return image_file(parts, params, options)
    except (ImageError, ModelError):
        return b""


def restore_image(content: FixedContent) -> bytes:
    """The `.eie` file that was compressed, or what is it in today's format.

    Raises
    ------
    CodingError
        This kit builds the network differently, or it is not well-formed.
    """
    try:
        made = image_file(content.parts, content.params, content.options)
    except (ImageError, ModelError) as error:
        raise CodingError(f"the network in it is not well-formed: {error}") from None
    if content.image_crc not in (None, zlib.crc32(made)):
        raise CodingError(
            f"this kit builds the network to another image (CRC-32 {zlib.crc32(made):08x}) than the one that was "
            f"compressed ({content.image_crc:08x}); use the version of the kit that compressed it"
        )
    return made
