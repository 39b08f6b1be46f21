"""Maps off chip, whose rows pass through rings of rows in activation memory: what a layer reads and writes of them.

A map off chip is, sample after sample, row after row, the activation vectors of its rows as they would lie in
activation memory. If a layer reads several of them, a row of its ring is the row of the first, the row of the second,
and so on. What a host must send and take while a program runs follows from descriptors and maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compiler.image.image import Image

__all__ = ["Streamed", "off_chip", "ring_offsets", "rows_needed"]


@dataclass(frozen=True)
class Streamed:
    """What streams in and out while a layer runs.

    layer : its number in the image. reads : maps whose rows stream in, in the order in which they make a row of the
    ring. writes : the map that streams out, or -1.
    """

    layer: int
    reads: tuple[int, ...]
    writes: int


def off_chip(image: Image) -> list[Streamed]:
    """What a host sends and takes, in the order of the program.

    For each entry it sends, sample after sample, row after row of the maps, the row of each map in `reads`
    (``row`` vectors), and takes all ``lines * groups`` vectors of the map `writes` of each sample.
    """
    found = []
    for number, info in enumerate(image.layers):
        reads = tuple(dict.fromkeys(source for source in info.sources if image.maps[source].off_chip))
        writes = info.result if image.maps[info.result].off_chip else -1
        if reads or writes >= 0:
            found.append(Streamed(number, reads, writes))
    return found


def ring_offsets(image: Image, number: int) -> tuple[dict[int, int], int]:
    """For each map that streams into a layer, where its row begins in a row of the ring; vectors of a row of the ring.

    Parameters
    ----------
    number : of the layer.
    """
    offsets, at = {}, 0
    for source in image.layers[number].sources:
        each = image.maps[source]
        if each.off_chip and source not in offsets:
            offsets[source] = at
            at += each.row
    return offsets, at


def rows_needed(height: int, windows: Sequence[tuple[int, int, int]], step_y: int, tiles_y: int) -> int:
    """The least rows of a ring with which the rows of every window can be there at the same time.

    A row leaves the ring when the first segment of a tile that begins below it is accepted, and that one is accepted
    when all rows of its own window are there. So the first segment needs those of a tile and of the step to it; the
    others need what lies between the first row of the first segment and their last one.

    Parameters
    ----------
    height : rows of the maps. windows : for each segment its first row, rows and their distance; the one that is
        accepted first comes first. step_y, tiles_y : from one row of tiles to the next, and their number.
    """
    at = np.arange(tiles_y, dtype=np.int64) * step_y
    first = windows[0][0]
    kept = np.clip(first + at, 0, height)
    ends = [np.minimum(height, y0 + at + (wy - 1) * dy + 1) for y0, wy, dy in windows]
    before = np.concatenate([[kept[-1] - height], kept[:-1]])  # of the sample before, for the first tile
    needed = [int((ends[0] - before).max()), *(int((end - kept).max()) for end in ends[1:])]
    needed.append(height - int(kept[-1]))  # all rows are taken, whether a window reads them or not
    fields = [step_y, *(max(abs(y0), (wy - 1) * dy + 1, dy) for y0, wy, dy in windows)]  # limits of the array
    return max(1, *needed, *fields)
