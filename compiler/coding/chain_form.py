"""The content of `.eiez` files of versions 2 and 3, whose network is a chain of fully connected layers for one array.

The parameters of the array and the options of the compiler stand in one text, as they did when they were one. In
version 3 the graph around the chain (names, shapes, what moves numbers) follows as JSON, if it says more than that
there is an input and an output. Arrays of that time have other parameters than those of today, and their image another
form: what is read is the network for an array of today with the same PEs and memories.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from compiler.coding.matrices import matrix_reader
from compiler.coding.names import read_name
from compiler.coding.numbers import read_integers
from compiler.coding.parameters import read_params
from compiler.coding.sizes import MAX_DENSE, MAX_ELEMENTS, TensorSize
from compiler.coding.texts import MAX_TEXT, inflated
from compiler.coding.wire import Reader
from compiler.errors import CodingError, ImageError, ModelError
from compiler.graph.integer import integer_types
from compiler.graph.ir import Graph, Node
from compiler.lower.chain import ACTIVATIONS, MAX_SHIFT, Chain, QuantizedLayer
from compiler.lower.partition import Partition
from compiler.lower.program import chain_program
from compiler.network import array_graph
from compiler.network_file import parse_graph
from compiler.options import Options

__all__ = ["parts_of", "read"]

INPUT = "input"
"""Name of the input where nothing says otherwise."""

_MAX_LAYERS = 1 << 12
_MAX_EXPONENT = 4096
_OUTPUT_WORDS = 4096  # what an array of today has; those of before had a bias an output, and none for other words
_MAX_BIAS = 1 << 47
# What the texts were made short with: never change them.
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


def read(reader: Reader, coder: str, has_around: bool) -> tuple[Chain, Options, bytes, tuple[TensorSize, ...]]:
    """Network, options, text of the graph around it, bits of the tensors."""
    reader.raw(4, "the image's checksum")  # of an image that this kit does not make
    params, options = read_params(reader, _DICTIONARY, _renewed)
    around = inflated(reader, _GRAPH_DICTIONARY, "the graph", MAX_TEXT) if has_around else b""
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
    return graph, options, around, tuple(sizes)


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


def _renewed(values: dict[str, Any]) -> dict[str, Any]:
    """Parameters of an array without tables, elementwise unit and streams for maps, under today's names."""
    values.pop("fold", None)
    values = {"tables": 0, "elementwise": False, "streams": False, "judged": True, **values}
    if "bias_words" in values:
        values["output_words"] = max(values.pop("bias_words"), _OUTPUT_WORDS)
    return values


def parts_of(chain: Chain, around: bytes) -> Partition:
    """The program of a chain, and the graph around it with an `Array` node of today."""
    if not around:
        program = chain_program(chain, INPUT)
        first, last = program.maps[0], program.maps[-1]
        return Partition(array_graph([first], [last]), (program,))
    try:
        entries = json.loads(around)
        for entry in entries:
            if entry["op"] == "Array":
                entry["attributes"] = {
                    "image": 0, "reads": [], "makes": [], "layouts": [], "shape": [], "exponents": [],
                    "before": [entry["attributes"]["width"], entry["attributes"]["exponent"]],
                }  # fmt: skip
        graph, tensors = parse_graph(json.dumps(entries).encode())
        number = [node.op for node in graph].index("Array")
        array = graph.nodes[number]
        end = Node("end of it", "Output", array.inputs[:1], {"then": "", "axis": 0})
        given = integer_types(Graph((*graph.nodes[:number], end)))[array.inputs[0]]
        rank = len(given.shape)
        axes = {1: "C", 2: "WC", 3: "HWC"}[rank]
        width, exponent = array["before"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, ImageError, ModelError) as error:
        raise CodingError(f"the graph around the layers is not one ({error})") from None
    if tensors or any(node.body is not None for node in graph):
        raise CodingError("the graph around the layers has tensors or loops; expected none")
    made = Node(
        array.name, "Array", array.inputs[:1], {
            "image": 0, "reads": (axes,), "makes": (axes,), "shape": (*given.shape[:-1], width),
            "layouts": (given.layout,), "exponents": (exponent,),
        }, outputs=array.outputs[:1], source=array.source,
    )  # fmt: skip
    height, across = (*(1,) * (3 - rank), *given.shape[:-1])
    program = chain_program(chain, array.inputs[0], height, across)
    return Partition(Graph((*graph.nodes[:number], made, *graph.nodes[number + 1 :])), (program,))
