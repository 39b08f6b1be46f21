"""Descriptors: one for each strip of a segment or streamed range of one, for each operation and end of a loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.image.steps import SIGNED
from compiler.lower.encode import Encoded, EncodedLayer
from compiler.lower.program import Function, Operand, Operation, Program
from compiler.lower.stream import Buffers, Range
from compiler.lower.strips import Strip, strips
from compiler.lower.tile_rows import row_vectors, tile_lines
from compiler.lower.tiles import densities
from compiler.lower.words import pack_words
from hw.layouts import Op, descriptor, elementwise, fields, loop
from hw.params import LANES, Params

__all__ = ["Places", "descriptor_rows", "pack_rows"]


@dataclass(frozen=True)
class Places:
    """Where things lie.

    Attributes
    ----------
    bases : first line of each map. frame : lines of all.
    books : for each layer of the program, the codebook of each segment.
    buffers : of streamed weights. tables : number of each function table.
    """

    bases: tuple[int, ...]
    frame: int
    books: tuple[tuple[int, ...], ...]
    buffers: Buffers
    tables: Mapping[tuple[int, ...], int]


def descriptor_rows(
    encoded: Encoded, ranges: Sequence[Sequence[Range]], places: Places, params: Params
) -> tuple[list[dict[str, int]], list[tuple[int, ...]]]:
    """The fields of all descriptors, END last, and for each layer and operation the segments that its own are of.

    Which segments wait for what (`chained`, `barrier`) is not in them. `ranges`: what each layer streams.
    """
    program = encoded.program
    rows: list[dict[str, int]] = []
    parts: list[tuple[int, ...]] = []
    pointers = outputs = streamed = 0
    density = densities(program)
    own_layers: dict[int, list[int]] = {}
    for place, layer in enumerate(encoded.layers):
        own_layers.setdefault(layer.number, []).append(place)
    begins, ends = ({getattr(loop, name): loop for loop in program.loops} for name in ("first", "last"))
    head = 0
    for at, item in enumerate(program.order or range(len(program.layers))):
        if at in begins:
            head = len(rows)
        if item < 0:
            rows.append(_operation_fields(program.operations[-1 - item], encoded, places, params))
            parts.append((0,))
        for place in own_layers.get(item, []):
            layer = encoded.layers[place]
            of = program.layers[item]
            common = {"outputs": outputs, **_layer_fields(layer, encoded, places, params)}
            common |= _ring_fields(item, encoded, params)
            outputs += layer.outputs.words
            each = [{"codebook": book, **common} for book in places.books[item]]
            own: list[dict[str, int]] = []
            if item in encoded.streamed:
                for part in ranges[place]:
                    source = of.segments[part.number].source
                    own.append({**each[part.number], **_range_fields(part, source, streamed % 2, places, params)})
                    streamed += 1
                parts.append(tuple(part.number for part in ranges[place]))
            else:
                counts = np.array([segment.counts.shape[1] // LANES for segment in layer.segments])
                firsts = pointers + np.cumsum(counts) - counts
                cut = strips(layer, [density[segment.source] for segment in of.segments], _late(layer, program))
                cut = _ring_first(cut, layer, encoded)
                for strip in cut:
                    window = _strip_fields(layer, strip, encoded, places, params)
                    first = int(firsts[strip.segment]) + strip.vectors
                    own.append({**each[strip.segment], **window, "pointers": first})
                pointers += int(counts.sum())
                parts.append(tuple(strip.segment for strip in cut))
            own[0]["first"] = own[-1]["last"] = 1
            rows += own
        if at in ends:
            pitch = -program.pitch if ends[at].reverse else program.pitch
            rows.append({"op": Op.LOOP.value, "first": head, "count": ends[at].count, "pitch": pitch})
    rows.append({"op": Op.END.value})
    return rows, parts


def _ring_first(cut: list[Strip], layer: EncodedLayer, encoded: Encoded) -> list[Strip]:
    """The strips with the one in front that begins highest in the ring: what is above it leaves the ring."""
    segments = encoded.program.layers[layer.number].segments
    rows = {}
    for place, strip in enumerate(cut):
        seen = layer.segments[strip.segment].window
        if segments[strip.segment].source in encoded.spill.maps:
            rows[place] = segments[strip.segment].origin[0] + (seen.top + strip.first) * seen.dy
    if not rows:
        return cut
    first = min(rows, key=lambda place: (rows[place], place))
    return [cut[first], *cut[:first], *cut[first + 1 :]]


def _ring_fields(number: int, encoded: Encoded, params: Params) -> dict[str, int]:
    """What all segments of a layer say of its rings; nothing if all of its maps are on chip."""
    ring = encoded.spill.rings.get(number)
    if ring is None:
        return {}
    found = {}
    if ring.rows:
        of = encoded.program.layers[number]
        source = next(segment.source for segment in of.segments if segment.source in encoded.spill.maps)
        skip = encoded.program.maps[source].height % ring.rows
        row = ring.row_lines * params.groups
        found = {
            "stream_in": 1, "ring_base": 0, "ring_rows": ring.rows, "ring_row": row, "ring_size": ring.rows * row,
            "ring_skip": skip, "ring_skip_size": skip * row,
        }  # fmt: skip
    if ring.out_rows:
        found |= {"stream_out": 1, "out_rows": ring.out_rows, "destination": ring.in_lines}
    return found


def _late(layer: EncodedLayer, program: Program) -> set[int]:
    """Segments whose scan waits, if it has one tile, for an operation; all of a loop, which are in order already."""
    operated = {operation.result.map for operation in program.operations}
    return {
        n for n, segment in enumerate(program.layers[layer.number].segments)
        if layer.number in program.looped or (layer.cut.tiles == 1 and segment.source in operated)
    }  # fmt: skip


def _function_fields(functions: Sequence[Function], places: Places) -> dict[str, int]:
    found = {"functions": int(bool(functions))}
    for n, each in enumerate(functions, 1):
        found |= {f"table_{n}": places.tables[each.table], f"left_{n}": each.left, f"right_{n}": each.right}
    return found


def _operation_fields(operation: Operation, encoded: Encoded, places: Places, params: Params) -> dict[str, int]:
    def line(each: Operand) -> int:
        placement = encoded.placements[each.map]
        lines = placement.vectors // placement.form.parts // params.groups
        return places.bases[each.map] + each.part * lines + each.pixel * placement.pitch // params.groups

    reads, result = operation.reads, operation.result
    placement = encoded.placements[result.map]
    form = placement.form
    one = result.moves or form.height == form.width == 1
    whole = placement.lines if form.layout < 0 else form.height * placement.row // params.groups
    return {
        "op": Op.ELEMENTWISE.value,
        **{f"has_{name}": int(name in reads) for name in "bce"},
        **{name: line(each) for name, each in reads.items()},
        **{f"moves_{name}": int(each.moves) for name, each in reads.items()},
        "result": line(result), "moves_result": int(result.moves),
        "lines": placement.vectors // params.groups if one and form.layout >= 0 else whole, "frame": places.frame,
        "scale_a": operation.scale_a, "scale_c": operation.scale_c, "offset": operation.offset,
        "shift": operation.shift, "low": operation.low, "high": operation.high,
        **_function_fields([] if operation.function is None else [operation.function], places),
    }  # fmt: skip


def _layer_fields(layer: EncodedLayer, encoded: Encoded, places: Places, params: Params) -> dict[str, int]:
    of, cut = encoded.program.layers[layer.number], layer.cut
    placement = encoded.placements[of.result]
    if cut.planes > 1:  # a tile is one row
        lines = tile_lines(cut, layer.block, params)
        first = cut.blocks.index(layer.block) * placement.plane_lines
        rows = dict.fromkeys(("row_lines", "row_pitch", "tile_lines", "column_lines"), lines)
    else:
        first = layer.block[0] // params.groups + of.pixel * placement.pitch // params.groups
        row_lines = placement.row // params.groups
        rows = {
            "row_lines": row_vectors(cut, layer.block, params) // params.groups,
            "row_pitch": row_lines, "tile_lines": row_lines * cut.fy,
            "column_lines": cut.fx * cut.pitch // params.groups,
        }  # fmt: skip
    return {
        "op": Op.SEGMENT.value,
        "tiles_y": cut.tiles_y, "tiles_x": cut.tiles_x,
        "destination": places.bases[of.result] + first,
        "moves_result": int(of.moves), "dense": int(of.maximum), "maximum": int(of.maximum),
        **_function_fields(of.functions, places),
        **rows, "words": layer.outputs.words, "frame": places.frame, "low": of.low, "high": of.high,
    }  # fmt: skip


def _strip_fields(
    layer: EncodedLayer, strip: Strip, encoded: Encoded, places: Places, params: Params
) -> dict[str, int]:
    segment = encoded.program.layers[layer.number].segments[strip.segment]
    seen, span = layer.segments[strip.segment].window, layer.segments[strip.segment].spans[strip.span]
    source = encoded.placements[segment.source]
    y0, x0 = segment.origin[0] + (seen.top + strip.first) * seen.dy, segment.origin[1] + seen.left * seen.dx
    ring = segment.source in encoded.spill.maps
    if ring:
        rings = encoded.spill.rings[layer.number]
        row = rings.row_lines * params.groups
        first = _before(segment.source, layer, encoded) + y0 % rings.rows * row
    else:
        row = source.row
        first = (places.bases[segment.source] + span.plane * source.plane_lines) * params.groups + y0 * row
    return {
        "ring": int(ring), "reach": ((strip.rows - 1) * seen.dy + 1) * ring,
        "source": first + span.first + x0 * source.pitch,
        "vectors": span.vectors, "moves_source": int(segment.moves),
        "uniform": int(layer.segments[strip.segment].uniform),
        "wy": strip.rows, "wx": seen.wx, "dy": seen.dy, "dx": seen.dx,
        "height": source.form.height, "width": source.form.width,
        "y0": y0, "x0": x0, "step_y": seen.step_y, "step_x": seen.step_x,
        "position_pitch": seen.dx * source.pitch, "window_pitch": seen.dy * row,
        "tile_pitch_x": seen.step_x * source.pitch, "tile_pitch_y": seen.step_y * row,
    }  # fmt: skip


def _before(source: int, layer: EncodedLayer, encoded: Encoded) -> int:
    """Vectors of a row of the ring in front of the row of a map."""
    vectors = 0
    for other in dict.fromkeys(segment.source for segment in encoded.program.layers[layer.number].segments):
        if other == source:
            break
        vectors += encoded.placements[other].row if other in encoded.spill.maps else 0
    return vectors


def _range_fields(part: Range, source: int, buffer: int, places: Places, params: Params) -> dict[str, int]:
    """A range of vectors is a map of one pixel with a window of one position."""
    return {
        "source": places.bases[source] * params.groups + part.source, "vectors": part.count,
        "wy": 1, "wx": 1, "dy": 1, "dx": 1, "height": 1, "width": 1, "step_y": 1, "step_x": 1,
        "refill": 1, "buffer": buffer, "pointers": places.buffers.blocks + buffer * places.buffers.buffer_blocks,
    }  # fmt: skip


def pack_rows(rows: Sequence[Mapping[str, int]], params: Params) -> NDArray[np.uint8]:
    """Words (descriptors, bytes)."""
    words = np.zeros((len(rows), -(-descriptor(params).size // 8)), np.uint8)
    layouts = {Op.ELEMENTWISE.value: elementwise(params), Op.LOOP.value: loop(params)}
    for n, row in enumerate(rows):
        layout = layouts.get(row["op"], descriptor(params))
        widths = {name: width for name, _, width in fields(layout)}
        # Addresses wrap, as those of the array do.
        wraps = {*SIGNED, "source", "position_pitch", "window_pitch", "tile_pitch_x", "tile_pitch_y"}
        values = {name: value & (1 << widths[name]) - 1 if name in wraps else value for name, value in row.items()}
        words[n] = pack_words(layout, values)
    return words
