"""Between `.eie` and `.eiez` files: out of the image's memories by the decoder, back in by the packer."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from compiler.coding.container import Coder, FixedContent, compress_fixed, decompress_fixed
from compiler.coding.sizes import Sizes
from compiler.errors import CodingError, ImageError
from compiler.image.image import Image
from compiler.lower.build import build
from compiler.lower.chain import Chain, QuantizedLayer
from compiler.lower.program import LOW, chain_program
from compiler.network import Network, network_of
from compiler.network_file import graph_text, load, parse_graph, to_file
from compiler.options import Options
from hw.params import LANES
from sim.decode import decode
from sim.golden_array import Layer

__all__ = ["compress_image", "graph_of", "image_file", "restore_image"]

INPUT = "input"
"""Name of the input where nothing says otherwise."""

NO_CHAIN = "the network is not a chain of fully connected layers, which is all that a compressed image can hold"


def graph_of(image: Image) -> Chain:
    """The network in an image, read the way the array reads it.

    Raises
    ------
    CodingError
        It is no chain of fully connected layers.
    """
    found: dict[int, list[Layer]] = {}
    for layer in decode(image, codes=True):
        found.setdefault(layer.result, []).append(layer)
    before = image.inputs[0]
    layers = []
    for number, parts in found.items():
        layers.append(_connected(image, before, number, parts))
        before = number
    if (len(image.inputs), image.outputs) != (1, (before,)):
        raise CodingError(f"{NO_CHAIN}: it has {len(image.inputs)} inputs and {len(image.outputs)} outputs")
    return Chain(tuple(layers), image.params)


def _connected(image: Image, source: int, result: int, parts: list[Layer]) -> QuantizedLayer:
    """One fully connected layer, of which the hardware computes `parts` of the rows each."""
    groups, info, made = image.params.groups, image.maps[source], image.maps[result]
    single = all((each.height, each.width) == (1, 1) for each in (info, made))
    steps = [segment.step for part in parts for segment in part.segments]
    same = {(step.codebook, step.low, step.high) for step in steps}
    shifts = {int(shift) for part in parts for shift in part.outputs.shift}
    plain = not any(step.maximum or step.tiles > 1 for step in steps) and not any(part.outputs.rounds for part in parts)
    inside = all(0 <= step.source - info.base * groups < info.vectors for step in steps)
    if not (single and plain and inside and len(same) == len(shifts) == 1 and steps[0].low in (0, LOW)):
        raise CodingError(f"{NO_CHAIN}: {parts[0].name} is another layer")
    codes = np.zeros((made.channels, info.channels), np.uint8)
    bias = np.zeros(made.channels, np.int64)
    columns, rows = image.map_orders[source], image.map_orders[result]
    for part in parts:
        line, place = np.divmod(part.outputs.place, groups * LANES)
        channel = rows[(part.lines[0, line] - made.base) * groups * LANES + place]
        bias[channel] = part.outputs.bias
        for segment in part.segments:
            weight = segment.weight.tocoo()
            column = columns[(segment.step.source - info.base * groups) * LANES + weight.col]
            codes[channel[weight.row], column] = weight.data
    shift, layer = shifts.pop(), image.layers[parts[0].number]
    return QuantizedLayer(
        name=layer.name.split("#")[0],
        codes=codes,
        codebook=image.codebooks[steps[0].codebook],
        weight_exponent=made.exponent - info.exponent - shift,
        bias=bias,
        shift=shift,
        activation="relu" if steps[0].low == 0 else "none",
        input_exponent=info.exponent,
        output_exponent=made.exponent,
        exact=layer.exact,
    )


def image_file(chain: Chain, options: Options, around: bytes = b"") -> bytes:
    """The `.eie` file of a network; `around` as in `FixedContent`."""
    graph = parse_graph(around) if around else None
    name = INPUT if graph is None else next(node.inputs[0] for node in graph if node.op == "Array")
    image = build(chain_program(chain, name), chain.params, options)
    network = network_of(image) if graph is None else Network(image.params, graph, (image,))
    return to_file(network)


def compress_image(path: Path, coder: Coder) -> tuple[bytes, Sizes]:
    """The `.eiez` file of an `.eie` file, from which `restore_image` gives the same bytes again; its bits by part.

    Raises
    ------
    ImageError
        It is no compiled network.
    CodingError
        It is no chain of fully connected layers, the host computes with tensors in it, or this kit does not pack its
        network to these bytes.
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
    image = network.images[0]
    usual = image.maps[image.inputs[0]].name == INPUT and text == graph_text(network_of(image).graph)
    return b"" if usual else text


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
