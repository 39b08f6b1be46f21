"""Descriptors: one for each strip of a segment, or for each streamed range of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.image.steps import SIGNED
from compiler.lower.encode import Encoded, EncodedLayer
from compiler.lower.stream import Buffers, Range
from compiler.lower.strips import Strip, strips
from compiler.lower.tile_rows import row_vectors
from compiler.lower.tiles import densities
from compiler.lower.words import pack_words
from hw.layouts import Op, descriptor, fields
from hw.params import LANES, Params

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
) -> tuple[NDArray[np.uint8], list[tuple[int, ...]]]:
    """(descriptors, bytes), END last, and for each layer the segments that its own are of.

    ranges : what each layer streams.
    """
    rows: list[dict[str, int]] = []
    parts = []
    pointers = outputs = streamed = 0
    density = densities(encoded.program)
    written = -1  # map that the layer before writes
    for layer, found in zip(encoded.layers, ranges, strict=True):
        of = encoded.program.layers[layer.number]
        common = {"outputs": outputs, **_layer_fields(layer, encoded, places, params)}
        outputs += layer.outputs.words
        own: list[dict[str, int]] = []
        each = [
            {
                "codebook": places.books[layer.number][number], "chained": int(segment.source == written),
                "dense": int(of.maximum), "maximum": int(of.maximum), **common,
            }
            for number, segment in enumerate(of.segments)
        ]  # fmt: skip
        if layer.number in encoded.streamed:
            for part in found:
                source = of.segments[part.number].source
                own.append({**each[part.number], **_range_fields(part, source, streamed % 2, places, params)})
                streamed += 1
            parts.append(tuple(part.number for part in found))
        else:
            sizes = np.array([segment.counts.shape[1] // LANES for segment in layer.segments])
            begins = pointers + np.cumsum(sizes) - sizes
            cut = strips(layer, [density[segment.source] for segment in of.segments])
            for strip in cut:
                fields_of = _strip_fields(layer, strip, encoded, places, params)
                own.append({**each[strip.segment], **fields_of, "pointers": int(begins[strip.segment]) + strip.vectors})
            pointers += int(sizes.sum())
            parts.append(tuple(strip.segment for strip in cut))
        own[0]["first"] = own[-1]["last"] = 1
        rows += own
        written = of.result
    rows.append({"op": Op.END.value})
    return _pack(rows, params), parts


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


def _strip_fields(
    layer: EncodedLayer, strip: Strip, encoded: Encoded, places: Places, params: Params
) -> dict[str, int]:
    segment = encoded.program.layers[layer.number].segments[strip.segment]
    seen = layer.segments[strip.segment].window
    source = encoded.placements[segment.source]
    row = source.row_lines * params.groups  # vectors from row to row
    y0, x0 = segment.origin[0] + strip.first * seen.dy, segment.origin[1]
    return {
        "source": places.bases[segment.source] * params.groups + y0 * row + x0 * source.pitch,
        "vectors": source.vectors,
        "wy": strip.rows, "wx": seen.wx, "dy": seen.dy, "dx": seen.dx,
        "height": source.form.height, "width": source.form.width,
        "y0": y0, "x0": x0, "step_y": seen.step_y, "step_x": seen.step_x,
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
    for name in names & {*SIGNED, "source", "position_pitch", "window_pitch", "tile_pitch_x", "tile_pitch_y"}:
        values[name] &= (1 << widths[name]) - 1
    return pack_words(layout, values)
