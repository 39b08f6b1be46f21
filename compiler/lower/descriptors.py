"""Descriptors: one for each segment of a layer, or for each streamed range of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compiler.image.steps import SIGNED
from compiler.lower.encode import EncodedLayer, row_vectors
from compiler.lower.stream import Buffers, Range
from compiler.lower.words import pack_words
from hw.layouts import Op, descriptor, fields
from hw.params import LANES, Params

if TYPE_CHECKING:
    from compiler.lower.pack import Encoded

__all__ = ["Places", "pack_descriptors"]


@dataclass(frozen=True)
class Places:
    """Where things lie.

    Attributes
    ----------
    bases : first line of each map. frame : lines of all.
    books : for each layer of the program, the codebook of each segment.
    buffers : of streamed weights.
    """

    bases: tuple[int, ...]
    frame: int
    books: tuple[tuple[int, ...], ...]
    buffers: Buffers


def pack_descriptors(
    encoded: Encoded, ranges: Sequence[Sequence[Range]], places: Places, params: Params
) -> tuple[NDArray[np.uint8], list[int]]:
    """(descriptors, bytes), END last, and how many each layer has. `ranges`: what each layer streams."""
    rows: list[dict[str, int]] = []
    counts = []
    pointers = outputs = streamed = 0
    written = -1  # map that the layer before writes
    for layer, found in zip(encoded.layers, ranges, strict=True):
        of = encoded.program.layers[layer.number]
        common = {"outputs": outputs, **_layer_fields(layer, encoded, places, params)}
        outputs += layer.outputs.words
        own: list[dict[str, int]] = []
        for number, segment in enumerate(of.segments):
            each = {
                "codebook": places.books[layer.number][number], "chained": int(segment.source == written),
                "dense": int(of.maximum), "maximum": int(of.maximum), **common,
            }  # fmt: skip
            if layer.number in encoded.streamed:
                for part in (part for part in found if part.number == number):
                    own.append({**each, **_range_fields(part, segment.source, streamed % 2, places, params)})
                    streamed += 1
            else:
                own.append({**each, **_window_fields(layer, number, encoded, places, params), "pointers": pointers})
                pointers += layer.segments[number].counts.shape[1] // LANES
        own[0]["first"] = own[-1]["last"] = 1
        rows += own
        counts.append(len(own))
        written = of.result
    rows.append({"op": Op.END.value})
    return _pack(rows, params), counts


def _layer_fields(layer: EncodedLayer, encoded: Encoded, places: Places, params: Params) -> dict[str, int]:
    of, cut = encoded.program.layers[layer.number], layer.cut
    placement = encoded.placements[of.result]
    return {
        "op": Op.SEGMENT.value,
        "tiles_y": cut.tiles_y, "tiles_x": cut.tiles_x,
        "destination": places.bases[of.result] + layer.block[0] // params.groups,
        "row_lines": row_vectors(cut, layer.block, params) // params.groups,
        "row_pitch": placement.row_lines, "tile_lines": placement.row_lines * cut.fy,
        "column_lines": cut.fx * cut.pitch // params.groups,
        "words": layer.outputs.words, "frame": places.frame, "low": of.low, "high": of.high,
    }  # fmt: skip


def _window_fields(
    layer: EncodedLayer, number: int, encoded: Encoded, places: Places, params: Params
) -> dict[str, int]:
    segment, seen = encoded.program.layers[layer.number].segments[number], layer.segments[number].window
    source = encoded.placements[segment.source]
    row = source.row_lines * params.groups  # vectors from row to row
    return {
        # Of the first position of the first window, inside the map or not: the array wraps addresses.
        "source": (
            places.bases[segment.source] * params.groups + segment.origin[0] * row + segment.origin[1] * source.pitch
        ) % (1 << 24),
        "vectors": source.vectors,
        "wy": seen.wy, "wx": seen.wx, "dy": seen.dy, "dx": seen.dx,
        "height": source.form.height, "width": source.form.width,
        "y0": segment.origin[0], "x0": segment.origin[1], "step_y": seen.step_y, "step_x": seen.step_x,
        "position_pitch": seen.dx * source.pitch, "window_pitch": seen.dy * row,
        "tile_pitch_x": seen.step_x * source.pitch, "tile_pitch_y": seen.step_y * row,
    }  # fmt: skip


def _range_fields(part: Range, source: int, buffer: int, places: Places, params: Params) -> dict[str, int]:
    """A range of vectors is a map of one pixel with a window of one position."""
    return {
        "source": places.bases[source] * params.groups + part.source, "vectors": part.count,
        "wy": 1, "wx": 1, "dy": 1, "dx": 1, "height": 1, "width": 1, "step_y": 1, "step_x": 1,
        "refill": 1, "buffer": buffer, "pointers": places.buffers.blocks + buffer * places.buffers.buffer_blocks,
    }  # fmt: skip


def _pack(rows: Sequence[Mapping[str, int]], params: Params) -> NDArray[np.uint8]:
    layout = descriptor(params)
    widths = {name: width for name, _, width in fields(layout)}
    names = {name for row in rows for name in row}
    values = {name: np.array([row.get(name, 0) for row in rows], np.int64) for name in names}
    # Addresses wrap, as those of the array do.
    for name in names & {*SIGNED, "position_pitch", "window_pitch", "tile_pitch_x", "tile_pitch_y"}:
        values[name] &= (1 << widths[name]) - 1
    return pack_words(layout, values)
