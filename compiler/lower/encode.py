"""Rows to PEs, columns to entries: the compressed form of each layer, still in plain arrays.

Sparsity is stored column by column and PE by PE with relative indices. Positions, columns, folds, fragments and padding
are defined in docs/numerics.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from compiler.lower.chain import Chain
from compiler.lower.rows import RowAssignment, assign_rows
from compiler.options import DEFAULT, Options
from hw.params import LANES, Params

__all__ = ["Block", "EncodedLayer", "encode"]

Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of a layer that stand in the accumulators at the same time, assigned to PEs and compressed.

    Attributes
    ----------
    rows : the neurons ``rows[0] … rows[1] - 1`` of the layer.
    assignment : where each of them stands.
    counts : int64 (pes, columns padded to whole pointer blocks), entries of each column, padding entries included.
    codes, indices : uint8 (entries,), all PEs one after the other, each column-major.
    """

    rows: tuple[int, int]
    assignment: RowAssignment
    counts: Int
    codes: NDArray[np.uint8]
    indices: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class EncodedLayer:
    """One compressed layer.

    Attributes
    ----------
    row_order : int32 (positions,), position → neuron, or -1 for an unused position; block after block.
    columns : activations that the layer reads, unused positions of the layer before included.
    fold : two activations make one column of `counts`.
    blocks : one, or more if the layer has more rows than the array has accumulators.
    nonzeros, padding : entries of either kind.
    """

    row_order: NDArray[np.int32]
    columns: int
    fold: bool
    blocks: tuple[Block, ...]
    nonzeros: int
    padding: int


def encode(graph: Chain, options: Options = DEFAULT) -> tuple[EncodedLayer, ...]:
    """Compress each layer for ``graph.params``.

    Source: EIE (Han et al., ISCA 2016), section III: relative indices in compressed sparse columns, interleaved rows.
    """
    encoded: list[EncodedLayer] = []
    for layer in graph.layers:
        sources = encoded[-1].row_order if encoded else np.arange(layer.codes.shape[1], dtype=np.int32)
        encoded.append(_encode_layer(layer.codes, sources, layer.fold and graph.params.fold > 1, graph.params, options))
    return tuple(encoded)


def _encode_layer(
    codes: NDArray[np.uint8], sources: NDArray[np.int32], fold: bool, params: Params, options: Options
) -> EncodedLayer:
    """Compress one layer whose column c carries neuron ``sources[c]`` of the layer before (-1: nothing)."""
    rows, inputs = codes.shape
    flat = np.flatnonzero(codes)
    bounds = np.searchsorted(flat, np.arange(rows + 1) * inputs)
    column_of = np.zeros(inputs, np.int64)
    column_of[sources[sources >= 0]] = np.flatnonzero(sources >= 0)
    blocks, orders = [], []
    parts = -(-rows // (params.rows * params.pes))
    for part in np.array_split(np.arange(rows), parts):
        first, end = int(part[0]), int(part[-1]) + 1
        block = _encode_block(codes, flat, bounds, (first, end), column_of, len(sources), fold, params, options)
        order = block.assignment.positions(params)
        blocks.append(block)
        orders.append(np.where(order < 0, -1, order + first).astype(np.int32))
    entries = sum(len(block.codes) for block in blocks)
    return EncodedLayer(np.concatenate(orders), len(sources), fold, tuple(blocks), len(flat), entries - len(flat))


def _encode_block(
    codes: NDArray[np.uint8],
    flat: Int,
    bounds: Int,
    rows: tuple[int, int],
    column_of: Int,
    columns: int,
    fold: bool,
    params: Params,
    options: Options,
) -> Block:
    """Compress some rows. `flat`, `bounds`: where the nonzeros of `codes` are, and those of each row among them."""
    inputs = codes.shape[1]
    begins, sizes = bounds[rows[0] : rows[1]], np.diff(bounds[rows[0] : rows[1] + 1])
    assignment = assign_rows(sizes, params, options)
    padded = params.column_blocks(params.act_vectors(columns), fold) * LANES

    # Nonzeros in the order of slots: seen as (slots, pes * padded), a row of this matrix is one slot of all PEs.
    by_slot = np.argsort(assignment.slot, kind="stable")
    begins, sizes = begins[by_slot], sizes[by_slot]
    ends = np.cumsum(sizes)
    here = flat[np.arange(int(ends[-1])) + np.repeat(begins - (ends - sizes), sizes)]
    column = column_of[here - np.repeat((by_slot + rows[0]) * inputs, sizes)]
    pe = np.repeat(assignment.pe[by_slot], sizes)
    if assignment.fragments:  # in the last slots, so the last of the nonzeros
        offsets = np.concatenate([assignment.fragments[row] for row in by_slot.tolist() if row in assignment.fragments])
        pe[len(pe) - len(offsets) :] += offsets
    values = codes.reshape(-1)[here].astype(np.uint16)
    if fold:
        values |= ((column & 1) << 8).astype(np.uint16)
        column >>= 1

    # The transposition by counting that scipy does sorts them by PE, column and slot, in linear time.
    lines = np.concatenate([[0], ends])[np.searchsorted(assignment.slot[by_slot], np.arange(assignment.slots + 1))]
    by_column = scipy.sparse.csr_array(
        (values, pe * padded + column, lines), shape=(assignment.slots, params.pes * padded)
    ).tocsc()
    values, starts = by_column.data, by_column.indptr.astype(np.int64)
    virtual = by_column.indices.astype(np.int64)
    if fold:
        values, virtual = _sort_pairs(values, virtual, starts)
    found = values.astype(np.uint8)
    if not options.skip_empty:
        found, virtual, starts = _fill_columns(found, virtual, starts, columns, padded)
    return Block(rows, assignment, *_insert_padding(found, virtual, starts, params))


def _sort_pairs(values: NDArray[np.uint16], slots: Int, starts: Int) -> tuple[NDArray[np.uint16], Int]:
    """Values and virtual rows, in the order of virtual rows.

    A slot occurs at most twice in a column, once for each activation, but in whatever order the rows held them.
    """
    second = values >> 8
    twice = (slots[1:] == slots[:-1]) & (second[1:] < second[:-1])
    first_of_column = np.zeros(len(slots) + 1, np.bool_)
    first_of_column[starts] = True
    late = np.flatnonzero(twice & ~first_of_column[1:-1])
    swapped = values.copy()
    swapped[late], swapped[late + 1] = values[late + 1], values[late]
    return swapped, slots * 2 + (swapped >> 8)


def _fill_columns(
    codes: NDArray[np.uint8], slots: Int, starts: Int, columns: int, padded: int
) -> tuple[NDArray[np.uint8], Int, Int]:
    """A padding entry in slot 0 of every column that has no entry in a PE: there it takes a cycle."""
    empty = (np.diff(starts) == 0) & (np.arange(len(starts) - 1) % padded < columns)
    at = starts[:-1][empty]
    return np.insert(codes, at, 0), np.insert(slots, at, 0), starts + np.concatenate([[0], np.cumsum(empty)])


def _insert_padding(
    codes: NDArray[np.uint8], slots: Int, starts: Int, params: Params
) -> tuple[Int, NDArray[np.uint8], NDArray[np.uint8]]:
    """Counts, codes and relative indices; `starts` has one element per PE and column, and the end."""
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
    return np.diff(starts + before[starts]).reshape(params.pes, -1), all_codes, indices
