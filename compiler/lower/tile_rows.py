"""The rows of a tile: which pixel and channel each is, and where its result goes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.lower.layout import Tiling
from compiler.lower.program import Pair, ProgramLayer
from hw.params import LANES, Params

__all__ = ["Rows", "row_vectors", "tile_lines", "tile_rows"]

Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a tile: pixels in their order, of each the pixels that it is the largest of, of each the channels.

    Attributes
    ----------
    channel : (rows,). y, x : (rows,) pixel of the sums, within the tile.
    vector : (rows,) vector of the result that it goes to: pixel row of the tile times vectors of a row, and in the row.
    lane : (rows,) lane of that vector. sub : (rows,) which of the pixels that its result is the largest of.
    group : (rows,) write-back group.
    """

    channel: Int
    y: Int
    x: Int
    vector: Int
    lane: Int
    sub: Int
    group: Int


def tile_rows(layer: ProgramLayer, cut: Tiling, block: Pair, order: NDArray[np.int32], params: Params) -> Rows:
    """The rows of a tile for one block of the result's vectors."""
    lanes = np.arange(block[0] * LANES, block[1] * LANES)
    lanes = lanes[order[lanes] >= 0]
    shape = (cut.fy, cut.fx, *layer.pool, len(lanes))
    ty, tx, qy, qx, place = (each.reshape(-1) for each in np.indices(shape))
    lane = lanes[place]
    in_row = tx * cut.pitch + lane // LANES - block[0]
    vector = ty * row_vectors(cut, block, params) + in_row
    return Rows(
        channel=order[lane].astype(np.int64),
        y=ty * layer.pool_stride[0] + qy,
        x=tx * layer.pool_stride[1] + qx,
        vector=vector,
        lane=lane % LANES,
        sub=qy * layer.pool[1] + qx,
        group=vector % params.groups,
    )


def row_vectors(cut: Tiling, block: Pair, params: Params) -> int:
    """Vectors that a block writes for a row of a tile: whole lines, but in a plane."""
    if len(cut.blocks) == 1 or cut.planes > 1:
        return cut.fx * cut.pitch
    return -(-(block[1] - block[0]) // params.groups) * params.groups


def tile_lines(cut: Tiling, block: Pair, params: Params) -> int:
    """Lines that a block writes for a tile."""
    return -(-row_vectors(cut, block, params) * cut.fy // params.groups)
