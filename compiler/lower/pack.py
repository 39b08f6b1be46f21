"""Encoded layers to memory words, by the layouts of `hw.layouts`.

Everything is shifted into place with whole arrays; a test compares the words with what Amaranth's own
`Layout.const` makes of the same values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.image.image import Image, LayerInfo
from compiler.lower.chain import Chain, QuantizedLayer
from compiler.lower.encode import Block, EncodedLayer
from compiler.lower.stream import pack_stream
from compiler.lower.tiles import Plan, advice, plan_tiles
from compiler.lower.words import pack_words
from compiler.options import DEFAULT, Options
from hw.layouts import Function, Op, descriptor, pointer_block, weight_word
from hw.params import LANES, Params

__all__ = ["pack"]

Int = NDArray[np.int64]


def pack(graph: Chain, encoded: tuple[EncodedLayer, ...], options: Options = DEFAULT) -> Image:
    """Image of a network that was encoded with `options`.

    Raises
    ------
    ImageError
        Listing every memory that is too small, what is needed, what there is and the parameter to raise.
    """
    params = graph.params
    plan = plan_tiles(encoded, params)
    _check_fit(encoded, plan, params)
    tiles = Counter(tile.layer for tile in plan.tiles)
    stay = [encoded[tile.layer].blocks[tile.block] for tile in plan.tiles if not tile.refill]
    return Image(
        params=params,
        layers=tuple(_info(*pair, tiles[n]) for n, pair in enumerate(zip(graph.layers, encoded, strict=True))),
        entries=_pack_entries(stay, params),
        pointers=_pack_pointers(stay, params),
        tiles=pack_stream(encoded, plan, params),
        codebooks=np.stack([layer.codebook for layer in graph.layers]),
        bias=_arrange_bias(graph.layers, encoded, params),
        descriptors=_pack_descriptors(graph.layers, encoded, plan, params),
        row_order=np.concatenate([layer.row_order for layer in encoded]),
        options=options,
    )


def _info(layer: QuantizedLayer, encoded: EncodedLayer, descriptors: int) -> LayerInfo:
    return LayerInfo(
        name=layer.name,
        inputs=layer.codes.shape[1],
        outputs=layer.codes.shape[0],
        columns=encoded.columns,
        activation=layer.activation,
        input_exponent=layer.input_exponent,
        weight_exponent=layer.weight_exponent,
        shift=layer.shift,
        output_exponent=layer.output_exponent,
        exact=layer.exact,
        nonzeros=encoded.nonzeros,
        padding=encoded.padding,
        descriptors=descriptors,
    )


def _outputs(block: Block, params: Params) -> int:
    return params.outputs(block.assignment.slots, block.assignment.fragment_slots, block.assignment.split)


def _check_fit(encoded: tuple[EncodedLayer, ...], plan: Plan, params: Params) -> None:
    act_vectors = [params.act_vectors(layer.columns) for layer in encoded]
    lines = params.lines(encoded[0].columns) + sum(params.lines(len(layer.row_order)) for layer in encoded)
    biases = sum(_outputs(block, params) for layer in encoded for block in layer.blocks)
    needs = [
        ("activation memory", "act_lines", lines, params.act_lines),
        ("bias memory", "bias_words", biases, params.bias_words),
        ("codebook memory", "codebooks", len(encoded), params.codebooks),
        ("descriptor memory", "descriptors", len(plan.tiles) + 1, params.descriptors),
    ]
    small = [
        f"{memory} needs {needed}, the array has {available} ({advice(params, name, needed)})"
        for memory, name, needed, available in needs
        if needed > available
    ]
    if max(act_vectors) >= 1 << 16:
        small.append(
            f"a layer has {max(act_vectors)} activation vectors of inputs, a descriptor holds {(1 << 16) - 1}: "
            "split the layer"
        )
    if small:
        raise ImageError("the network does not fit: " + "; ".join(small))


def _pack_entries(blocks: Sequence[Block], params: Params) -> NDArray[np.uint8]:
    """(pes, words, bytes): the entries of the blocks that stay, one after the other, without a gap between them."""
    sizes = np.array([block.counts.sum(axis=1) for block in blocks]).reshape(len(blocks), params.pes)
    words = max(1, -(-int(sizes.sum(axis=0).max()) // LANES))
    codes, indices = (np.zeros((params.pes, words * LANES), np.uint8) for _ in range(2))
    begins = np.cumsum(sizes, axis=0) - sizes
    for block, size, begin in zip(blocks, sizes, begins, strict=True):
        ends = np.cumsum(size)
        for pe in range(params.pes):
            there, here = slice(begin[pe], begin[pe] + size[pe]), slice(ends[pe] - size[pe], ends[pe])
            codes[pe, there], indices[pe, there] = block.codes[here], block.indices[here]
    values = {}
    for lane in range(LANES):
        values[f"{lane}.code"], values[f"{lane}.index"] = codes[:, lane::LANES], indices[:, lane::LANES]
    return pack_words(weight_word(params), values)


def _pack_pointers(blocks: Sequence[Block], params: Params) -> NDArray[np.uint8]:
    """(pes, words, bytes): eight columns a word, entry addresses counted from the first block on."""
    none = np.zeros((params.pes, 0), np.int64)
    counts = np.concatenate([none, *(block.counts for block in blocks)], axis=1).reshape(params.pes, -1, LANES)
    sums = counts.sum(axis=2)
    values = {f"lengths.{lane}": counts[:, :, lane] for lane in range(LANES)}
    return pack_words(pointer_block(params), {"base": np.cumsum(sums, axis=1) - sums, **values})


def _arrange_bias(layers: tuple[QuantizedLayer, ...], encoded: tuple[EncodedLayer, ...], params: Params) -> Int:
    """(groups, words): the biases of each block's outputs, as a group puts them out; 0 for unused positions."""
    parts = []
    for layer, form in zip(layers, encoded, strict=True):
        order = form.row_order
        by_lane = np.where(order < 0, 0, layer.bias[order]).reshape(-1, params.groups, LANES)
        first = 0
        for block in form.blocks:
            outputs = _outputs(block, params)
            lines = -(-outputs // LANES)
            of_groups = by_lane[first : first + lines].transpose(1, 0, 2).reshape(params.groups, -1)
            parts.append(of_groups[:, :outputs])
            first += lines
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def _pack_descriptors(
    layers: tuple[QuantizedLayer, ...], encoded: tuple[EncodedLayer, ...], plan: Plan, params: Params
) -> NDArray[np.uint8]:
    """(tiles + 1, bytes): one MATVEC a tile, then END. Every result keeps its own lines of activation memory."""
    rows = []
    pointers = bias = source = 0
    destination = params.lines(encoded[0].columns)
    for tile, following in zip(plan.tiles, [*plan.tiles[1:], None], strict=True):
        layer, form = layers[tile.layer], encoded[tile.layer]
        block = form.blocks[tile.block]
        function = Function.RELU if layer.activation == "relu" else Function.NONE
        rows.append({
            "op": Op.MATVEC.value, "function": function.value, "codebook": tile.layer, "shift": layer.shift,
            # Further blocks of a layer begin when the bank, and with it all of the source, is written.
            "chained": tile.layer > 0 and tile.block == 0,
            "source": source + tile.first // params.groups, "destination": destination, "act_vectors": tile.act_vectors,
            "fold": form.fold, "keep": tile.keep, "refill": tile.refill, "buffer": tile.buffer,
            "slots": block.assignment.slots, "fragment_slots": block.assignment.fragment_slots,
            "fragment_log2": block.assignment.split.bit_length() - 1,
            "pointers": plan.blocks + tile.buffer * plan.buffer_blocks if tile.refill else pointers, "bias": bias,
        })  # fmt: skip
        if not tile.refill:
            pointers += block.counts.shape[1] // LANES
        if not tile.keep:
            outputs = _outputs(block, params)
            bias += outputs
            destination += -(-outputs // LANES)
        if following is not None and following.layer != tile.layer:
            source = destination - params.lines(len(form.row_order))
    matvecs = pack_words(descriptor(params), {name: [int(row[name]) for row in rows] for name in rows[0]})
    end = pack_words(descriptor(params), {"op": [Op.END.value]})
    return np.concatenate([matvecs, end])
