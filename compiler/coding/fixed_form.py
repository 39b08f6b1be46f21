"""The content of an `.eiez` file whose network is fixed point for one array: `Chain`.

Packing such a network again gives the `.eie` image that it came from, byte for byte; the CRC-32 of that file stands
in this one, so that a kit that packs otherwise cannot pass its image off as the same. The parameters of the array and
the options of the compiler stand in one text, as they did when they were one. From version 3 on, the graph around the
chain (names, shapes, what moves numbers) follows as JSON, if it says more than that there is an input and an output.
"""

from __future__ import annotations

import zlib

import numpy as np

from compiler.coding.matrices import matrix_reader, matrix_writer
from compiler.coding.names import read_name, write_name
from compiler.coding.numbers import read_integers, write_integers
from compiler.coding.sizes import MAX_DENSE, MAX_ELEMENTS, TensorSize
from compiler.coding.wire import Reader, Writer
from compiler.errors import CodingError, ModelError, OptionsError
from compiler.lower.chain import ACTIVATIONS, MAX_SHIFT, Chain, QuantizedLayer
from compiler.options import Options
from hw.params import Params, ParamsError

__all__ = ["MAX_AROUND", "read", "write"]

_MAX_LAYERS = 1 << 12
_MAX_EXPONENT = 4096
_MAX_PARAMS = 4096  # bytes of their text
_MAX_BIAS = 1 << 47
MAX_AROUND = 1 << 20
"""Bytes of the text of the graph around the layers."""

# Make the texts short. Part of the format: never change them.
_DICTIONARY = (
    b"skip_empty=true;rows=256;refill=true;queue_depth=64;pointer_blocks=4096;pes=64;index_bits=6;fragments=8;fold=2;"
    b"descriptors=256;codebooks=16;code_bits=4;bias_words=2048;balanced=true;act_lines=2048;acc_bits=40;"
    b"weight_words=16384;false"
)
_GRAPH_DICTIONARY = (
    b'"op":"Reshape",argmaxlog_softmax"inputs":["x"],"name":"x","kind":"real","layout":"C","source":"linear at '
    b'[{"attributes":{"exponent":0,"kind":"real","layout":"","shape":[784]},"body":null,"inputs":[],"name":"input",'
    b'"op":"Input","outputs":["input"],"source":"","tensors":[]},{"attributes":{"exponent":-14,"image":0,"layers":2,'
    b'"width":10},"body":null,"inputs":["input"],"name":"fc1\\u2026fc2","op":"Array","outputs":["fc2"],"source":"",'
    b'"tensors":[]},{"attributes":{"axis":0,"then":"softmax"},"body":null,"inputs":["fc2"],"name":"output",'
    b'"op":"Output","outputs":["output"],"source":"","tensors":[]}]'
)


def write(writer: Writer, graph: Chain, options: Options, around: bytes, coder: str, image_crc: int) -> None:
    """Append a verified network, the text of the graph around it, and the CRC-32 of the image file that it packs to."""
    elements = sum(layer.codes.size for layer in graph.layers)
    if elements > MAX_ELEMENTS or len(graph.layers) > _MAX_LAYERS:
        raise ModelError(
            f"{elements} weights in {len(graph.layers)} layers; a file holds at most {MAX_ELEMENTS} in {_MAX_LAYERS}"
        )
    writer.raw(image_crc.to_bytes(4, "little"))
    if len(around) > MAX_AROUND:
        raise ModelError(f"the graph around the layers takes {len(around)} bytes; a file holds at most {MAX_AROUND}")
    _write_params(writer, graph.params, options)
    packed = _deflated(around, _GRAPH_DICTIONARY) if around else b""
    writer.varint(len(packed))
    writer.raw(packed)
    first = graph.layers[0]
    writer.varint(len(graph.layers))
    writer.varint(first.codes.shape[1])
    writer.signed(first.input_exponent)
    plain, matrices, before = Writer(), matrix_writer(coder), ""
    for layer in graph.layers:
        write_name(writer, layer.name, before)
        before = layer.name
        writer.varint(layer.codes.shape[0])
        writer.byte(layer.shift << 3 | layer.exact << 1 | ACTIVATIONS.index(layer.activation))
        writer.signed(layer.weight_exponent)
        used = int(np.flatnonzero(layer.codebook).max(initial=0))
        plain.byte(used)
        write_integers(plain, layer.codebook[1 : used + 1].astype(np.int64))
        matrices.write(plain, layer.codes, layer.codebook)
        write_integers(plain, layer.bias)
    writer.raw(matrices.stream())
    writer.raw(bytes(plain.data))


def read(reader: Reader, coder: str, has_around: bool) -> tuple[Chain, Options, bytes, tuple[TensorSize, ...], int]:
    """What `write` appended: network, options, graph around it, bits of the tensors, and CRC-32 of the image file."""
    image_crc = int.from_bytes(reader.raw(4, "the image's checksum"), "little")
    params, options = _read_params(reader)
    around = _read_around(reader) if has_around else b""
    count = reader.varint("layers", _MAX_LAYERS, 1)
    inputs = reader.varint("inputs", MAX_ELEMENTS, 1)
    exponent = reader.signed("input exponent", _MAX_EXPONENT)
    heads: list[tuple[str, int, int, int]] = []
    width, room, biases = inputs, MAX_ELEMENTS, MAX_DENSE
    for _ in range(count):
        name = read_name(reader, heads[-1][0] if heads else "")
        outputs = reader.varint(f"{name}: outputs", MAX_ELEMENTS, 1)
        flags = reader.byte(f"{name}: flags", MAX_SHIFT << 3 | 7)
        heads.append((name, outputs, flags, reader.signed(f"{name}: weight exponent", _MAX_EXPONENT)))
        room, biases, width = room - width * outputs, biases - outputs, outputs
        if room < 0 or biases < 0:
            raise CodingError(f"more weights than this kit reads ({MAX_ELEMENTS})")
    matrices = matrix_reader(coder, reader)
    layers: list[QuantizedLayer] = []
    sizes: list[TensorSize] = []
    for name, outputs, flags, weight_exponent in heads:
        begin = reader.at
        codebook = np.zeros(1 << params.code_bits, np.int16)
        used = reader.byte(f"{name}: entries of the codebook", len(codebook) - 1)
        entries = read_integers(reader, used, f"{name}: codebook", limit=1 << 15)
        if used and int(entries.max()) > 32767:
            raise CodingError(f"{name}: {int(entries.max())} in the codebook; expected at most 32767")
        codebook[1 : used + 1] = entries
        book_bits = 8.0 * (reader.at - begin)
        codes, coded = matrices.read(reader, (outputs, inputs), codebook, name)
        begin = reader.at
        bias = read_integers(reader, outputs, f"{name}: bias", limit=_MAX_BIAS)
        bias_bits = 8.0 * (reader.at - begin)
        unit = exponent + weight_exponent
        layers.append(
            QuantizedLayer(
                name, codes, codebook, weight_exponent, bias, flags >> 3, ACTIVATIONS[flags & 1], exponent,
                unit + (flags >> 3), bool(flags >> 1 & 1),
            )
        )  # fmt: skip
        sizes += _sizes(layers[-1], coded.fillers, coded.width, coded.codes, coded.positions, book_bits, bias_bits)
        inputs, exponent = outputs, layers[-1].output_exponent
    graph = Chain(tuple(layers), params)
    try:
        graph.verify()
    except ModelError as error:
        raise CodingError(str(error)) from None
    return graph, options, around, tuple(sizes), image_crc


def _sizes(
    layer: QuantizedLayer, fillers: int, width: int, codes: float, positions: float, book: float, bias: float
) -> tuple[TensorSize, TensorSize]:
    shape, outputs = layer.codes.shape, (layer.codes.shape[0],)
    bits = len(layer.codebook).bit_length() - 1
    nonzeros = int(np.count_nonzero(layer.codes))
    return (
        TensorSize(f"{layer.name}.weight", shape, nonzeros, bits, fillers, width, codes, positions, book),
        TensorSize(f"{layer.name}.bias", outputs, int(np.count_nonzero(layer.bias)), values=bias),
    )


def _write_params(writer: Writer, params: Params, options: Options) -> None:
    """As text, so that parameters may be added."""
    both = {**params.asdict(), **options.asdict()}
    text = ";".join(f"{name}={str(value).lower()}" for name, value in sorted(both.items(), reverse=True))
    packed = _deflated(text.encode(), _DICTIONARY)
    writer.varint(len(packed))
    writer.raw(packed)


def _deflated(text: bytes, dictionary: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=dictionary)
    return stream.compress(text) + stream.flush()


def _read_around(reader: Reader) -> bytes:
    packed = reader.raw(reader.varint("size of the graph", MAX_AROUND), "the graph")
    if not packed:
        return b""
    stream = zlib.decompressobj(-15, zdict=_GRAPH_DICTIONARY)
    try:
        text = stream.decompress(packed, MAX_AROUND)
    except zlib.error as error:
        raise CodingError(f"the graph is not readable ({error})") from None
    if not stream.eof or stream.unused_data:
        raise CodingError(f"the graph takes more than {MAX_AROUND} bytes, or does not end with its text")
    return text


def _read_params(reader: Reader) -> tuple[Params, Options]:
    packed = reader.raw(reader.varint("size of the parameters", _MAX_PARAMS), "the parameters")
    stream = zlib.decompressobj(-15, zdict=_DICTIONARY)
    try:
        text = stream.decompress(packed, _MAX_PARAMS).decode()
        pairs = dict(pair.split("=", 1) for pair in text.split(";"))
        switches = {"true": True, "false": False}
        values = {name: switches[v] if v in switches else int(v) for name, v in pairs.items()}
        chosen = {name: values.pop(name) for name in Options().asdict() if name in values}
        return Params.from_dict(values), Options.from_dict(chosen)
    except (zlib.error, ValueError, TypeError, ParamsError, OptionsError) as error:
        raise CodingError(f"the parameters of the array are not legal ({error})") from None
