"""From the bytes of an image back to matrices and outputs, the way the array reads them.

Shares only `hw.params`, `hw.layouts` and the reading of descriptors with the packer: descriptors lead to pointer
blocks, these to entries, relative indices to accumulators, and the output table from accumulators to outputs. Tiles of
weights are read from the memories as the refill stream leaves them. An image whose entries contradict its headers is an
`ImageError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from amaranth.lib import data
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.image.check import check
from compiler.image.image import Image
from compiler.image.refilled import Refilled
from compiler.image.steps import ElementwiseStep, Step, executions
from hw.layouts import Join, entry, fields, output_word, pointer_block
from hw.params import FUNCTIONS, LANES, Params
from sim.golden_array import Function, Layer, Operation, Outputs, Program, Round, Segment, window_addresses
from sim.whole import whole_lines, whole_steps

__all__ = ["StepColumns", "columns", "decode"]

Int = NDArray[np.int64]
Words = dict[str, Int]


@dataclass(frozen=True, eq=False)
class _Columns:
    """The slices of one descriptor: (pes, columns), and its entries in the order PE, column, place.

    `packets`: words of each packet that brought them, empty if they stay on chip.
    """

    starts: Int
    counts: Int
    codes: NDArray[np.uint8]
    indices: NDArray[np.uint8]
    packets: list[int]


@dataclass(frozen=True, eq=False)
class StepColumns:
    """What the cycle model needs of one descriptor's columns; all (pointer blocks, 8, pes).

    counts : uint16, entries, padding entries included.
    starts : uint8, place of the first of them in its weight word.
    padding : uint16, entries with code 0 among them.
    packets : words of each packet of the refill stream that brings them; empty if they stay on chip.
    """

    counts: NDArray[np.uint16]
    starts: NDArray[np.uint8]
    padding: NDArray[np.uint16]
    packets: list[int]


def decode(image: Image, *, codes: bool = False) -> Program:
    """What an image computes, read back from its memories; with `codes` weights are still codes. No map is off chip.

    Raises
    ------
    ImageError
        An entry stands in an accumulator that is never read, or is read for nothing; outputs without a beginning or an
        end, or that are never written; a window or a result outside the frame.
    """
    check(image)
    stored = _all_columns(image)
    layers: list[Layer | Operation] = []
    for number, (info, steps) in enumerate(zip(image.layers, image.steps, strict=True)):
        if number in image.operations:
            step = image.operations[number]
            functions = _functions(image, step, 1)
            layers.append(Operation(info.name, number, info.result, step, functions[0] if functions else None))
            continue
        maximum = bool(steps[0].maximum)
        outputs, term_of = _outputs(image, steps[0], maximum, info.name)
        segments = [
            Segment(step, _weight(next(stored), step, term_of, image, info.name, codes))
            for step in whole_steps(image, number)
        ]
        layers.append(Layer(info.name, number, info.result, maximum, tuple(segments), outputs))
    place = {first: n for n, first in enumerate(image.numbers)}
    program = Program(tuple(layers), tuple((place[n], offset) for n, offset in executions(image.program)))
    room = whole_lines(image)
    for layer in program.runs:
        lines = layer.lines
        if lines.size and not image.rings <= int(lines.min()) <= int(lines.max()) < room:
            raise ImageError(f"{layer.name}: it writes line {int(lines.max())}; its frame has {room}")
        if isinstance(layer, Layer):
            for segment in layer.segments:
                _check_window(segment.step, image, layer.name)
        else:
            last = max(getattr(layer.step, name) for name in "abce") + layer.step.lines
            if last > room:
                raise ImageError(f"{layer.name}: it reads up to line {last}; its frame has {room}")
    return program


def _functions(image: Image, step: Step | ElementwiseStep, most: int) -> tuple[Function, ...]:
    """The functions that a descriptor names; one of them may be named in vain."""
    if not step.functions:
        return ()
    fields_of = [
        [getattr(step, f"{name}_{n}") for name in ("table", "left", "right")] for n in range(1, most + 1)
    ]  # fmt: skip
    if any(table >= len(image.functions) for table, _, _ in fields_of):
        raise ImageError(f"a function table is named that is not there; the image has {len(image.functions)}")
    return tuple(Function(image.functions[table].astype(np.int64), left, right) for table, left, right in fields_of)


def columns(image: Image) -> list[StepColumns]:
    """For each segment, what the cycle model needs of its columns."""
    check(image)
    result = []
    for stored in _all_columns(image):
        zeros = np.concatenate([[0], np.cumsum(stored.codes == 0)])
        ends = np.cumsum(stored.counts).reshape(stored.counts.shape)
        padding = zeros[ends] - zeros[ends - stored.counts]
        counts, starts, padded = (
            np.ascontiguousarray(values.T.reshape(-1, LANES, image.params.pes))
            for values in (stored.counts, stored.starts % LANES, padding)
        )
        result.append(
            StepColumns(counts.astype(np.uint16), starts.astype(np.uint8), padded.astype(np.uint16), stored.packets)
        )
    return result


def _check_window(step: Step, image: Image, name: str) -> None:
    address, inside = window_addresses(step)
    last = int(address[inside].max(initial=-1)) + step.vectors - 1
    room = whole_lines(image) * image.params.groups
    if inside.any() and last >= room:
        raise ImageError(f"{name}: a window reads activation vector {last}; its frame has {room}")


def _all_columns(image: Image) -> Iterator[_Columns]:
    """The columns of each descriptor in turn, from the memories as they are when it is computed."""
    entries, pointers = image.entries, image.pointers
    refilled = Refilled(image) if len(image.tiles) else None
    for step in (step for steps in image.steps for step in steps):
        packets: list[int] = []
        if refilled is not None and step.refill:
            packets = refilled.fill(step.buffer).packets
            entries, pointers = refilled.entries, refilled.pointers
        yield _columns(entries, pointers, step, image.params, packets)


def _columns(
    entries: NDArray[np.uint8], pointers: NDArray[np.uint8], step: Step, params: Params, packets: list[int]
) -> _Columns:
    blocks = pointers[:, step.pointers : step.pointers + step.pointer_blocks]
    values = _unpack(pointer_block(params), blocks)
    lengths = np.stack([values[f"lengths.{lane}"] for lane in range(LANES)], axis=-1)
    starts = values["base"][..., np.newaxis] + np.cumsum(lengths, axis=-1) - lengths
    counts = lengths.reshape(params.pes, -1)
    starts = starts.reshape(params.pes, -1)
    # Entry addresses of all columns, as one long list over the weight memories of all PEs.
    capacity = entries.shape[1] * LANES
    first = (starts + np.arange(params.pes)[:, np.newaxis] * capacity).reshape(-1)
    sizes = counts.reshape(-1)
    if int(sizes.sum()) > params.pes * capacity:
        raise ImageError("pointer blocks lead to more entries than there are")
    addresses = np.arange(int(sizes.sum())) + np.repeat(first - (np.cumsum(sizes) - sizes), sizes)
    # Eight entries fill a word to the last bit, so words side by side are one stream of entries.
    bits = addresses * params.entry_bits
    stream = np.concatenate([entries.reshape(-1), np.zeros(2, np.uint8)])
    at = bits >> 3
    window = stream[at].astype(np.uint32)
    window |= stream[at + 1].astype(np.uint32) << 8
    window |= stream[at + 2].astype(np.uint32) << 16
    window >>= (bits & 7).astype(np.uint32)
    places = {name: (begin, width) for name, begin, width in fields(entry(params))}
    found, indices = (
        (window >> places[name][0] & ((1 << places[name][1]) - 1)).astype(np.uint8) for name in ("code", "index")
    )
    return _Columns(starts, counts, found, indices, packets)


def _unpack(layout: data.Layout, words: NDArray[np.uint8]) -> Words:
    """Leaf → values, of words (…, bytes), bit by bit."""
    bits = np.unpackbits(words, axis=-1, bitorder="little")
    return {
        name: bits[..., first : first + width].astype(np.int64) @ (1 << np.arange(width, dtype=np.int64))
        for name, first, width in fields(layout)
    }


def _weight(stored: _Columns, step: Step, term_of: Int, image: Image, name: str, codes: bool) -> scipy.sparse.csr_array:
    """Weights (terms, columns) of one descriptor; padding contributes nothing."""
    params = image.params
    sizes = stored.counts.reshape(-1)
    ends = np.cumsum(sizes)
    # An entry stands `index` rows behind the place after the one before; a column begins at row 0.
    steps = np.concatenate([[0], np.cumsum(stored.indices.astype(np.int64) + 1)])
    row = steps[1:] - 1 - np.repeat(steps[ends - sizes], sizes)
    pe, column = np.divmod(np.repeat(np.arange(sizes.size), sizes), stored.counts.shape[1])
    if row.size and int(row.max()) >= params.rows:
        raise ImageError(f"{name}: an entry stands in row {int(row.max())} of a PE; expected less than {params.rows}")
    real = stored.codes != 0
    if step.maximum and not real.all():
        raise ImageError(f"{name}: padding in a layer of maxima, where weights are not looked at; expected none")
    pe, column, row = pe[real], column[real], row[real]
    term = term_of[pe * params.rows + row]
    if (term < 0).any():
        wrong = int(np.argmax(term < 0))
        raise ImageError(f"{name}: an entry stands in row {int(row[wrong])} of PE {int(pe[wrong])}; no output reads it")
    book = np.arange(1 << params.code_bits) if codes else image.codebooks[step.codebook].astype(np.int64)
    values, width = book[stored.codes[real]], stored.counts.shape[1]
    if step.uniform:  # all positions have the weights of the first one
        positions = np.arange(step.positions)[:, np.newaxis]
        column = (positions * width + column).reshape(-1)
        values, term, width = np.tile(values, step.positions), np.tile(term, step.positions), step.positions * width
    shape = (int(term_of.max(initial=-1)) + 1, width)
    return scipy.sparse.coo_array((values, (term, column)), shape=shape).tocsr()


def _outputs(image: Image, step: Step, maximum: bool, name: str) -> tuple[Outputs, Int]:
    """The outputs of a tile, and (pes * rows,) accumulator → term, or -1.

    A term is a sum of accumulators (of a row that is split) as long as these are sums.
    """
    params = image.params
    words = _unpack(output_word(params), image.table[:, step.outputs : step.outputs + step.words])
    if words["flush"].shape[1] != step.words or not step.words:
        raise ImageError(f"{name}: output words {step.outputs} to {step.outputs + step.words} are not all there")
    start, add = words["join"] == Join.START.value, words["join"] == Join.ADD.value
    last, flush = words["last"] == 1, words["flush"] == 1
    if not start[:, 0].all():
        raise ImageError(f"{name}: the first output of a group has no beginning")
    if (flush != flush[0]).any():
        raise ImageError(f"{name}: the groups do not write their outputs together")
    if (words["pe"] >= params.group).any() or (words["slot"] >= params.rows).any():
        raise ImageError(f"{name}: an output reads an accumulator that is not there")
    lines = int(flush[0].sum())
    line = np.cumsum(flush, axis=1) - flush
    group = np.broadcast_to(np.arange(params.groups)[:, np.newaxis], start.shape)
    before = np.concatenate([np.zeros((params.groups, 1), np.bool_), ~start[:, :-1] & ~add[:, :-1]], axis=1)
    begins = ~add | (add & (before | maximum))

    # From here on all groups one behind the other: each begins with a START.
    start, begins, last, add = (values.reshape(-1) for values in (start, begins, last, add))
    total = np.cumsum(start) - 1
    if (last & ~np.append(start[1:], True)).any():
        raise ImageError(f"{name}: an output goes on after its end")
    ends = np.flatnonzero(last)
    if (line.reshape(-1)[ends] >= lines).any():
        raise ImageError(f"{name}: an output is never written")
    output_of = np.full(int(total[-1]) + 1, -1, np.int64)
    output_of[total[ends]] = np.arange(len(ends))
    firsts = np.flatnonzero(begins & (output_of[total] >= 0))  # words at which a term of an output begins
    number = np.cumsum(begins) - np.repeat(np.cumsum(begins)[start], np.bincount(total))  # terms before, in the output
    firsts = firsts[np.lexsort((output_of[total[firsts]], number[firsts]))]
    row = np.full(len(start), -1, np.int64)
    row[firsts] = np.arange(len(firsts))
    row = np.where(output_of[total] >= 0, row[np.maximum.accumulate(np.where(begins, np.arange(len(row)), 0))], -1)

    bias = np.where(add.reshape(words["bias"].shape), 0, words["bias"]).reshape(-1)
    bias = bias << (64 - params.acc_bits) >> (64 - params.acc_bits)
    rounds = []
    for n in range(1, int(number[firsts].max(initial=0)) + 1):
        mine = firsts[number[firsts] == n]
        rounds.append(Round(row[mine], output_of[total[mine]], bias[mine], ~add[mine]))
    place = (line * params.groups + group) * LANES + words["lane"]
    place = place.reshape(-1)[ends]
    if len(np.unique(place)) != len(place):
        raise ImageError(f"{name}: two outputs go to one place")
    begun = firsts[: len(ends)]
    outputs = Outputs(
        bias[begun], words["shift"].reshape(-1)[ends], tuple(rounds), place, lines, params.groups, step.low, step.high,
        words["function"].reshape(-1)[ends], _functions(image, step, FUNCTIONS),
    )  # fmt: skip
    return outputs, _readers(params, words, row)


def _readers(params: Params, words: Words, row: Int) -> Int:
    """(pes * rows,) accumulator → term that it belongs to. The first word that reads an accumulator clears it."""
    pe = np.arange(params.groups)[:, np.newaxis] * params.group + words["pe"]
    accumulator, first = np.unique((pe * params.rows + words["slot"]).reshape(-1), return_index=True)
    term_of = np.full(params.pes * params.rows, -1, np.int64)
    term_of[accumulator] = row[first]
    return term_of
