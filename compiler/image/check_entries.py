"""What must hold for pointers and entries: they lead out of no memory, and to accumulators that are read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.image.check_outputs import read_accumulators
from compiler.image.image import Image
from compiler.image.refilled import Refilled, pointer_fields
from hw.layouts import entry, fields
from hw.params import LANES, Params

__all__ = ["check_entries"]

Int = NDArray[np.int64]
Bool = NDArray[np.bool_]


def _require(good: bool, message: str) -> None:
    if not good:
        raise ImageError(message)


def check_entries(image: Image) -> None:
    """Check pointer blocks and entries of every segment, on chip and streamed."""
    params = image.params
    _check_pointers(image)
    streamed = any(step.refill for steps in image.steps for step in steps)
    memories = Refilled(image) if streamed else None
    _require(streamed or not len(image.tiles), "it has tiles that no descriptor uses")
    for layer, steps, read in zip(image.layers, image.steps, read_accumulators(image), strict=True):
        stored = 0
        for step in steps:
            entries, pointers, spans = image.entries, image.pointers, None
            if step.refill:
                assert memories is not None
                try:
                    spans = memories.fill(step.buffer).words
                except ValueError as e:
                    raise ImageError(f"the refill stream is damaged: {e}") from None
                entries, pointers = memories.entries, memories.pointers
            blocks = pointers[:, step.pointers : step.pointers + step.pointer_blocks]
            base, lengths = pointer_fields(blocks, params)
            if spans is not None:
                _check_range(base, lengths, spans, params)
            stored += int(lengths.sum())
            _check_rows(entries, base, lengths, read, bool(step.maximum), params, layer.name)
        _require(stored == layer.entries, f"{layer.name}: {stored} entries are pointed to, it states {layer.entries}")
    _require(memories is None or memories.done, "the refill stream goes on after the last tile")


def _check_pointers(image: Image) -> None:
    """Every column that stays on chip lies within the entries, and none overlaps another."""
    base, lengths = pointer_fields(image.pointers, image.params)
    totals = lengths.sum(axis=2)
    expected = np.cumsum(totals, axis=1) - totals
    good = np.array_equal(base, expected) and int(totals.sum(axis=1).max()) <= image.entries.shape[1] * LANES
    _require(good, "a pointer block leads out of the entries or into those of another")
    _require(bool((lengths <= image.params.rows).all()), "a column has more entries than a PE has accumulators")


def _check_range(base: Int, lengths: Int, spans: Int, params: Params) -> None:
    _require(bool((lengths <= params.rows).all()), "a column has more entries than a PE has accumulators")
    ends = base + lengths.sum(axis=2)
    low, high = spans[:, :1] * LANES, spans[:, 1:] * LANES
    good = bool(((base >= low) & (ends <= high) | (lengths.sum(axis=2) == 0)).all())
    _require(good, "a pointer block of a tile leads out of the words that came with it")


def _check_rows(
    entries: NDArray[np.uint8], base: Int, lengths: Int, read: Bool, maximum: bool, params: Params, name: str
) -> None:
    """Every entry stands at an accumulator that is read; those of padding at any, but there are none for maxima."""
    places = {field: (first, width) for field, first, width in fields(entry(params))}
    starts = base[:, :, np.newaxis] + np.cumsum(lengths, axis=2) - lengths
    for pe in range(params.pes):
        sizes = lengths[pe].reshape(-1)
        total = int(sizes.sum())
        if not total:
            continue
        # Eight entries fill a word to the last bit, so words side by side are one stream of entries.
        ends = np.cumsum(sizes)
        at = np.arange(total) + np.repeat(starts[pe].reshape(-1) - (ends - sizes), sizes)
        bits = at * params.entry_bits
        stream = np.concatenate([entries[pe].reshape(-1), np.zeros(2, np.uint8)])
        window = stream[bits >> 3].astype(np.uint32) | stream[(bits >> 3) + 1].astype(np.uint32) << 8
        window |= stream[(bits >> 3) + 2].astype(np.uint32) << 16
        window >>= (bits & 7).astype(np.uint32)
        code, index = (window >> first & ((1 << width) - 1) for first, width in (places["code"], places["index"]))
        steps = np.concatenate([[0], np.cumsum(index.astype(np.int64) + 1)])
        row = steps[1:] - 1 - np.repeat(steps[ends - sizes], sizes)
        last = int(row.max())
        _require(last < params.rows, f"{name}: an entry stands in row {last} of a PE; expected less than {params.rows}")
        real = code != 0
        _require(not maximum or bool(real.all()), f"{name}: a layer of maxima has padding entries")
        _require(bool(read[pe][row[real]].all()), f"{name}: an entry stands at an accumulator that no word reads")
