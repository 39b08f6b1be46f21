"""Programs of an array in a file, what is large: tables, codes, codebooks, biases. `program_form.py` has the rest.

Each segment is a matrix of codes, a row an output channel: the columns are the taps of its first input channel, of its
second, and so on. Where channels fall into groups that read only channels of theirs (a depthwise convolution, a
value that is added as it is), a row has only the channels of its group.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compiler.coding.matrices import MatrixReader, MatrixWriter
from compiler.coding.numbers import read_integers, write_integers
from compiler.coding.program_form import Head, LayerHead, Window, matrix_shape, window_of
from compiler.coding.program_steps import with_tables
from compiler.coding.sizes import MAX_ELEMENTS, TensorSize
from compiler.coding.wire import Reader, Writer
from compiler.errors import CodingError, ModelError
from compiler.graph.integer import TABLE_SIZE
from compiler.lower.chain import MAX_SHIFT
from compiler.lower.program import HIGH, RATES, Function, MapForm, Program, ProgramLayer, Segment
from hw.params import Params

__all__ = ["read_body", "read_codebook", "write_body", "write_codebook"]

_MAX_BIAS = 1 << 47


def write_body(plain: Writer, matrices: MatrixWriter, program: Program) -> None:
    """Append tables, codes, codebooks, biases, unequal shifts, which functions channels have, and rates."""
    rated = any(layer.rates is not None for layer in program.layers)
    for table in program.tables:
        write_integers(plain, np.array(table, np.int64))
    for layer in program.layers:
        for segment in layer.segments:
            window = window_of(segment, program.maps, layer.result)
            write_codebook(plain, segment.codebook)
            shape = matrix_shape(window, program.maps, layer.result)
            matrices.write(plain, _matrix(segment, window, program.maps, shape), segment.codebook)
        write_integers(plain, layer.bias)
        if (layer.shift != layer.shift[0]).any():
            write_integers(plain, layer.shift)
        if layer.which is not None:
            write_integers(plain, layer.which)
        if rated:
            plain.byte(layer.rates is not None)
            if layer.rates is not None:
                write_integers(plain, layer.rates)


def write_codebook(plain: Writer, codebook: NDArray[np.int16]) -> None:
    """Append a codebook as far as it is not zero."""
    used = int(np.flatnonzero(codebook).max(initial=0))
    plain.byte(used)
    write_integers(plain, codebook[1 : used + 1].astype(np.int64))


def read_codebook(reader: Reader, size: int, name: str) -> NDArray[np.int16]:
    """What `write_codebook` appended; `size` entries."""
    codebook = np.zeros(size, np.int16)
    used = reader.byte(f"{name}: entries of the codebook", size - 1)
    entries = read_integers(reader, used, f"{name}: codebook", limit=1 << 15)
    if used and int(entries.max()) > HIGH:
        raise CodingError(f"{name}: {int(entries.max())} in the codebook; expected at most {HIGH}")
    codebook[1 : used + 1] = entries
    return codebook


def _matrix(segment: Segment, window: Window, maps: Sequence[MapForm], shape: tuple[int, int]) -> NDArray[np.uint8]:
    each, taps = maps[window.source].channels // window.groups, math.prod(window.kernel)
    if math.prod(shape) > MAX_ELEMENTS:
        raise ModelError(f"{math.prod(shape)} weights of one layer; a file holds at most {MAX_ELEMENTS}")
    codes = np.zeros(shape, np.uint8)
    codes[np.repeat(np.arange(shape[0]), segment.counts), segment.channel % each * taps + segment.tap] = segment.code
    return codes


def _segment(codes: NDArray[np.uint8], codebook: NDArray[np.int16], window: Window, channels: int) -> Segment:
    outputs, taps = len(codes), math.prod(window.kernel)
    each = channels // window.groups
    by_tap = np.ascontiguousarray(codes.reshape(outputs, each, taps).transpose(0, 2, 1)).reshape(-1)
    flat = np.flatnonzero(by_tap)
    output, within = np.divmod(flat, each * taps)
    tap, channel = np.divmod(within, each)
    return Segment(
        window.source, window.kernel, window.stride, window.dilation, window.origin,
        np.searchsorted(flat, np.arange(outputs + 1) * (each * taps)), tap,
        channel + output // (outputs // window.groups) * each, by_tap[flat], codebook,
    )  # fmt: skip


def read_body(reader: Reader, matrices: MatrixReader, head: Head, params: Params) -> tuple[Program, list[TensorSize]]:
    """A program with its numbers, and the bits of these."""
    layers: list[ProgramLayer] = []
    sizes: list[TensorSize] = []
    tables = []
    for number in range(head.steps.tables):
        begin = reader.at
        table = read_integers(reader, TABLE_SIZE, f"table {number}", limit=1 << 15)
        if int(table.max()) > HIGH:
            raise CodingError(f"table {number}: {int(table.max())}; expected at most {HIGH}")
        tables.append(tuple(table.tolist()))
        bits = 8.0 * (reader.at - begin)
        sizes.append(TensorSize(f"table{number}", table.shape, int(np.count_nonzero(table)), values=bits))
    for each in head.layers:
        layer, own = _read_layer(reader, matrices, each, head, tables, params)
        layers.append(layer)
        sizes += own
    steps = head.steps
    operations = tuple(
        dataclasses.replace(operation, function=with_tables(function, tables))
        for operation, function in steps.operations
    )
    program = Program(
        head.maps, tuple(layers), head.inputs, head.outputs, operations, steps.order, steps.loops, steps.pitch
    )  # fmt: skip
    if program.tables != list(dict.fromkeys(tables)) or len(set(tables)) < len(tables):
        raise CodingError("a function table that nothing uses, or one that is there twice")
    return program, sizes


def _read_layer(
    reader: Reader, matrices: MatrixReader, head: LayerHead, of: Head,
    tables: Sequence[tuple[int, ...]], params: Params,
) -> tuple[ProgramLayer, list[TensorSize]]:  # fmt: skip
    maps = of.maps
    name, channels = head.name, maps[head.result].channels
    segments = []
    sizes: list[TensorSize] = []
    moves = head.steps.segments or (False,) * len(head.windows)
    for number, window in enumerate(head.windows):
        begin = reader.at
        codebook = read_codebook(reader, 1 << params.code_bits, name)
        book_bits = 8.0 * (reader.at - begin)
        shape = matrix_shape(window, maps, head.result)
        codes, coded = matrices.read(reader, shape, codebook, name)
        if codes.size and int(codes.max()) >= len(codebook):
            raise CodingError(f"{name}: code {int(codes.max())}; expected less than {len(codebook)}")
        made = _segment(codes, codebook, window, maps[window.source].channels)
        segments.append(dataclasses.replace(made, moves=moves[number]))
        used = np.bincount(made.code, minlength=len(codebook)) > 0
        if (used & (codebook == 0)).any():
            raise CodingError(f"{name}: a weight whose value in the codebook is zero")
        dense = (shape[0], shape[1] // math.prod(window.kernel), *window.kernel)
        sizes.append(
            TensorSize(
                f"{name}.weight{number or ''}", shape if window.kernel == (1, 1) else dense, len(made.code),
                params.code_bits, coded.fillers, coded.width, coded.codes, coded.positions, book_bits,
            )
        )  # fmt: skip
    begin = reader.at
    bias = read_integers(reader, channels, f"{name}: bias", limit=_MAX_BIAS)
    shift = np.full(channels, head.shift or 0)
    if head.shift is None:
        shift = read_integers(reader, channels, f"{name}: shift", limit=MAX_SHIFT)
    functions = tuple(Function(tables[n], left, right) for n, left, right in head.steps.functions)
    which = read_integers(reader, channels, f"{name}: functions", limit=len(functions)) if functions else None
    rates = None
    if of.rated and reader.byte(f"{name}: whether it has rates", 1):
        rates = read_integers(reader, channels, f"{name}: rates", limit=RATES)
        if int(rates.min()) < 1:
            raise CodingError(f"{name}: rate {int(rates.min())}; expected 1 to {RATES}")
    bits = 8.0 * (reader.at - begin)
    sizes.append(TensorSize(f"{name}.bias", (channels,), int(np.count_nonzero(bias)), values=bits))
    return ProgramLayer(
        name, head.result, tuple(segments), bias, shift, head.low, head.high, head.pool, head.pool_stride,
        head.maximum, head.exact, head.products, functions, which, head.steps.moves, head.steps.pixel, rates,
    ), sizes  # fmt: skip
