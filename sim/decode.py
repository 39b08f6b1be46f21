"""From the bytes of an image back to the matrices, the way the array reads them.

Shares only `hw.params` and `hw.layouts` with the packer: descriptors lead to pointer blocks, these to entries, relative
indices to rows. An image whose entries contradict its headers is an `ImageError`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from amaranth.lib import data
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.image import Image, row_orders
from hw.layouts import Function, descriptor, entry, fields, pointer_block
from hw.params import LANES, Params
from sim.golden import Layer

__all__ = ["columns", "decode"]

Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Columns:
    """The slices of one layer: (pes, columns), and its entries in the order PE, column, place."""

    starts: Int
    counts: Int
    codes: NDArray[np.uint8]
    indices: NDArray[np.uint8]


def decode(image: Image) -> list[Layer]:
    """Golden layers of an image, weights as CSR in neuron order.

    Raises
    ------
    ImageError
        An entry stands beyond the rows of its layer, at a hole, or in a column without a neuron; a hole has a bias.
    """
    image.verify()
    params = image.params
    layers = []
    sources = np.arange(image.layers[0].columns)
    for number, order in enumerate(row_orders(image)):
        info, form = image.layers[number], _descriptor(image, number)
        stored = _columns(image, form)
        neuron, source, code = _entries(stored, order, sources, params, info.name)
        weight = scipy.sparse.csr_array(
            (image.codebooks[form["codebook"]].astype(np.int64)[code], (neuron, source)),
            shape=(info.outputs, info.inputs),
        )
        bias = _bias(image, form, order, info.outputs, info.name)
        layers.append(Layer(info.name, weight, bias, form["shift"], form["function"] == Function.RELU.value))
        sources = order.astype(np.int64)
    return layers


def columns(image: Image) -> list[tuple[NDArray[np.uint16], Int, NDArray[np.uint16]]]:
    """For each layer: counts, starts and padding, each (columns padded to a multiple of eight, pes).

    counts : entries of a column in a PE, padding entries included.
    starts : entry address of the first of them.
    padding : entries with code 0 among them.
    """
    image.verify()
    result = []
    for number in range(len(image.layers)):
        stored = _columns(image, _descriptor(image, number))
        zeros = np.concatenate([[0], np.cumsum(stored.codes == 0)])
        ends = np.cumsum(stored.counts).reshape(stored.counts.shape)
        padding = zeros[ends] - zeros[ends - stored.counts]
        result.append((
            np.ascontiguousarray(stored.counts.T.astype(np.uint16)),
            np.ascontiguousarray(stored.starts.T),
            np.ascontiguousarray(padding.T.astype(np.uint16)),
        ))  # fmt: skip
    return result


def _descriptor(image: Image, number: int) -> dict[str, int]:
    word = int.from_bytes(image.descriptors[number].tobytes(), "little")
    return {name: (word >> first) % (1 << width) for name, first, width in fields(descriptor(image.params))}


def _columns(image: Image, form: dict[str, int]) -> _Columns:
    params = image.params
    blocks = image.pointers[:, form["pointers"] : form["pointers"] + form["octets"]]
    values = _unpack(pointer_block(params), blocks)
    lengths = np.stack([values[f"lengths.{lane}"] for lane in range(LANES)], axis=-1)
    starts = values["base"][..., np.newaxis] + np.cumsum(lengths, axis=-1) - lengths
    counts = lengths.reshape(params.pes, -1)
    starts = starts.reshape(params.pes, -1)
    # Entry addresses of all columns, as one long list over the weight memories of all PEs.
    capacity = image.entries.shape[1] * LANES
    first = (starts + np.arange(params.pes)[:, np.newaxis] * capacity).reshape(-1)
    sizes = counts.reshape(-1)
    if int(sizes.sum()) > params.pes * capacity:
        raise ImageError("pointer blocks lead to more entries than there are")
    addresses = np.arange(int(sizes.sum())) + np.repeat(first - (np.cumsum(sizes) - sizes), sizes)
    # Eight entries fill a word to the last bit, so words side by side are one stream of entries.
    bits = addresses * params.entry_bits
    stream = np.concatenate([image.entries.reshape(-1), np.zeros(2, np.uint8)])
    at = bits >> 3
    window = stream[at].astype(np.uint32)
    window |= stream[at + 1].astype(np.uint32) << 8
    window |= stream[at + 2].astype(np.uint32) << 16
    window >>= (bits & 7).astype(np.uint32)
    places = {name: (begin, width) for name, begin, width in fields(entry(params))}
    codes, indices = (
        (window >> places[name][0] & ((1 << places[name][1]) - 1)).astype(np.uint8) for name in ("code", "index")
    )
    return _Columns(starts, counts, codes, indices)


def _unpack(layout: data.Layout, words: NDArray[np.uint8]) -> dict[str, Int]:
    """Leaf → values, of words (…, bytes), bit by bit."""
    bits = np.unpackbits(words, axis=-1, bitorder="little")
    return {
        name: bits[..., first : first + width].astype(np.int64) @ (1 << np.arange(width, dtype=np.int64))
        for name, first, width in fields(layout)
    }


def _entries(
    stored: _Columns, order: NDArray[np.int32], sources: Int, params: Params, name: str
) -> tuple[Int, Int, NDArray[np.uint8]]:
    """Neuron, source neuron and code of each entry that is not padding."""
    sizes = stored.counts.reshape(-1)
    ends = np.cumsum(sizes)
    # An entry stands `index` rows behind the place after the one before; a column begins at row 0.
    steps = np.concatenate([[0], np.cumsum(stored.indices.astype(np.int64) + 1)])
    slot = steps[1:] - 1 - np.repeat(steps[ends - sizes], sizes)
    pe, column = np.divmod(np.repeat(np.arange(sizes.size), sizes), stored.counts.shape[1])
    slots = len(order) // params.pes
    if slot.size and int(slot.max()) >= slots:
        raise ImageError(f"{name}: an entry stands in row {int(slot.max())} of a PE; expected less than {slots}")
    real = stored.codes != 0
    pe, column, slot = pe[real], column[real], slot[real]
    if column.size and int(column.max()) >= len(sources):
        raise ImageError(f"{name}: an entry stands in column {int(column.max())}; expected less than {len(sources)}")
    neuron, source = order[slot * params.pes + pe].astype(np.int64), sources[column]
    if (neuron < 0).any() or (source < 0).any():
        raise ImageError(f"{name}: an entry stands at a position that no neuron has")
    return neuron, source, stored.codes[real]


def _bias(image: Image, form: dict[str, int], order: NDArray[np.int32], outputs: int, name: str) -> Int:
    params = image.params
    position = np.arange(len(order))
    slot, pe = position // params.pes, position % params.pes
    group, member = pe // params.group, pe % params.group
    stored = image.bias[group, form["bias"] + slot * params.group + member]
    if stored[order < 0].any():
        raise ImageError(f"{name}: a position that no neuron has, has a bias")
    bias = np.zeros(outputs, np.int64)
    bias[order[order >= 0]] = stored[order >= 0]
    return bias
