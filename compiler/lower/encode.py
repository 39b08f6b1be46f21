"""The weights of a tile as entries of each PE, still in plain arrays.

The rows of a tile are its pixels' channels, the columns of a segment the lanes of the activation vectors of its window.
Each pixel has its own copy of the weights, at the columns that it reads. Sparsity is stored column by column and PE by
PE with relative indices; docs/numerics.md, section 6.

Columns follow the order of the scan: the spans of a segment, of each the positions of the window, of each the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from compiler.lower.layout import Placement, Tiling, Window, shared, window
from compiler.lower.outputs import OutputWords, output_words
from compiler.lower.program import Pair, Program, ProgramLayer, Segment
from compiler.lower.rows import Assignment, assign_rows
from compiler.lower.spill import RESIDENT, Spill
from compiler.lower.tile_rows import Rows, tile_lines, tile_rows
from compiler.lower.tiles import Plan
from compiler.options import Options
from hw.params import LANES, Params

__all__ = ["Encoded", "EncodedLayer", "EncodedSegment", "Span", "encode_layer"]

Int = NDArray[np.int64]


class Span(NamedTuple):
    """Vectors of a pixel that are scanned together: `vectors` from `first` on in a plane of the source."""

    plane: int
    first: int
    vectors: int


@dataclass(frozen=True, eq=False)
class EncodedSegment:
    """The columns of one segment.

    Attributes
    ----------
    window, spans : what is scanned: positions, and the vectors of each.
    counts : int64 (pes, columns), entries of each column, padding entries included; eight columns a vector.
    uniform : the columns are those of one position, which all positions share.
    codes, indices : uint8 (entries,), all PEs one after the other, each column-major.
    """

    window: Window
    spans: tuple[Span, ...]
    counts: Int
    codes: NDArray[np.uint8]
    indices: NDArray[np.uint8]
    uniform: bool = False


@dataclass(frozen=True, eq=False)
class EncodedLayer:
    """One layer of the hardware: a layer of the program, or a block of it.

    Attributes
    ----------
    number : of the layer in the program. block : vectors of a pixel of the result that it makes.
    cut : its tiling.
    segments : one a segment of the layer.
    outputs : its words of the output table.
    nonzeros : weights that are not zero, each counted once. entries, padding : stored ones, and those with code 0.
    """

    number: int
    block: Pair
    cut: Tiling
    segments: tuple[EncodedSegment, ...]
    outputs: OutputWords
    nonzeros: int
    entries: int
    padding: int


@dataclass(frozen=True, eq=False)
class Encoded:
    """A program in the form that is packed.

    Attributes
    ----------
    program : what is computed. placements : one a map.
    layers : layers of the hardware, in order. plan : how those of the program are cut, and which are streamed.
    spill : which maps go off chip.
    """

    program: Program
    placements: tuple[Placement, ...]
    layers: tuple[EncodedLayer, ...]
    plan: Plan
    spill: Spill = RESIDENT

    @property
    def streamed(self) -> frozenset[int]:
        """Numbers of the layers of the program whose weights are streamed."""
        return self.plan.streamed

    @property
    def resident(self) -> list[EncodedSegment]:
        """Segments whose weights stay on chip."""
        return [segment for layer in self.layers if layer.number not in self.streamed for segment in layer.segments]


def encode_layer(
    number: int,
    layer: ProgramLayer,
    cut: Tiling,
    block: Pair,
    placements: Sequence[Placement],
    params: Params,
    options: Options,
) -> EncodedLayer:
    """Compress one block of a layer. `placements`: one a map.

    Source: EIE (Han et al., ISCA 2016), section III: relative indices in compressed sparse columns, interleaved rows.

    Raises
    ------
    ImageError
        The rows do not fit the accumulators.
    """
    rows = tile_rows(layer, cut, block, placements[layer.result].order, params)
    stored = [segment.narrow if shared(segment, layer, cut) else segment for segment in layer.segments]
    entries = np.sum([segment.counts for segment in stored], axis=0)[rows.channel]
    most = min(params.rows, 1 << params.index_bits) if layer.maximum else params.rows
    output = rows.vector * LANES + rows.lane
    single = layer.maximum or options.fragments == 1
    assignment = assign_rows(
        entries, rows.group, rows.y * (1 << 16) + rows.x, output, params,
        options.replace(fragments=1) if single else options,
        hidden=cut.tiles > 1, most=most, channelwise=layer.channelwise,
        expected=None if layer.rates is None else entries * layer.rates[rows.channel],
    )  # fmt: skip
    outputs = output_words(layer, rows, assignment, tile_lines(cut, block, params), params)
    segments, first = [], np.zeros(len(layer.bias), np.int64)
    fill = not options.skip_empty and not layer.maximum
    for segment, own in zip(layer.segments, stored, strict=True):
        placement = placements[segment.source]
        seen = window(segment, layer, cut, placement.form)
        segments.append(_encode(own, seen, own is not segment, cut, rows, assignment, first, placement, fill, params))
        first = first + own.counts
    total = sum(len(segment.codes) for segment in segments)
    padding = sum(len(segment.codes) - int(np.count_nonzero(segment.codes)) for segment in segments)
    nonzeros = int(layer.work[np.unique(rows.channel)].sum())
    return EncodedLayer(number, block, cut, tuple(segments), outputs, nonzeros, total, padding)


def _spans(segment: Segment, cut: Tiling, rows: Rows, placement: Placement) -> tuple[Span, ...]:
    """The vectors that a block reads: all of them, or of a plane of the result those of its channels."""
    whole = [(n, 0, placement.plane) for n in range(placement.planes)]
    if cut.planes > 1:
        output = np.repeat(np.arange(len(segment.counts)), segment.counts)
        read = np.unique(placement.place[segment.channel[np.isin(output, rows.channel)]] // LANES)
        plane, vector = np.divmod(read, placement.plane)
        found = [(int(n), vector[plane == n]) for n in np.unique(plane)]
        whole = [(n, int(each[0]), int(each[-1] - each[0]) + 1) for n, each in found] or [(0, 0, 1)]
    return tuple(Span(*each) for each in whole)


def _encode(
    segment: Segment,
    scanned: Window,
    uniform: bool,
    cut: Tiling,
    rows: Rows,
    assignment: Assignment,
    first: Int,
    placement: Placement,
    fill: bool,
    params: Params,
) -> EncodedSegment:
    """Compress one segment. `first`: nonzeros of each output channel in the segments before.

    scanned : its window. uniform : all positions share the columns of one, and the segment has the weights of that.
    """
    seen = Window(1, 1, 1, 1, 1, 1) if uniform else scanned
    spans = _spans(segment, cut, rows, placement)
    widths = np.array([span.vectors for span in spans]) * LANES
    columns = seen.positions * int(widths.sum())
    # Column = what the nonzero adds + what the row adds, in positions, times the lanes of the span + the lane's place.
    ky, kx = np.divmod(segment.tap, segment.kernel[1])
    taps = (ky * segment.dilation[0] // seen.dy - seen.top, kx * segment.dilation[1] // seen.dx - seen.left)
    of_row = (rows.y * segment.stride[0] // seen.dy, rows.x * segment.stride[1] // seen.dx)
    base, width = _lanes(spans, widths, seen.positions, placement)

    # Rows in the order of slots, so that the entries of a column come out in that order.
    by_slot = np.argsort(assignment.slot, kind="stable")
    sizes = segment.counts[rows.channel[by_slot]]
    ends = np.cumsum(sizes)
    total = int(ends[-1])
    here = np.arange(total) + np.repeat(segment.starts[rows.channel[by_slot]] - (ends - sizes), sizes)
    unit = rows.group * params.group + assignment.pe
    pe = np.repeat(unit[by_slot], sizes)
    slot = np.repeat(assignment.slot[by_slot].astype(np.uint16), sizes)
    moved = False
    if assignment.parts:
        rank = np.empty_like(by_slot)
        rank[by_slot] = np.arange(len(by_slot))
        for row, parts in assignment.parts.items():
            end, size, begin = int(ends[rank[row]]), int(sizes[rank[row]]), int(first[rows.channel[row]])
            owners = parts.owners()[begin : begin + size]
            pe[end - size : end] = int(rows.group[row]) * params.group + np.array(parts.pe)[owners]
            slot[end - size : end] = np.array(parts.slot, np.uint16)[owners]
            moved = moved or size > 0
    codes, lane = segment.code[here], placement.place[segment.channel]
    whole = not seen.cut and len(set(widths.tolist())) == 1
    if whole:
        of_nonzero = base[lane] + (taps[0] * seen.wx + taps[1]) * width[lane]
        key = pe * columns + of_nonzero[here]
        key += np.repeat(((of_row[0] * seen.wx + of_row[1]) * int(widths[0]))[by_slot], sizes)
    else:
        at_y, at_x = (tap[here] + np.repeat(row[by_slot], sizes) for tap, row in zip(taps, of_row, strict=True))
        key = pe * columns + base[lane[here]] + (at_y * seen.wx + at_x) * width[lane[here]]
        # What meets a position that is not scanned meets zeros.
        met = (at_y >= 0) & (at_y < seen.wy) & (at_x >= 0) & (at_x < seen.wx)
        key, codes, slot = key[met], codes[met], slot[met]
    if moved:
        again = np.argsort(slot, kind="stable")
        key, codes, slot = key[again], codes[again], slot[again]

    # The transposition by counting that scipy does sorts them by PE, column and slot, in linear time.
    slots = int(assignment.slot.max()) + 1
    slots = max([slots, *(slot + 1 for parts in assignment.parts.values() for slot in parts.slot)])
    lines = np.searchsorted(slot, np.arange(slots + 1))
    by_column = scipy.sparse.csr_array((codes, key, lines), shape=(slots, params.pes * columns)).tocsc()
    found, starts, virtual = by_column.data, by_column.indptr.astype(np.int64), by_column.indices.astype(np.int64)
    if fill:
        order = (placement.order >= 0).reshape(placement.planes, placement.plane, LANES)
        used = np.concatenate([
            np.tile(order[plane, first : first + count].reshape(-1), seen.positions) for plane, first, count in spans
        ])  # fmt: skip
        found, virtual, starts = _fill_columns(found, virtual, starts, used)
    return EncodedSegment(scanned, spans, *_insert_padding(found, virtual, starts, params), uniform)


def _lanes(spans: Sequence[Span], widths: Int, positions: int, placement: Placement) -> tuple[Int, Int]:
    """For each lane of a pixel its column at the first position, and the columns from position to position."""
    base, width = np.zeros((2, placement.vectors * LANES), np.int64)
    begins = (np.cumsum(widths) - widths) * positions
    for (plane, first, count), begin in zip(spans, begins.tolist(), strict=True):
        at = (plane * placement.plane + first) * LANES
        base[at : at + count * LANES] = begin + np.arange(count * LANES)
        width[at : at + count * LANES] = count * LANES
    return base, width


def _fill_columns(
    codes: NDArray[np.uint8], slots: Int, starts: Int, used: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], Int, Int]:
    """A padding entry in slot 0 of every used column that has no entry in a PE: there it takes a cycle."""
    empty = (np.diff(starts) == 0) & np.tile(used, (len(starts) - 1) // len(used))
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
