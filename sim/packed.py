"""Between `.eie` and `.eiez` files: out of the image's memories by the decoder, back in by the packer."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from compiler.coding.container import Coder, FixedContent, compress_fixed, decompress_fixed
from compiler.coding.sizes import Sizes
from compiler.errors import CodingError, ImageError
from compiler.image.image import Image
from compiler.lower.chain import Chain, QuantizedLayer
from compiler.lower.encode import encode
from compiler.lower.pack import pack
from compiler.network import Network, network_of
from compiler.network_file import graph_text, load, parse_graph, to_file
from compiler.options import Options
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


def image_file(chain: Chain, options: Options, around: bytes = b"") -> bytes:
    """The `.eie` file of a network; `around` as in `FixedContent`."""
    image = pack(chain, encode(chain, options), options)
    network = network_of(image)
    if around:
        network = Network(image.params, parse_graph(around), (image,))
    return to_file(network)


def compress_image(path: Path, coder: Coder) -> tuple[bytes, Sizes]:
    """The `.eiez` file of an `.eie` file, from which `restore_image` gives the same bytes again; its bits by part.

    Raises
    ------
    ImageError
        It is no compiled network.
    CodingError
        The host computes with tensors in it, or this kit does not pack its network to these bytes.
    """
    network = load(path)
    around = _around(network, path)
    image = network.images[0]
    chain = graph_of(image)
    chain.verify()
    content = path.read_bytes()
    if image_file(chain, image.options, around) != content:
        raise CodingError(
            f"{path}: packing its network again gives another file, so compressing would lose something; "
            "it was made by another version of the kit: compile the network again"
        )
    data = compress_fixed(chain, image.options, zlib.crc32(content), coder, around)
    coded = decompress_fixed(data)
    if image_file(coded.network, coded.options, coded.around) != content:
        raise CodingError(f"{path}: the file would hold not what was compressed; nothing is written: report this")
    return data, coded.sizes


def _around(network: Network, path: Path) -> bytes:
    """The text of the graph around a network's one image; empty if that is only its input and output."""
    if wrong := [f"{node.name} ({node.op})" for node in network.graph if node.tensors or node.body is not None]:
        raise CodingError(
            f"{path}: the host computes {', '.join(wrong)}; expected a network whose weights are all on the array: "
            "compress what it was compiled from (a RUN/ folder or .safetensors file)"
        )
    if len(network.images) != 1:
        raise CodingError(
            f"{path}: {len(network.images)} parts run on the array; expected one: compress what it was compiled "
            "from (a RUN/ folder or .safetensors file)"
        )
    text = graph_text(network.graph)
    return b"" if text == graph_text(network_of(network.images[0]).graph) else text


def restore_image(content: FixedContent) -> bytes:
    """The `.eie` file that was compressed, or what is it in today's format.

    Raises
    ------
    CodingError
        This kit packs the network differently, or the graph around it is not one.
    """
    try:
        made = image_file(content.network, content.options, content.around)
    except ImageError as error:
        raise CodingError(f"the network in it is not well-formed: {error}") from None
    if content.image_crc not in (None, zlib.crc32(made)):
        raise CodingError(
            f"this kit packs the network to another image (CRC-32 {zlib.crc32(made):08x}) than the one that was "
            f"compressed ({content.image_crc:08x}); use the version of the kit that compressed it"
        )
    return made
