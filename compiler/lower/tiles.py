"""What stays in the array's memories, and how the rest is cut into tiles that are streamed in.

A tile is a range of columns of one block of rows. Blocks that stay are one tile each. The weight and the pointer memory
hold, from the bottom up, what stays, and two buffers for tiles: while one is worked on, the other is filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.lower.encode import Block, EncodedLayer
from hw.params import LANES, Params, ParamsError

__all__ = ["Plan", "Tile", "advice", "plan_tiles"]

Int = NDArray[np.int64]


@dataclass(frozen=True)
class Tile:
    """Some columns of a block, from activation vector `first` on; `refill`: streamed, into `buffer`."""

    layer: int
    block: int
    first: int
    act_vectors: int
    refill: bool
    buffer: int
    keep: bool


@dataclass(frozen=True)
class Plan:
    """Tiles in the order in which they are computed, and where the buffers are.

    words, blocks : words of weight memory and of pointer memory below the buffers.
    buffer_words, buffer_blocks : size of each of the two buffers (0: there are none).
    """

    tiles: tuple[Tile, ...]
    words: int
    blocks: int
    buffer_words: int
    buffer_blocks: int


def plan_tiles(encoded: Sequence[EncodedLayer], params: Params) -> Plan:
    """Keep as many blocks as possible in the memories, the smallest first, and tile the others.

    Raises
    ------
    ImageError
        The columns of one line of activations do not fit a buffer, or there is no refill port; the message says which
        memory is too small, what is needed, what there is and the parameter to raise.
    """
    blocks = [(n, b, block, layer.fold) for n, layer in enumerate(encoded) for b, block in enumerate(layer.blocks)]
    sizes = [block.counts.sum(axis=1) for _, _, block, _ in blocks]
    pointer_blocks = [block.counts.shape[1] // LANES for _, _, block, _ in blocks]
    stay = [True] * len(blocks)
    # From all of them, send away the largest until the rest fits.
    largest = sorted(range(len(blocks)), key=lambda n: int(sizes[n].max()), reverse=True)
    words, used_blocks = _used(sizes, pointer_blocks, stay)
    granules: tuple[int, int] = (0, 0)
    for n in largest:
        if words + 2 * granules[0] <= params.weight_words and used_blocks + 2 * granules[1] <= params.pointer_blocks:
            break
        stay[n] = False
        words, used_blocks = _used(sizes, pointer_blocks, stay)
        granule = _granule(blocks[n][2], blocks[n][3], params)
        granules = max(granules[0], granule[0]), max(granules[1], granule[1])
    buffer_words = (params.weight_words - words) // 2 if not all(stay) else 0
    buffer_blocks = (params.pointer_blocks - used_blocks) // 2 if not all(stay) else 0
    if not all(stay):
        _check_refill(params, sizes, pointer_blocks, granules, buffer_words, buffer_blocks)
    tiles: list[Tile] = []
    streamed = 0
    for (layer, number, block, fold), stays in zip(blocks, stay, strict=True):
        act_vectors = params.act_vectors(encoded[layer].columns)
        cuts = [(0, act_vectors)] if stays else _cut(block, fold, act_vectors, params, buffer_words, buffer_blocks)
        for first, count in cuts:
            keep = first + count < act_vectors
            tiles.append(Tile(layer, number, first, count, not stays, streamed % 2 if not stays else 0, keep))
            streamed += not stays
    return Plan(tuple(tiles), words, used_blocks, buffer_words, buffer_blocks)


def _used(sizes: list[Int], pointer_blocks: list[int], stay: list[bool]) -> tuple[int, int]:
    """Words of weight memory (an image has at least one) and of pointer memory that the blocks which stay take."""
    kept = [size for size, stays in zip(sizes, stay, strict=True) if stays]
    entries = int(np.sum(kept, axis=0).max()) if kept else 0
    return max(1, -(-entries // LANES)), sum(n for n, stays in zip(pointer_blocks, stay, strict=True) if stays)


def _step(fold: bool, params: Params) -> int:
    """Activation vectors after which a tile may begin: a line of activations, and a whole pointer block."""
    return max(params.groups, 2 if fold else 1)


def _loads(block: Block, fold: bool, params: Params) -> tuple[Int, int]:
    """(granules, pes) entries of the smallest ranges of columns, and the pointer blocks of each."""
    blocks = _step(fold, params) // (2 if fold else 1)
    by_block = block.counts.reshape(params.pes, -1, LANES).sum(axis=2)
    padded = np.pad(by_block, ((0, 0), (0, -by_block.shape[1] % blocks)))
    return padded.reshape(params.pes, -1, blocks).sum(axis=2).T, blocks


def _granule(block: Block, fold: bool, params: Params) -> tuple[int, int]:
    loads, blocks = _loads(block, fold, params)
    return -(-int(loads.max()) // LANES), blocks


def _cut(
    block: Block, fold: bool, act_vectors: int, params: Params, buffer_words: int, buffer_blocks: int
) -> list[tuple[int, int]]:
    """Ranges of activation vectors, each as long as a buffer allows."""
    loads, blocks = _loads(block, fold, params)
    step = _step(fold, params)
    ends = np.concatenate([np.zeros((1, params.pes), np.int64), np.cumsum(loads, axis=0)])
    cuts, first = [], 0
    while first < len(loads):
        most = min(len(loads) - first, buffer_blocks // blocks)
        fits = (ends[first + 1 : first + most + 1] - ends[first]).max(axis=1) <= buffer_words * LANES
        count = int(fits.sum())
        cuts.append((first * step, min(count * step, act_vectors - first * step)))
        first += count
    return cuts


def _check_refill(
    params: Params, sizes: list[Int], pointer_blocks: list[int], granules: tuple[int, int], words: int, blocks: int
) -> None:
    everything = -(-int(np.sum(sizes, axis=0).max()) // LANES), sum(pointer_blocks)
    needs = [
        ("weight memory", "weight_words", everything[0], params.weight_words, granules[0], words),
        ("pointer memory", "pointer_blocks", everything[1], params.pointer_blocks, granules[1], blocks),
    ]
    if not params.refill:
        small = [
            f"{memory} needs {needed}, the array has {available} ({advice(params, name, needed)})"
            for memory, name, needed, available, _, _ in needs
            if needed > available
        ]
        raise ImageError(
            "the network does not fit: " + "; ".join(small) + "; or --set refill=true, to stream it through tiles"
        )
    small = [
        f"{memory}: the columns of one line of activations need {granule} words of a buffer, there are {size} "
        f"({advice(params, name, available + 2 * (granule - size))})"
        for memory, name, _, available, granule, size in needs
        if granule > size
    ]
    if small:
        raise ImageError("the network does not fit, even in tiles: " + "; ".join(small))


def advice(params: Params, name: str, needed: int) -> str:
    """How to get a memory of `needed` words, if there is a way."""
    try:
        params.replace(**{name: needed})
    except ParamsError as e:
        return f"{e}: split the network"
    return f"--set {name}={needed}"
