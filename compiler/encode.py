"""Rows to PEs, columns to entries: the compressed form of each layer, still in plain arrays.

Sparsity is stored column by column and PE by PE with relative indices. Positions, columns and padding are defined
in docs/numerics.md.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from compiler.ir import QuantizedGraph
from hw.params import LANES, Params

__all__ = ["EncodedLayer", "deal_rows", "encode"]

Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EncodedLayer:
    """One layer, dealt to the PEs and compressed.

    Attributes
    ----------
    row_order : int32 (slots * pes,), position (slot * pes + pe) → neuron, or -1 for a hole.
    columns : columns that carry activations, holes of the layer before included.
    counts : int64 (pes, columns padded to a multiple of eight), entries of each column, padding entries included.
    codes, indices : uint8 (entries,), all PEs one after the other, each column-major.
    nonzeros, padding : entries of either kind.
    """

    row_order: NDArray[np.int32]
    columns: int
    counts: Int
    codes: NDArray[np.uint8]
    indices: NDArray[np.uint8]
    nonzeros: int
    padding: int


def encode(graph: QuantizedGraph) -> tuple[EncodedLayer, ...]:
    """Compress each layer for ``graph.params``.

    Source: EIE (Han et al., ISCA 2016), section III: relative indices in compressed sparse columns, interleaved rows.
    """
    encoded: list[EncodedLayer] = []
    for layer in graph.layers:
        sources = encoded[-1].row_order if encoded else np.arange(layer.codes.shape[1], dtype=np.int32)
        encoded.append(_encode_layer(layer.codes, sources, graph.params))
    return tuple(encoded)


def deal_rows(nonzeros: Int, params: Params) -> NDArray[np.int32]:
    """Row order of a layer: position → neuron, -1 for a hole.

    Interleaved, neuron n stands at position n. Balanced, rows go by falling nonzeros to the PE with the
    least work that has a slot left (LPT); within a PE neurons ascend, so that neighbours share activation lines.
    Row fragments (one row split over several PEs) would extend this: one neuron would stand at several positions.

    Parameters
    ----------
    nonzeros : (out,), entries of each row.
    """
    rows = len(nonzeros)
    slots = params.slots(rows)
    order = np.full(slots * params.pes, -1, np.int32)
    if not params.balanced:
        order[:rows] = np.arange(rows)
        return order
    pe_of = np.empty(rows, np.int64)
    used = [0] * params.pes
    free = [(0, pe) for pe in range(params.pes)]  # a heap: least work first, then the lowest number
    work = nonzeros.tolist()
    for row in np.argsort(-nonzeros, kind="stable").tolist():
        load, pe = heapq.heappop(free)
        pe_of[row] = pe
        used[pe] += 1
        if used[pe] < slots:
            heapq.heappush(free, (load + work[row], pe))
    by_pe = np.argsort(pe_of, kind="stable")
    first = np.concatenate([[0], np.cumsum(used)[:-1]])
    slot = np.arange(rows) - first[pe_of[by_pe]]
    order[slot * params.pes + pe_of[by_pe]] = by_pe
    return order


def _encode_layer(codes: NDArray[np.uint8], sources: NDArray[np.int32], params: Params) -> EncodedLayer:
    """Compress one layer whose column c carries neuron ``sources[c]`` of the layer before (-1: nothing)."""
    rows, inputs = codes.shape
    flat = np.flatnonzero(codes)
    bounds = np.searchsorted(flat, np.arange(rows + 1) * inputs)
    row_order = deal_rows(np.diff(bounds), params)
    columns = len(sources)
    padded = params.octets(columns) * LANES

    # Nonzeros in the order of positions. Seen as (slots, pes * padded), a row of this matrix is one slot of all PEs.
    begins, sizes = bounds[row_order], bounds[row_order + 1] - bounds[row_order]
    sizes[row_order < 0] = 0
    ends = np.cumsum(sizes)
    taken = np.arange(len(flat)) + np.repeat(begins - (ends - sizes), sizes)
    column_of = np.zeros(inputs, np.int64)
    column_of[sources[sources >= 0]] = np.flatnonzero(sources >= 0)
    here = flat[taken]
    offset = np.arange(len(row_order)) % params.pes * padded
    place = column_of[here - np.repeat(row_order.astype(np.int64) * inputs, sizes)] + np.repeat(offset, sizes)

    # The transposition by counting that scipy does sorts them by PE, column and slot, in linear time.
    lines = np.concatenate([[0], ends[params.pes - 1 :: params.pes]])
    by_slot = scipy.sparse.csr_array(
        (codes.reshape(-1)[here], place, lines), shape=(len(lines) - 1, params.pes * padded)
    )
    by_column = by_slot.tocsc()
    slots, starts = by_column.indices.astype(np.int64), by_column.indptr.astype(np.int64)
    return _insert_padding(row_order, columns, by_column.data, slots, starts, params)


def _insert_padding(
    row_order: NDArray[np.int32], columns: int, codes: NDArray[np.uint8], slots: Int, starts: Int, params: Params
) -> EncodedLayer:
    """Relative indices from slots; `starts` has one element per PE and column, and the end."""
    gaps = np.diff(slots, prepend=-1) - 1
    first = starts[:-1][np.diff(starts) > 0]
    gaps[first] = slots[first]
    # An entry reaches 2**index_bits slots; what is further takes padding entries, each standing at a slot of its own.
    padding = gaps >> params.index_bits
    total = len(codes) + int(padding.sum())
    at = np.arange(len(codes)) + np.cumsum(padding)
    all_codes = np.zeros(total, np.uint8)
    indices = np.full(total, (1 << params.index_bits) - 1, np.uint8)
    all_codes[at] = codes
    indices[at] = gaps & ((1 << params.index_bits) - 1)
    before = np.concatenate([[0], np.cumsum(padding)])
    counts = np.diff(starts + before[starts]).reshape(params.pes, -1)
    return EncodedLayer(row_order, columns, counts, all_codes, indices, len(codes), total - len(codes))
