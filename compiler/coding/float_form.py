"""The content of an `.eiez` file whose network is floats: `CompressedModel`.

Of a tensor without a codebook that is mostly zeros (pruned, its weights not shared) the file holds where the others
are, coded like a matrix of one value, and those one by one. Whole numbers (form 2, which files of earlier kits do not
have) are deflated.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.coding.matrices import MatrixReader, MatrixWriter, matrix_reader, matrix_writer
from compiler.coding.names import read_name, write_name
from compiler.coding.sizes import MAX_DENSE, MAX_ELEMENTS, TensorSize
from compiler.coding.wire import Reader, Writer
from compiler.compressed import INTEGERS, CompressedModel, CompressedTensor
from compiler.errors import CodingError, ModelError

__all__ = ["read", "write"]

Shape = tuple[int, ...]

_MAX_TENSORS = 1 << 16
_MAX_DIMENSIONS = 15
_INTEGERS = 2  # form of what is whole numbers; 0 is floats, 1 floats that are mostly zeros
_PLACES = np.array([0, 1], np.float32)  # codebook of a matrix that says where values are
_MAX_METADATA = 1 << 20  # bytes of its JSON text


def write(writer: Writer, model: CompressedModel, coder: str) -> None:
    """Append a verified model."""
    elements = sum(tensor.codes.size for tensor in model.tensors)
    dense = sum(array.size for array in (*model.dense.values(), *model.integers.values()))
    if elements > MAX_ELEMENTS or dense > MAX_DENSE:
        raise ModelError(
            f"{elements} shared and {dense} other values; a file holds at most {MAX_ELEMENTS} and {MAX_DENSE}"
        )
    writer.varint(len(model.tensors))
    writer.varint(len(model.dense) + len(model.integers))
    heads = [(tensor.name, tensor.shape, tensor.bits - 1) for tensor in model.tensors]
    heads += [(name, array.shape, _is_sparse(array)) for name, array in model.dense.items()]
    heads += [(name, array.shape, _INTEGERS) for name, array in model.integers.items()]
    _write_heads(writer, heads)
    _write_metadata(writer, model.metadata)
    plain, matrices = Writer(), matrix_writer(coder)
    for tensor in model.tensors:
        _write_codebook(plain, matrices, tensor.codebook)
        matrices.write(plain, tensor.codes, tensor.codebook)
    for array in model.dense.values():
        values = np.ascontiguousarray(array).reshape(-1)
        if _is_sparse(array):
            places = values.view(np.uint32) != 0  # a negative zero is a value
            matrices.write(plain, places.reshape(array.shape[0], -1).view(np.uint8), _PLACES)
            values = values[places]
        matrices.floats(plain, values)
    for array in model.integers.values():
        _write_integers(plain, array)
    writer.raw(matrices.stream())
    writer.raw(bytes(plain.data))


def read(reader: Reader, coder: str, described: bool) -> tuple[CompressedModel, tuple[TensorSize, ...]]:
    """The model that `write` appended, and the bits of its tensors."""
    shared, dense = reader.varint("tensors", _MAX_TENSORS), reader.varint("tensors", _MAX_TENSORS)
    heads: list[tuple[str, Shape, int]] = []
    room = [MAX_ELEMENTS, MAX_DENSE]
    for number in range(shared + dense):
        head = _read_head(reader, *(heads[-1][:2] if heads else ("", ())))
        room[number >= shared] -= math.prod(head[1])
        if room[number >= shared] < 0:
            raise CodingError(f"more values than this kit reads ({MAX_ELEMENTS} shared, {MAX_DENSE} others)")
        heads.append(head)
    metadata = _read_metadata(reader) if described else {}
    matrices = matrix_reader(coder, reader)
    tensors, arrays, integers, sizes = [], dict[str, NDArray[np.float32]](), dict[str, NDArray[Any]](), []
    for name, shape, bits in heads[:shared]:
        codebook, book_bits = _read_codebook(reader, matrices, bits + 1, name)
        rows = shape[0] if shape else 0
        if not rows:
            raise CodingError(f"{name}: a shared tensor of shape {shape}")
        codes, coded = matrices.read(reader, (rows, math.prod(shape[1:])), codebook, name)
        tensors.append(CompressedTensor(name, shape, codes, codebook))
        sizes.append(
            TensorSize(
                name, shape, tensors[-1].nonzeros, bits + 1, coded.fillers, coded.width, coded.codes, coded.positions,
                book_bits,
            )
        )  # fmt: skip
    for name, shape, sparse in heads[shared:]:
        if sparse == _INTEGERS:
            before = reader.at
            integers[name] = _read_integers(reader, shape, name)
            whole = int(np.count_nonzero(integers[name]))
            sizes.append(TensorSize(name, shape, whole, values=8.0 * (reader.at - before)))
            continue
        positions = 0.0
        places = np.ones(math.prod(shape), bool)
        if sparse:
            if sparse != 1 or not shape or not shape[0]:
                raise CodingError(f"{name}: a tensor of shape {shape} and form {sparse}")
            codes, coded = matrices.read(reader, (shape[0], math.prod(shape[1:])), _PLACES, name)
            places, positions = codes.reshape(-1) != 0, coded.codes + coded.positions
        values = np.zeros(len(places), np.float32)
        values[places], value_bits = matrices.floats(reader, int(places.sum()), name)
        arrays[name] = values.reshape(shape)
        nonzeros = int(np.count_nonzero(values))
        sizes.append(TensorSize(name, shape, nonzeros, positions=positions, values=value_bits))
    model = CompressedModel(tuple(tensors), arrays, metadata, integers)
    try:
        model.verify()
    except ModelError as error:
        raise CodingError(str(error)) from None
    return model, tuple(sizes)


def _write_integers(writer: Writer, array: NDArray[Any]) -> None:
    """Number of the type, then the values, little-endian and deflated."""
    writer.byte(INTEGERS.index(array.dtype.name))
    packed = zlib.compress(array.astype(array.dtype.newbyteorder("<")).tobytes(), 9)
    writer.varint(len(packed))
    writer.raw(packed)


def _read_integers(reader: Reader, shape: Shape, name: str) -> NDArray[Any]:
    kind = np.dtype(INTEGERS[reader.byte(f"{name}: type of its numbers", len(INTEGERS) - 1)])
    packed = reader.raw(reader.varint(f"{name}: size of its numbers", MAX_DENSE * 16), f"{name}: numbers")
    size = kind.itemsize * math.prod(shape)
    try:
        stream = zlib.decompressobj()
        data = stream.decompress(packed, size + 1)
    except zlib.error as error:
        raise CodingError(f"{name}: its numbers cannot be inflated: {error}") from None
    if len(data) != size or not stream.eof:
        raise CodingError(f"{name}: its numbers are not {size} bytes")
    if kind == np.bool_ and size and max(data) > 1:
        raise CodingError(f"{name}: a truth value is {max(data)}")
    return np.frombuffer(data, kind.newbyteorder("<")).astype(kind).reshape(shape)


def _is_sparse(array: NDArray[np.float32]) -> int:
    """1 if where the values are takes less room than the zeros between them, 0 if not."""
    zeros = int((array.view(np.uint32) == 0).sum()) if array.ndim > 1 else 0
    return int(32 * zeros > 2 * array.size)


def _expected(shape: Shape, before: Shape) -> Shape | None:
    """What the shape before says of this one: a bias has as many values, the next matrix as many inputs."""
    if not before or len(shape) not in (1, 2):
        return None
    return (before[0],) if len(shape) == 1 else (shape[0], before[0])


def _write_heads(writer: Writer, heads: Sequence[tuple[str, Shape, int]]) -> None:
    """Names, shapes and code widths (less one)."""
    name_before, shape_before = "", Shape()
    for name, shape, bits in heads:
        if len(shape) > _MAX_DIMENSIONS:
            raise ModelError(f"{name}: {len(shape)} dimensions; expected at most {_MAX_DIMENSIONS}")
        write_name(writer, name, name_before)
        known = shape == _expected(shape, shape_before)
        writer.byte(bits << 5 | known << 4 | len(shape))
        for size in shape[: len(shape) - 1] if known else shape:
            writer.varint(size)
        name_before, shape_before = name, shape


def _read_head(reader: Reader, name_before: str, shape_before: Shape) -> tuple[str, Shape, int]:
    name = read_name(reader, name_before)
    head = reader.byte(f"{name}: dimensions")
    known, dimensions = head >> 4 & 1, head & 15
    shape = tuple(reader.varint(f"{name}: size of a dimension", MAX_ELEMENTS) for _ in range(dimensions - known))
    if known:
        if not shape_before or dimensions not in (1, 2):
            raise CodingError(f"{name}: its shape refers to none before")
        shape = (*shape, shape_before[0])
    return name, shape, head >> 5


def _write_codebook(writer: Writer, matrices: MatrixWriter, codebook: NDArray[np.float32]) -> None:
    """Entries from code 1 up to the last that is not zero."""
    used = int(np.flatnonzero(codebook.view(np.uint32)).max(initial=0))
    writer.byte(used)
    matrices.floats(writer, codebook[1 : used + 1])


def _read_codebook(reader: Reader, matrices: MatrixReader, bits: int, name: str) -> tuple[NDArray[np.float32], float]:
    """The codebook and what it took."""
    codebook = np.zeros(1 << bits, np.float32)
    used = reader.byte(f"{name}: entries of the codebook", len(codebook) - 1)
    codebook[1 : used + 1], spent = matrices.floats(reader, used, f"{name}: codebook")
    return codebook, spent + 8.0


def _write_metadata(writer: Writer, metadata: Mapping[str, str]) -> None:
    """Nothing for none, else deflated JSON."""
    if metadata:
        packed = zlib.compress(json.dumps(dict(metadata), separators=(",", ":")).encode(), 9)
        writer.varint(len(packed))
        writer.raw(packed)


def _read_metadata(reader: Reader) -> dict[str, str]:
    packed = reader.raw(reader.varint("size of the metadata", _MAX_METADATA), "the metadata")
    try:
        stream = zlib.decompressobj()
        text = stream.decompress(packed, _MAX_METADATA)
        found = json.loads(text) if stream.eof else None
    except (zlib.error, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise CodingError("the metadata is not a list of names and texts")
    return found
