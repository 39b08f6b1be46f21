"""Weights that are streamed: ranges of a layer's vectors, and the refill stream as the port of the array takes it.

The weight and the pointer memory hold, from the bottom up, what stays, and two buffers for ranges: while one is worked
on, the other is filled. For each range and PE the stream has one packet of weight words and one of pointer blocks: a
header (`hw.layouts.refill_header`), then the words, one a beat, in its low bits. The last packet of a range is marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.lower.encode import EncodedSegment
from compiler.lower.layout import Placement
from compiler.lower.program import Segment
from compiler.lower.words import pack_words
from hw.layouts import REFILL_BITS, Memory, pointer_block, refill_header, weight_word
from hw.params import LANES, Params

__all__ = ["BEAT_BYTES", "Buffers", "Range", "cut_ranges", "pack_ranges"]

BEAT_BYTES = REFILL_BITS // 8
_MOST_VECTORS = (1 << 16) - 1

Beats = NDArray[np.uint8]
Int = NDArray[np.int64]


@dataclass(frozen=True)
class Buffers:
    """Where the buffers begin, and how large each of the two is, in words of either memory."""

    words: int
    blocks: int
    buffer_words: int
    buffer_blocks: int


@dataclass(frozen=True, eq=False)
class Range:
    """Vectors of one segment that are streamed together.

    Attributes
    ----------
    segment : its entries. number : of the segment in its layer.
    source : first vector, from the map's first one. first : the same among the vectors of the segment. count : vectors.
    """

    segment: EncodedSegment
    number: int
    source: int
    first: int
    count: int

    def slices(self) -> list[slice]:
        """For each PE, where its entries of the range stand among those of the segment."""
        of_pe = self.segment.counts.sum(axis=1)
        first, end = self.first * LANES, (self.first + self.count) * LANES
        begins = np.cumsum(of_pe) - of_pe + self.segment.counts[:, :first].sum(axis=1)
        sizes = self.segment.counts[:, first:end].sum(axis=1)
        return [slice(int(begins[pe]), int(begins[pe] + sizes[pe])) for pe in range(len(begins))]


def cut_ranges(
    segment: Segment, form: EncodedSegment, number: int, placement: Placement, buffers: Buffers, params: Params
) -> list[Range]:
    """The ranges of a segment of a layer of one tile, each as long as a buffer and the memory's layout allow.

    A segment whose window lies wholly outside its map has one range, of a vector without entries.
    """
    runs: list[list[int]] = []  # first vector in the map, first in the segment, count
    seen, begin = form.window, 0
    for plane, first_of, vectors in form.spans:
        for position in range(seen.positions):
            i, j = divmod(position, seen.wx)
            y, x = segment.origin[0] + (seen.top + i) * seen.dy, segment.origin[1] + (seen.left + j) * seen.dx
            if not (0 <= y < placement.form.height and 0 <= x < placement.form.width):
                continue  # zeros add nothing
            at = plane * placement.plane_lines * params.groups + y * placement.row + x * placement.pitch + first_of
            first = begin + (0 if form.uniform else position * vectors)
            if runs and runs[-1][0] + runs[-1][2] == at and runs[-1][1] + runs[-1][2] == first:
                runs[-1][2] += vectors
            else:
                runs.append([at, first, vectors])
        begin += vectors * (1 if form.uniform else seen.positions)
    if not runs:
        none = np.zeros((params.pes, LANES), np.int64)
        empty = replace(form, counts=none, codes=form.codes[:0], indices=form.indices[:0])
        return [Range(empty, number, 0, 0, 1)]
    loads = form.counts.reshape(params.pes, -1, LANES).sum(axis=2)
    ends = np.concatenate([np.zeros((params.pes, 1), np.int64), np.cumsum(loads, axis=1)], axis=1)
    ranges = []
    for at, first, count in runs:
        done = 0
        while done < count:
            begin = first + done
            most = min(count - done, buffers.buffer_blocks, _MOST_VECTORS)
            if not most:
                raise ImageError(
                    "the network does not fit, even streamed: the pointer memory has no block left for a buffer: "
                    "raise pointer_blocks"
                )
            sums = (ends[:, begin + 1 : begin + most + 1] - ends[:, begin : begin + 1]).max(axis=0)
            fits = int(np.searchsorted(sums, buffers.buffer_words * LANES, side="right"))
            if not fits:
                raise ImageError(
                    f"the network does not fit, even streamed: a vector needs {-(-int(sums[0]) // LANES)} words of a "
                    f"buffer, there are {buffers.buffer_words}: raise weight_words"
                )
            ranges.append(Range(form, number, at + done, begin, fits))
            done += fits
    return ranges


def pack_ranges(ranges: Sequence[Range], buffers: Buffers, params: Params) -> Beats:
    """uint8 (beats, 16): what the array takes for one sample, buffers in turn; empty if nothing is streamed."""
    beats = [np.zeros((0, BEAT_BYTES), np.uint8)]
    for number, each in enumerate(ranges):
        beats += _range(each, number % 2, buffers, params)
    return np.concatenate(beats)


def _range(each: Range, buffer: int, buffers: Buffers, params: Params) -> list[Beats]:
    form = each.segment
    counts = form.counts[:, each.first * LANES : (each.first + each.count) * LANES]
    word_base = buffers.words + buffer * buffers.buffer_words
    block_base = buffers.blocks + buffer * buffers.buffer_blocks
    slices = each.slices()
    sums = counts.reshape(params.pes, -1, LANES).sum(axis=2)
    lengths = {f"lengths.{lane}": counts[:, lane::LANES] for lane in range(LANES)}
    bases = word_base * LANES + np.cumsum(sums, axis=1) - sums
    pointers = pack_words(pointer_block(params), {"base": bases, **lengths})
    beats = []
    for pe in range(params.pes):
        words = _words(form.codes[slices[pe]], form.indices[slices[pe]], params)
        last = pe == params.pes - 1
        if len(words):
            beats += _packet(Memory.WEIGHTS, pe, word_base, words, buffer, False, params)
        beats += _packet(Memory.POINTERS, pe, block_base, pointers[pe], buffer, last, params)
    return beats


def _words(codes: NDArray[np.uint8], indices: NDArray[np.uint8], params: Params) -> Beats:
    """Weight words of successive entries."""
    fill = -len(codes) % LANES
    values = {}
    for name, field in (("code", codes), ("index", indices)):
        padded = np.pad(field, (0, fill))
        values.update({f"{lane}.{name}": padded[lane::LANES] for lane in range(LANES)})
    return pack_words(weight_word(params), values)


def _packet(
    memory: Memory, pe: int, address: int, words: Beats, buffer: int, last: bool, params: Params
) -> list[Beats]:
    header = {
        "memory": memory.value, "unit": pe, "address": address, "words": len(words), "buffer": buffer, "last": last,
    }  # fmt: skip
    body = np.zeros((len(words), BEAT_BYTES), np.uint8)
    body[:, : words.shape[1]] = words
    return [pack_words(refill_header(params), {name: [int(value)] for name, value in header.items()}), body]
