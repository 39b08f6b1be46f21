"""The refill stream: the tiles of layers that do not fit the memories, as the port of the array takes them.

Per tile and PE one packet of weight words and one of pointer blocks: a header (`hw.layouts.refill_header`), then the
words, one a beat, in its low bits. The last packet of a tile is marked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compiler.lower.encode import EncodedLayer
from compiler.lower.tiles import Plan, Tile
from compiler.lower.words import pack_words
from hw.layouts import REFILL_BITS, Memory, pointer_block, refill_header, weight_word
from hw.params import LANES, Params

__all__ = ["BEAT_BYTES", "pack_stream"]

BEAT_BYTES = REFILL_BITS // 8

Beats = NDArray[np.uint8]


def pack_stream(encoded: Sequence[EncodedLayer], plan: Plan, params: Params) -> Beats:
    """uint8 (beats, 16): what the array takes for one vector, in order; empty if nothing is streamed."""
    beats = [np.zeros((0, BEAT_BYTES), np.uint8)]
    for tile in plan.tiles:
        if tile.refill:
            beats += _tile(encoded[tile.layer], tile, plan, params)
    return np.concatenate(beats)


def _tile(layer: EncodedLayer, tile: Tile, plan: Plan, params: Params) -> list[Beats]:
    block = layer.blocks[tile.block]
    per_block = 2 if layer.fold else 1  # activation vectors that a pointer block describes
    first = tile.first // per_block * LANES
    counts = block.counts[:, first : first + params.column_blocks(tile.act_vectors, layer.fold) * LANES]
    word_base = plan.words + tile.buffer * plan.buffer_words
    block_base = plan.blocks + tile.buffer * plan.buffer_blocks
    of_pe = block.counts.sum(axis=1)
    begins = np.cumsum(of_pe) - of_pe + block.counts[:, :first].sum(axis=1)
    sums = counts.reshape(params.pes, -1, LANES).sum(axis=2)
    lengths = {f"lengths.{lane}": counts[:, lane::LANES] for lane in range(LANES)}
    bases = word_base * LANES + np.cumsum(sums, axis=1) - sums
    pointers = pack_words(pointer_block(params), {"base": bases, **lengths})
    beats = []
    for pe in range(params.pes):
        here = slice(int(begins[pe]), int(begins[pe] + sums[pe].sum()))
        words = _words(block.codes[here], block.indices[here], params)
        last = pe == params.pes - 1
        if len(words):
            beats += _packet(Memory.WEIGHTS, pe, word_base, words, tile.buffer, False, params)
        beats += _packet(Memory.POINTERS, pe, block_base, pointers[pe], tile.buffer, last, params)
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
