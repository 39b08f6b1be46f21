"""Encoded layers to memory words, by the layouts of `hw.layouts`.

Everything is shifted into place with whole arrays; a test compares the words with what Amaranth's own
`Layout.const` makes of the same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from amaranth.lib import data
from numpy.typing import NDArray

from compiler.encode import EncodedLayer
from compiler.errors import ImageError
from compiler.image import Image, LayerInfo
from compiler.ir import QuantizedGraph, QuantizedLayer
from hw.layouts import Function, Op, descriptor, fields, pointer_block, weight_word
from hw.params import LANES, Params, ParamsError

__all__ = ["pack", "pack_words"]

Int = NDArray[np.int64]


def pack_words(layout: data.Layout, values: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Words of a layout from arrays of field values.

    Parameters
    ----------
    layout : what a word looks like.
    values : leaf name of the layout (as `hw.layouts.fields` gives it) → integers, all of one shape; absent: zero.

    Returns
    -------
    uint8 (*shape, ceil(bits / 8)), the low byte first.

    Raises
    ------
    ValueError
        A value does not fit its field, or a name is not in the layout. Silently cut bits would be a wrong image.
    """
    leaves = {name: (first, width) for name, first, width in fields(layout)}
    if unknown := set(values) - set(leaves):
        raise ValueError(f"no field {', '.join(sorted(unknown))}; expected some of {', '.join(leaves)}")
    arrays = {name: np.asarray(value, np.int64) for name, value in values.items()}
    shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
    words = np.zeros((*shape, -(-layout.size // 64)), np.uint64)
    for name, array in arrays.items():
        first, width = leaves[name]
        if array.size and (int(array.min()) < 0 or int(array.max()) >> width):
            raise ValueError(f"{name} is {int(array.min())} to {int(array.max())}; expected {width} unsigned bits")
        word, bit = divmod(first, 64)
        words[..., word] |= array.astype(np.uint64) << np.uint64(bit)
        if bit + width > 64:
            words[..., word + 1] |= array.astype(np.uint64) >> np.uint64(64 - bit)
    as_bytes: NDArray[np.uint8] = words.astype("<u8", copy=False).view(np.uint8)
    return np.ascontiguousarray(as_bytes[..., : -(-layout.size // 8)])


def pack(graph: QuantizedGraph, encoded: tuple[EncodedLayer, ...]) -> Image:
    """Image of an encoded network.

    Raises
    ------
    ImageError
        Listing every memory that is too small, what is needed, what there is and the parameter to raise.
    """
    params = graph.params
    _check_fit(graph, encoded)
    layers = tuple(_info(*pair) for pair in zip(graph.layers, encoded, strict=True))
    return Image(
        params=params,
        layers=layers,
        entries=_pack_entries(encoded, params),
        pointers=_pack_pointers(encoded, params),
        codebooks=np.stack([layer.codebook for layer in graph.layers]),
        bias=_arrange_bias(graph.layers, encoded, params),
        descriptors=_pack_descriptors(graph.layers, encoded, params),
        row_order=np.concatenate([layer.row_order for layer in encoded]),
    )


def _info(layer: QuantizedLayer, encoded: EncodedLayer) -> LayerInfo:
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
    )


def _check_fit(graph: QuantizedGraph, encoded: tuple[EncodedLayer, ...]) -> None:
    params = graph.params
    slots = [len(layer.row_order) // params.pes for layer in encoded]
    octets = [params.octets(layer.columns) for layer in encoded]
    entries = max(np.sum([layer.counts.sum(axis=1) for layer in encoded], axis=0).tolist())
    lines = params.lines(encoded[0].columns) + sum(params.lines(len(layer.row_order)) for layer in encoded)
    needs = [
        ("accumulators", "rows", max(slots), params.rows),
        ("weight memory", "weight_words", -(-entries // LANES), params.weight_words),
        ("pointer memory", "pointer_blocks", sum(octets), params.pointer_blocks),
        ("activation memory", "act_lines", lines, params.act_lines),
        ("bias memory", "bias_words", sum(slots) * params.group, params.bias_words),
        ("codebook memory", "codebooks", len(encoded), params.codebooks),
        ("descriptor memory", "descriptors", len(encoded) + 1, params.descriptors),
    ]
    small = [
        f"{memory} needs {needed}, the array has {available} ({_advice(params, name, needed)})"
        for memory, name, needed, available in needs
        if needed > available
    ]
    if max(octets) >= 1 << 16:
        small.append(f"a layer has {max(octets)} octets of inputs, a descriptor holds {(1 << 16) - 1}: split the layer")
    if small:
        raise ImageError("the network does not fit: " + "; ".join(small))


def _advice(params: Params, name: str, needed: int) -> str:
    try:
        params.replace(**{name: needed})
    except ParamsError as e:
        return f"{e}: split the network"
    return f"--set {name}={needed}"


def _pack_entries(encoded: tuple[EncodedLayer, ...], params: Params) -> NDArray[np.uint8]:
    """(pes, words, bytes): the entries of all layers, layer after layer, without a gap between layers."""
    sizes = np.array([layer.counts.sum(axis=1) for layer in encoded])  # (layers, pes)
    words = max(1, -(-int(sizes.sum(axis=0).max()) // LANES))
    codes, indices = (np.zeros((params.pes, words * LANES), np.uint8) for _ in range(2))
    begins = np.cumsum(sizes, axis=0) - sizes
    for layer, size, begin in zip(encoded, sizes, begins, strict=True):
        ends = np.cumsum(size)
        for pe in range(params.pes):
            there, here = slice(begin[pe], begin[pe] + size[pe]), slice(ends[pe] - size[pe], ends[pe])
            codes[pe, there], indices[pe, there] = layer.codes[here], layer.indices[here]
    values = {}
    for lane in range(LANES):
        values[f"{lane}.code"], values[f"{lane}.index"] = codes[:, lane::LANES], indices[:, lane::LANES]
    return pack_words(weight_word(params), values)


def _pack_pointers(encoded: tuple[EncodedLayer, ...], params: Params) -> NDArray[np.uint8]:
    """(pes, blocks, bytes): eight columns a block, entry addresses counted from the first layer on."""
    counts = np.concatenate([layer.counts for layer in encoded], axis=1).reshape(params.pes, -1, LANES)
    blocks = counts.sum(axis=2)
    values = {f"lengths.{lane}": counts[:, :, lane] for lane in range(LANES)}
    return pack_words(pointer_block(params), {"base": np.cumsum(blocks, axis=1) - blocks, **values})


def _arrange_bias(layers: tuple[QuantizedLayer, ...], encoded: tuple[EncodedLayer, ...], params: Params) -> Int:
    """(groups, words): for each layer and slot, the biases of the PEs of the group; 0 for holes."""
    parts = []
    for layer, order in zip(layers, (e.row_order for e in encoded), strict=True):
        by_position = np.where(order < 0, 0, layer.bias[order])
        parts.append(by_position.reshape(-1, params.groups, params.group).transpose(1, 0, 2).reshape(params.groups, -1))
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def _pack_descriptors(
    layers: tuple[QuantizedLayer, ...], encoded: tuple[EncodedLayer, ...], params: Params
) -> NDArray[np.uint8]:
    """(layers + 1, bytes): one MATVEC a layer, then END. Every result keeps its own lines of activation memory."""
    slots = np.array([len(layer.row_order) // params.pes for layer in encoded])
    octets = np.array([params.octets(layer.columns) for layer in encoded])
    lines = np.array([params.lines(encoded[0].columns), *(params.lines(len(layer.row_order)) for layer in encoded)])
    starts = np.cumsum(lines) - lines
    functions = [Function.RELU if layer.activation == "relu" else Function.NONE for layer in layers]
    values = {
        "op": np.full(len(layers), Op.MATVEC.value),
        "function": [function.value for function in functions],
        "chained": np.arange(len(layers)) > 0,
        "codebook": np.arange(len(layers)),
        "shift": [layer.shift for layer in layers],
        "source": starts[:-1],
        "destination": starts[1:],
        "octets": octets,
        "slots": slots,
        "pointers": np.cumsum(octets) - octets,
        "bias": (np.cumsum(slots) - slots) * params.group,
    }
    end = pack_words(descriptor(params), {"op": [Op.END.value]})
    return np.concatenate([pack_words(descriptor(params), values), end])
