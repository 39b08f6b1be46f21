"""From the bytes of an image back to the matrices, the way the array reads them.

Shares only `hw.params` and `hw.layouts` with the packer: descriptors lead to pointer blocks, these to entries, relative
indices to rows. Tiles are read from the memories as the refill stream leaves them. An image whose entries
contradict its headers is an `ImageError`.
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
from compiler.image.image import Image, row_orders
from compiler.image.refilled import Refilled
from compiler.image.steps import Step
from hw.layouts import Function, entry, fields, pointer_block
from hw.params import LANES, Params
from sim.golden import Layer

__all__ = ["StepColumns", "codes", "columns", "decode"]

Int = NDArray[np.int64]


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
    """What the cycle model needs of one descriptor's columns.

    counts : uint16 (columns padded to whole pointer blocks, pes), entries, padding entries included.
    starts : uint8, place of the first of them in its weight word.
    padding : uint16, entries with code 0 among them.
    packets : words of each packet of the refill stream that brings them; empty if they stay on chip.
    """

    counts: NDArray[np.uint16]
    starts: NDArray[np.uint8]
    padding: NDArray[np.uint16]
    packets: list[int]


def decode(image: Image) -> list[Layer]:
    """Golden layers of an image, weights as CSR in neuron order.

    Raises
    ------
    ImageError
        An entry stands beyond the rows of its layer, at an unused position, or in a column without a neuron; an
        unused position has a bias.
    """
    layers: list[Layer] = []
    for info, steps, matrix in zip(image.layers, image.steps, codes(image), strict=True):
        book = image.codebooks[steps[0].codebook].astype(np.int64)
        weight = scipy.sparse.csr_array((book[matrix.data], matrix.indices, matrix.indptr), shape=matrix.shape)
        bias = np.zeros(info.outputs, np.int64)
        orders = _block_orders(image)[len(layers)]
        for step, order in zip([step for step in steps if not step.keep], orders, strict=True):
            _read_bias(image, step, order, bias, info.name)
        layers.append(Layer(info.name, weight, bias, steps[0].shift, steps[0].function == Function.RELU.value))
    return layers


def codes(image: Image) -> list[scipy.sparse.csr_array]:
    """For each layer, the codes of its weights as uint8 CSR (out, in) in neuron order, padding left out.

    Raises
    ------
    ImageError
        As `decode`.
    """
    check(image)
    params = image.params
    stored = _all_columns(image)
    matrices = []
    sources: Int = np.arange(image.layers[0].columns)
    for info, steps, orders in zip(image.layers, image.steps, _block_orders(image), strict=True):
        parts = []
        first = block = 0
        for step in steps:
            parts.append(_entries(next(stored), step, first, orders[block], sources, params, info.name))
            first = first + step.act_vectors * LANES if step.keep else 0
            block += not step.keep
        neuron, source, code = (np.concatenate(values) for values in zip(*parts, strict=True))
        matrices.append(scipy.sparse.coo_array((code, (neuron, source)), shape=(info.outputs, info.inputs)).tocsr())
        sources = np.concatenate(orders).astype(np.int64)
    return matrices


def columns(image: Image) -> list[StepColumns]:
    """For each descriptor but END, what the cycle model needs of its columns."""
    check(image)
    result = []
    for stored in _all_columns(image):
        zeros = np.concatenate([[0], np.cumsum(stored.codes == 0)])
        ends = np.cumsum(stored.counts).reshape(stored.counts.shape)
        padding = zeros[ends] - zeros[ends - stored.counts]
        result.append(
            StepColumns(
                np.ascontiguousarray(stored.counts.T.astype(np.uint16)),
                np.ascontiguousarray((stored.starts.T % LANES).astype(np.uint8)),
                np.ascontiguousarray(padding.T.astype(np.uint16)),
                stored.packets,
            )
        )
    return result


def _block_orders(image: Image) -> list[list[NDArray[np.int32]]]:
    """For each layer and block of its rows, position → neuron."""
    params = image.params
    result = []
    for steps, order in zip(image.steps, row_orders(image), strict=True):
        sizes = [params.positions(step.outputs(params)) for step in steps if not step.keep]
        result.append(np.split(order, np.cumsum(sizes)[:-1]))
    return result


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
    blocks = pointers[:, step.pointers : step.pointers + step.pointer_blocks(params)]
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


def _unpack(layout: data.Layout, words: NDArray[np.uint8]) -> dict[str, Int]:
    """Leaf → values, of words (…, bytes), bit by bit."""
    bits = np.unpackbits(words, axis=-1, bitorder="little")
    return {
        name: bits[..., first : first + width].astype(np.int64) @ (1 << np.arange(width, dtype=np.int64))
        for name, first, width in fields(layout)
    }


def _entries(
    stored: _Columns, step: Step, first: int, order: NDArray[np.int32], sources: Int, params: Params, name: str
) -> tuple[Int, Int, NDArray[np.uint8]]:
    """Neuron, source neuron and code of each entry that is not padding.

    first : activation at which the descriptor's columns begin. order : position → neuron of its block of rows.
    """
    sizes = stored.counts.reshape(-1)
    ends = np.cumsum(sizes)
    # An entry stands `index` rows behind the place after the one before; a column begins at row 0.
    steps = np.concatenate([[0], np.cumsum(stored.indices.astype(np.int64) + 1)])
    row = steps[1:] - 1 - np.repeat(steps[ends - sizes], sizes)
    pe, column = np.divmod(np.repeat(np.arange(sizes.size), sizes), stored.counts.shape[1])
    if row.size and int(row.max()) >= step.rows:
        raise ImageError(f"{name}: an entry stands in row {int(row.max())} of a PE; expected less than {step.rows}")
    real = stored.codes != 0
    pe, column, row = pe[real], column[real], row[real]
    if step.fold:  # two activations a column; the lowest bit of a virtual row says which
        column, row = column * 2 + (row & 1), row >> 1
    column += first
    if column.size and int(column.max()) >= len(sources):
        raise ImageError(f"{name}: an entry stands in column {int(column.max())}; expected less than {len(sources)}")
    neuron, source = order[_position(row, pe, step, params)].astype(np.int64), sources[column]
    if (neuron < 0).any() or (source < 0).any():
        raise ImageError(f"{name}: an entry stands at a position that no neuron has")
    return neuron, source, stored.codes[real]


def _position(slot: Int, pe: Int, step: Step, params: Params) -> Int:
    """Where the result goes that accumulator `slot` of `pe` is a part of."""
    group, member = pe // params.group, pe % params.group
    whole = step.slots - step.fragment_slots
    split = whole * params.group + (slot - whole) * (params.group // step.split) + member // step.split
    output = np.where(slot < whole, slot * params.group + member, split)
    position: Int = output // LANES * params.line + group * LANES + output % LANES
    return position


def _read_bias(image: Image, step: Step, order: NDArray[np.int32], bias: Int, name: str) -> None:
    """Biases of the neurons of one block of rows, into `bias`."""
    params = image.params
    line, lane = np.divmod(np.arange(len(order)), params.line)
    output = line * LANES + lane % LANES
    there = output < step.outputs(params)
    stored = np.zeros(len(order), np.int64)
    stored[there] = image.bias[(lane // LANES)[there], step.bias + output[there]]
    if stored[order < 0].any():
        raise ImageError(f"{name}: a position that no neuron has, has a bias")
    bias[order[order >= 0]] = stored[order >= 0]
