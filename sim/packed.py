"""Between `.eie` images and `.eiez` files: out of the image's memories by the decoder, back in by the packer."""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path

import numpy as np

from compiler.coding.container import Coder, FixedContent, compress_fixed, decompress_fixed
from compiler.coding.sizes import Sizes
from compiler.errors import CodingError
from compiler.image.image import Image
from compiler.lower.chain import Chain, QuantizedLayer
from compiler.lower.encode import encode
from compiler.lower.pack import pack
from sim.decode import codes, decode

__all__ = ["compress_image", "graph_of", "image_file", "restore_image"]


def graph_of(image: Image) -> Chain:
    """The network in an image, read the way the array reads it."""
    layers = []
    decoded = zip(image.layers, image.steps, codes(image), decode(image), strict=True)
    for info, steps, matrix, golden in decoded:
        layers.append(
            QuantizedLayer(
                name=info.name,
                codes=np.ascontiguousarray(matrix.toarray().astype(np.uint8)),
                codebook=image.codebooks[steps[0].codebook],
                weight_exponent=info.weight_exponent,
                bias=np.asarray(golden.bias, np.int64),
                shift=info.shift,
                activation=info.activation,
                input_exponent=info.input_exponent,
                output_exponent=info.output_exponent,
                exact=info.exact,
                fold=bool(steps[0].fold),
            )
        )
    return Chain(tuple(layers), image.params)


def image_file(graph: Chain) -> bytes:
    """The `.eie` file of a network."""
    image = pack(graph, encode(graph))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.eie"
        image.save(path)
        return path.read_bytes()


def compress_image(path: Path, coder: Coder) -> tuple[bytes, Sizes]:
    """The `.eiez` file of an `.eie` file, from which `restore_image` gives the same bytes again; its bits by part.

    Raises
    ------
    ImageError
        It is no image.
    CodingError
        This kit does not pack its network to these bytes.
    """
    graph = graph_of(Image.load(path))
    graph.verify()
    content = path.read_bytes()
    if image_file(graph) != content:
        raise CodingError(
            f"{path}: packing its network again gives another file, so compressing would lose something; "
            "it was made by another version of the kit: compile the network again"
        )
    data = compress_fixed(graph, zlib.crc32(content), coder)
    coded = decompress_fixed(data)
    if image_file(coded.network) != content:
        raise CodingError(f"{path}: the file would hold not what was compressed; nothing is written: report this")
    return data, coded.sizes


def restore_image(content: FixedContent) -> bytes:
    """The `.eie` file that was compressed.

    Raises
    ------
    CodingError
        This kit packs the network differently.
    """
    made = image_file(content.network)
    if zlib.crc32(made) != content.image_crc:
        raise CodingError(
            f"this kit packs the network to another image (CRC-32 {zlib.crc32(made):08x}) than the one that was "
            f"compressed ({content.image_crc:08x}); use the version of the kit that compressed it"
        )
    return made
