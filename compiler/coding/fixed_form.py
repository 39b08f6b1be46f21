"""The content of an `.eiez` file whose network is fixed point for one array: its programs, and the graph around them.

Building the programs again gives the `.eie` file that they came from, byte for byte; the CRC-32 of that file stands in
this one, so that a kit that builds otherwise cannot pass its image off as the same. The graph follows as JSON, if it
says more than that there are inputs, the array and outputs; its tensors, which the host computes with, come last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.coding.matrices import MatrixReader, MatrixWriter, matrix_reader, matrix_writer
from compiler.coding.numbers import read_integers, write_integers
from compiler.coding.parameters import MAX_PARAMS, read_params
from compiler.coding.program_body import read_body, write_body
from compiler.coding.program_form import RATED, STEPS, Room, read_head, write_head
from compiler.coding.sizes import TensorSize
from compiler.coding.texts import MAX_TEXT, deflate, inflated
from compiler.coding.wire import Reader, Writer
from compiler.errors import CodingError, ImageError, ModelError
from compiler.graph.ir import Graph
from compiler.image.check_maps import MAX_OFF_CHIP
from compiler.lower.partition import Partition
from compiler.lower.program import MapForm
from compiler.lower.program_check import check_program
from compiler.network import array_graph
from compiler.network_file import fill_graph, graph_tensors, graph_text, parse_graph
from compiler.options import Options
from hw.params import Params

__all__ = ["read", "write"]

_MAX_PROGRAMS = 1 << 12
_MAX_AXES = 8
_MAX_AXIS = 1 << 28
_MAX_VALUE = 1 << 53  # of a tensor of the host
_DTYPES = (np.uint8, np.int16, np.int32, np.int64)

# Make the texts short. Part of the format: never change them.
_DICTIONARY = (
    b"false;fragments=1;queue_depth=8;pes=64;index_bits=4;refill=false;balanced=false;pes=4;pes=32;pes=16;"
    b"weight_words=16384;skip_empty=true;rows=256;refill=true;queue_depth=32;pointer_blocks=4096;pes=16;"
    b"output_words=4096;index_bits=6;fragments=8;descriptors=256;code_bits=4;codebooks=64;balanced=true;act_lines=2048;"
    b"acc_bits=40"
)
_GRAPH_DICTIONARY = (
    b'"op":"Scan","op":"Table","op":"Multiply","op":"Add","op":"Concat","op":"Slice","tensors":["bias","codebook",'
    b'"codes"]"tensors":["table"]"op":"Reshape",argmax"layout":"C","source":"linear at '
    b'[{"attributes":{"exponent":-15,"kind":"real","layout":"CHW","shape":[1,28,28]},"body":null,"inputs":[],'
    b'"name":"input","op":"Input","outputs":["input"],"source":"","tensors":[]},{"attributes":{"shape":[784]},'
    b'"body":null,"inputs":["input"],"name":"0","op":"Reshape","outputs":["0"],"source":"","tensors":[]},'
    b'{"attributes":{"exponents":[-14],"image":0,"layouts":["C"],"makes":["C"],"reads":["C"],"shape":[10]},"body":null,'
    b'"inputs":["0"],"name":"1\\u20265","op":"Array","outputs":["5"],"source":"","tensors":[]},'
    b'{"attributes":{"axis":0,"then":"log_softmax"},"body":null,"inputs":["5"],"name":"output",'
    b'"op":"Output","outputs":["output"],"source":"","tensors":[]}]'
)


def write(writer: Writer, parts: Partition, params: Params, options: Options, coder: str, image_crc: int) -> None:
    """Append the programs of a network, its graph, and the CRC-32 of the image file that they make.

    Raises
    ------
    ModelError
        It is larger than a file may be.
    """
    if len(parts.programs) > _MAX_PROGRAMS:
        raise ModelError(f"{len(parts.programs)} parts of the array; a file holds at most {_MAX_PROGRAMS}")
    writer.raw(image_crc.to_bytes(4, "little"))
    both = {**params.stored(), **options.stored()}
    text = ";".join(f"{name}={str(value).lower()}" for name, value in sorted(both.items(), reverse=True))
    deflate(writer, text.encode(), _DICTIONARY, "the parameters", MAX_PARAMS)
    writer.varint(len(parts.programs))
    for program in parts.programs:
        write_head(writer, program)
    around = graph_text(parts.graph)
    usual = _usual(parts.programs)
    known = usual is not None and graph_text(usual) == around
    deflate(writer, b"" if known else around, _GRAPH_DICTIONARY, "the graph", MAX_TEXT)
    tensors = {} if known else graph_tensors(parts.graph)
    for tensor in tensors.values():
        writer.byte([np.dtype(each) for each in _DTYPES].index(tensor.dtype) << 4 | tensor.ndim)
        for size in tensor.shape:
            writer.varint(size)
    room = Room()
    try:
        for name, tensor in tensors.items():
            room.take(*((tensor.size, 0) if _book_of(name) in tensors else (0, tensor.size)), name)
    except CodingError as error:
        raise ModelError(str(error)) from None
    plain, matrices = Writer(), matrix_writer(coder)
    for program in parts.programs:
        write_body(plain, matrices, program)
    _write_tensors(plain, matrices, tensors)
    writer.raw(matrices.stream())
    writer.raw(bytes(plain.data))


def read(
    reader: Reader, coder: str, renewed: Callable[[dict[str, Any]], dict[str, Any]], flags: int = STEPS | RATED
) -> tuple[Partition, Params, Options, tuple[TensorSize, ...], int]:
    """What `write` appended: programs and graph, array, options, bits of the tensors, CRC-32 of the image file.

    renewed : turns parameters of an older format into those of today. flags : what programs of the format may have.
    """
    image_crc = int.from_bytes(reader.raw(4, "the image's checksum"), "little")
    params, options = read_params(reader, _DICTIONARY, renewed)
    room = Room()
    count = reader.varint("parts of the array", _MAX_PROGRAMS)
    heads = [read_head(reader, room, flags) for _ in range(count)]
    for head in heads:
        _check_maps(head.maps, params)
    text = inflated(reader, _GRAPH_DICTIONARY, "the graph", MAX_TEXT)
    graph: Graph | None = None
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = {}
    if text:
        try:
            graph, names = parse_graph(text)
        except ImageError as error:
            raise CodingError(str(error)) from None
        shapes = {name: _read_shape(reader, name) for name in names}
        for name, (_, shape) in shapes.items():
            whole = math.prod(shape)
            room.take(*((whole, 0) if _book_of(name) in shapes else (0, whole)), name)
    matrices = matrix_reader(coder, reader)
    programs, sizes = [], []
    for head in heads:
        program, own = read_body(reader, matrices, head, params)
        try:
            check_program(program, params)
        except ModelError as error:
            raise CodingError(str(error)) from None
        programs.append(program)
        sizes += own
    tensors, more = _read_tensors(reader, matrices, shapes)
    if graph is None:
        graph = _usual(programs)
        if graph is None:
            raise CodingError(f"{count} parts of the array and no graph around them")
    else:
        graph = fill_graph(graph, tensors)
    return Partition(graph, tuple(programs)), params, options, (*sizes, *more), image_crc


def _usual(programs: Any) -> Graph | None:
    """The graph of a network that is one program and nothing else."""
    if len(programs) != 1:
        return None
    (program,) = programs
    inputs, outputs = ([program.maps[n] for n in numbers] for numbers in (program.inputs, program.outputs))
    return array_graph(inputs, outputs, {each.name for each in program.maps})


def _check_maps(maps: Sequence[MapForm], params: Params) -> None:
    """Each fits activation memory by itself, or may be off chip: what is done with it takes time by its pixels."""
    room = MAX_OFF_CHIP if params.streams else params.act_lines * params.groups
    for each in maps:
        taken = each.height * each.width * max(each.vectors, each.pitch, params.act_vectors(each.channels))
        if taken > room:
            raise CodingError(f"{each.name}: {taken} activation vectors; there may be {room}")


def _book_of(name: str) -> str:
    """Name of the codebook that a tensor of codes has."""
    node, _, tensor = name.rpartition(".")
    return f"{node}.codebook{tensor[len('codes') :]}" if tensor.startswith("codes") else ""


def _write_tensors(plain: Writer, matrices: MatrixWriter, tensors: dict[str, NDArray[Any]]) -> None:
    for name, tensor in tensors.items():
        if _book_of(name) in tensors:
            codebook = tensors[_book_of(name)]
            matrices.write(plain, np.ascontiguousarray(_rows(tensor)), codebook)
        else:
            write_integers(plain, tensor.reshape(-1).astype(np.int64))


def _rows(tensor: NDArray[Any]) -> NDArray[Any]:
    return tensor.reshape(len(tensor), -1)


def _read_shape(reader: Reader, name: str) -> tuple[Any, tuple[int, ...]]:
    head = reader.byte(f"{name}: form", len(_DTYPES) - 1 << 4 | _MAX_AXES)
    if head & 15 > _MAX_AXES:
        raise CodingError(f"{name}: {head & 15} axes; expected at most {_MAX_AXES}")
    return _DTYPES[head >> 4], tuple(reader.varint(f"{name}: size", _MAX_AXIS, 1) for _ in range(head & 15))


def _read_tensors(
    reader: Reader, matrices: MatrixReader, shapes: dict[str, tuple[Any, tuple[int, ...]]]
) -> tuple[dict[str, NDArray[Any]], list[TensorSize]]:
    """Tensors of the host, codebooks before the codes, and their bits."""
    tensors: dict[str, NDArray[Any]] = {}
    sizes = []
    for name, (dtype, shape) in shapes.items():
        begin = reader.at
        if (book := _book_of(name)) in shapes:
            if book not in tensors or tensors[book].ndim != 1 or dtype != np.uint8 or not shape:
                raise CodingError(f"{name}: codes of {shape} without a codebook before them")
            codebook = tensors[book]
            flat = (shape[0], math.prod(shape[1:]))
            codes, coded = matrices.read(reader, flat, codebook, name)
            tensors[name] = codes.reshape(shape)
            bits, nonzeros = (len(codebook) - 1).bit_length(), int(np.count_nonzero(codes))
            sizes.append(
                TensorSize(name, shape, nonzeros, bits, coded.fillers, coded.width, coded.codes, coded.positions)
            )
            continue
        values = read_integers(reader, math.prod(shape), name, limit=_MAX_VALUE)
        kind = np.iinfo(dtype)
        if values.size and not kind.min <= int(values.min()) <= int(values.max()) <= kind.max:
            raise CodingError(f"{name}: {int(values.min())} to {int(values.max())}; expected {np.dtype(dtype)}")
        tensors[name] = values.astype(dtype).reshape(shape)
        sizes.append(TensorSize(name, shape or (1,), int(np.count_nonzero(values)), values=8.0 * (reader.at - begin)))
    return tensors, sizes
