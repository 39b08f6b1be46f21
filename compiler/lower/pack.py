"""Encoded layers to the memories of an image, by the layouts of `hw.layouts`.

Everything is shifted into place with whole arrays; a test compares the words with what Amaranth's own
`Layout.const` makes of the same values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.image.image import Image, LayerInfo, MapInfo
from compiler.image.order import flags
from compiler.lower.alloc import allocate, program_blocks
from compiler.lower.canonical import DENSITIES
from compiler.lower.descriptors import Places, descriptor_rows, pack_rows
from compiler.lower.encode import Encoded, EncodedLayer, EncodedSegment
from compiler.lower.layout import Placement
from compiler.lower.program import Operation, Program, touched
from compiler.lower.stream import Buffers, Range, cut_ranges, pack_ranges
from compiler.lower.tiles import advice
from compiler.lower.words import pack_words
from compiler.options import Options
from hw.layouts import output_word, pointer_block, weight_word
from hw.params import LANES, PIECES, Params

__all__ = ["pack", "sizes"]

Int = NDArray[np.int64]


def sizes(encoded: Encoded, params: Params) -> dict[str, int]:
    """Words of the memories that stay filled: weight memory (at least one), pointer memory, output table."""
    resident = encoded.resident
    entries = np.sum([segment.counts.sum(axis=1) for segment in resident], axis=0) if resident else np.zeros(1)
    return {
        "weight_words": max(1, -(-int(entries.max()) // LANES)),
        "pointer_blocks": sum(segment.counts.shape[1] for segment in resident) // LANES,
        "output_words": sum(layer.outputs.words for layer in encoded.layers),
    }


def pack(encoded: Encoded, params: Params, options: Options) -> Image:
    """Image of an encoded program.

    Raises
    ------
    ImageError
        Listing every memory that is too small, what is needed, what there is and the parameter to raise.
    """
    program = encoded.program
    used = sizes(encoded, params)
    spill = encoded.spill
    lines = [0 if n in spill.maps else placement.lines for n, placement in enumerate(encoded.placements)]
    blocks = program_blocks(program, lines, spill.keep_inputs)
    block_bases, frame = allocate(blocks.sizes, blocks.lives)
    frame = max(1, frame)
    bases = [
        -1 if n in spill.maps else spill.lines + block_bases[block] + offset
        for n, (block, offset) in enumerate(zip(blocks.of, blocks.offset, strict=True))
    ]
    buffers = Buffers(
        used["weight_words"], used["pointer_blocks"],
        (params.weight_words - used["weight_words"]) // 2, (params.pointer_blocks - used["pointer_blocks"]) // 2,
    )  # fmt: skip
    books, codebooks = _codebooks(program)
    _check_fit({**used, "act_lines": spill.lines + frame, "codebooks": len(codebooks)}, params)
    ranges = [_ranges(layer, encoded, buffers, params) for layer in encoded.layers]
    places = Places(tuple(bases), frame, tuple(books), buffers, {table: n for n, table in enumerate(program.tables)})
    rows, parts = descriptor_rows(encoded, ranges, places, params)
    _check_fit({"descriptors": len(rows)}, params)
    image = Image(
        params=params,
        layers=tuple(_infos(encoded, ranges, parts)),
        maps=tuple(_map(placement, base) for placement, base in zip(encoded.placements, bases, strict=True)),
        inputs=program.inputs,
        outputs=program.outputs,
        entries=_pack_entries(encoded.resident, params),
        pointers=_pack_pointers(encoded.resident, params),
        tiles=pack_ranges([each for found in ranges for each in found], buffers, params),
        codebooks=np.stack(codebooks),
        table=_pack_table(encoded.layers, params),
        functions=np.array(program.tables, np.int16).reshape(-1, PIECES + 1),
        descriptors=pack_rows(rows, params),
        orders=np.concatenate([placement.order for placement in encoded.placements]),
        frame=frame,
        options=options,
    )
    for name, numbers in zip(("chained", "barrier"), flags(image), strict=True):
        for number in numbers:
            rows[number][name] = 1
    return dataclasses.replace(image, descriptors=pack_rows(rows, params))


def _map(placement: Placement, base: int) -> MapInfo:
    form = placement.form
    return MapInfo(
        name=form.name, channels=form.channels, height=form.height, width=form.width, vectors=placement.vectors,
        pitch=placement.pitch, row=placement.row, base=base, lines=placement.lines, planes=placement.planes,
        exponent=form.exponent,
        density=-1 if form.density is None else round(form.density * DENSITIES), axes=form.axes,
        layout=form.layout, channel_parts=form.parts, block=form.block, at=form.at, walked=int(form.pitch > 0),
    )  # fmt: skip


def _infos(
    encoded: Encoded, ranges: Sequence[Sequence[Range]], parts: Sequence[tuple[int, ...]]
) -> Iterator[LayerInfo]:
    """Layers and operations in order; `ranges`: what each layer streams. `parts`: segments of their descriptors."""
    left = iter(parts)
    program = encoded.program
    for item in program.order or range(len(program.layers)):
        if item < 0:
            yield _operation_info(program.operations[-1 - item], next(left))
        else:
            for layer, own in zip(encoded.layers, ranges, strict=True):
                if layer.number == item:
                    yield _info(layer, own, next(left), encoded)


def _operation_info(operation: Operation, parts: tuple[int, ...]) -> LayerInfo:
    reads, made = touched(operation)
    return LayerInfo(
        name=operation.name, sources=tuple(each.map for each in reads), result=made.map, tile_y=1, tile_x=1, exact=True,
        products=0, nonzeros=0, entries=0, padding=0, parts=parts, expected=0, other=(), windows=(), pool=(1, 1, 1, 1),
    )  # fmt: skip


def _info(layer: EncodedLayer, ranges: Sequence[Range], parts: tuple[int, ...], encoded: Encoded) -> LayerInfo:
    # Of a streamed layer, positions of the window that lie beside the map are left out.
    codes = [each.segment.codes[here] for each in ranges for here in each.slices()]
    entries = sum(len(part) for part in codes) if ranges else layer.entries
    padding = sum(int((part == 0).sum()) for part in codes) if ranges else layer.padding
    of = encoded.program.layers[layer.number]
    blocks = layer.cut.blocks
    block = blocks.index(layer.block)
    other = encoded.plan.others[layer.number]
    return LayerInfo(
        name=of.name if len(blocks) == 1 else f"{of.name}#{block}",
        sources=tuple(segment.source for segment in of.segments),
        result=of.result,
        tile_y=layer.cut.fy,
        tile_x=layer.cut.fx,
        exact=of.exact,
        products=of.products if block == 0 else 0,
        nonzeros=layer.nonzeros,
        entries=entries,
        padding=padding,
        parts=parts,
        expected=round(encoded.plan.choices[layer.number].cycles) if block == 0 else 0,
        other=() if other is None or block else (other.cut.fy, other.cut.fx, round(other.cycles)),
        windows=tuple(
            number
            for segment in of.segments
            for number in (*segment.kernel, *segment.stride, *segment.dilation, *segment.origin)
        ),
        pool=(*of.pool, *of.pool_stride),
        rates=() if of.rates is None or block else tuple(of.rates.tolist()),
    )


def _codebooks(program: Program) -> tuple[list[tuple[int, ...]], list[NDArray[np.int16]]]:
    """The number of each segment's codebook, and the different ones."""
    found: dict[bytes, int] = {}
    distinct: list[NDArray[np.int16]] = []
    numbers = []
    for layer in program.layers:
        of_layer = []
        for segment in layer.segments:
            key = segment.codebook.tobytes()
            if key not in found:
                found[key] = len(distinct)
                distinct.append(segment.codebook)
            of_layer.append(found[key])
        numbers.append(tuple(of_layer))
    return numbers, distinct


def _ranges(layer: EncodedLayer, encoded: Encoded, buffers: Buffers, params: Params) -> list[Range]:
    """What is streamed of a layer; empty if it stays on chip."""
    if layer.number not in encoded.streamed:
        return []
    found: list[Range] = []
    of = encoded.program.layers[layer.number]
    for number, (segment, form) in enumerate(zip(of.segments, layer.segments, strict=True)):
        found += cut_ranges(segment, form, number, encoded.placements[segment.source], buffers, params)
    return found


def _check_fit(needs: dict[str, int], params: Params) -> None:
    names = {
        "weight_words": "weight memory", "pointer_blocks": "pointer memory", "output_words": "output table",
        "act_lines": "activation memory", "codebooks": "codebook memory", "descriptors": "descriptor memory",
    }  # fmt: skip
    small = [
        f"{names[name]} needs {needed}, the array has {getattr(params, name)} ({advice(params, name, needed)})"
        for name, needed in needs.items()
        if needed > getattr(params, name)
    ]
    if small:
        hint = "; or --set refill=true, to stream weights" if "weight_words" in needs and not params.refill else ""
        raise ImageError("the network does not fit: " + "; ".join(small) + hint)


def _pack_entries(segments: Sequence[EncodedSegment], params: Params) -> NDArray[np.uint8]:
    """(pes, words, bytes): the entries that stay, segment after segment, without a gap between them."""
    counts = np.array([segment.counts.sum(axis=1) for segment in segments]).reshape(len(segments), params.pes)
    words = max(1, -(-int(counts.sum(axis=0).max()) // LANES))
    codes, indices = (np.zeros((params.pes, words * LANES), np.uint8) for _ in range(2))
    begins = np.cumsum(counts, axis=0) - counts
    for segment, size, begin in zip(segments, counts, begins, strict=True):
        ends = np.cumsum(size)
        for pe in range(params.pes):
            there, here = slice(begin[pe], begin[pe] + size[pe]), slice(ends[pe] - size[pe], ends[pe])
            codes[pe, there], indices[pe, there] = segment.codes[here], segment.indices[here]
    values = {}
    for lane in range(LANES):
        values[f"{lane}.code"], values[f"{lane}.index"] = codes[:, lane::LANES], indices[:, lane::LANES]
    return pack_words(weight_word(params), values)


def _pack_pointers(segments: Sequence[EncodedSegment], params: Params) -> NDArray[np.uint8]:
    """(pes, words, bytes): eight columns a word, entry addresses counted from the first segment on."""
    none = np.zeros((params.pes, 0), np.int64)
    counts = np.concatenate([none, *(segment.counts for segment in segments)], axis=1).reshape(params.pes, -1, LANES)
    sums = counts.sum(axis=2)
    values = {f"lengths.{lane}": counts[:, :, lane] for lane in range(LANES)}
    return pack_words(pointer_block(params), {"base": np.cumsum(sums, axis=1) - sums, **values})


def _pack_table(layers: Sequence[EncodedLayer], params: Params) -> NDArray[np.uint8]:
    """(groups, words, bytes): the words of each layer, one after the other."""
    names = ("bias", "shift", "slot", "pe", "lane", "join", "last", "flush", "function")
    values = {name: np.concatenate([getattr(layer.outputs, name) for layer in layers], axis=1) for name in names}
    values["bias"] &= (1 << params.acc_bits) - 1
    return pack_words(output_word(params), values)
