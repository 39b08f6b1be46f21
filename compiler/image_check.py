"""What must hold in an image before anyone allocates by its sizes or follows its addresses.

CRC-32 finds damage; these checks find lies: a file can carry right checksums over wrong contents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from amaranth.lib import data
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.ir import ACTIVATIONS, MAX_SHIFT
from hw.layouts import Function, Memory, Op, descriptor, fields, memory_shape, pointer_block
from hw.params import LANES, Params

if TYPE_CHECKING:
    from compiler.image import Image

__all__ = ["check"]

MAX_EXPONENT = 4096
"""Far beyond any exponent of a float; keeps later arithmetic with exponents within machine integers."""


def check(image: Image) -> None:
    """Raise `ImageError` for the first thing that is wrong; cheap checks of sizes first."""
    _check_layers(image)
    _check_shapes(image)
    _check_descriptors(image)
    _check_row_order(image)
    _check_bias(image)
    _check_pointers(image)


def _require(good: bool, message: str) -> None:
    if not good:
        raise ImageError(message)


def _check_layers(image: Image) -> None:
    params = image.params
    _require(bool(image.layers), "it has no layers")
    _require(len({layer.name for layer in image.layers}) == len(image.layers), "a layer name is used twice")
    before = None
    for layer in image.layers:
        name = layer.name
        _require(layer.inputs > 0 and layer.outputs > 0, f"{name}: {layer.inputs} inputs, {layer.outputs} outputs")
        _require(params.slots(layer.outputs) <= params.rows, f"{name}: {layer.outputs} outputs do not fit the array")
        positions = layer.inputs if before is None else params.slots(before.outputs) * params.pes
        _require(layer.columns == positions, f"{name}: {layer.columns} columns; expected {positions}")
        _require(layer.activation in ACTIVATIONS, f"{name}: activation {layer.activation!r}")
        _require(0 <= layer.shift <= MAX_SHIFT, f"{name}: shift {layer.shift}; expected 0 to {MAX_SHIFT}")
        exponents = (layer.input_exponent, layer.weight_exponent, layer.output_exponent)
        _require(max(map(abs, exponents)) <= MAX_EXPONENT, f"{name}: exponents {exponents} are out of range")
        _require(
            layer.output_exponent == layer.input_exponent + layer.weight_exponent + layer.shift,
            f"{name}: exponents {exponents} do not agree with shift {layer.shift}",
        )
        _require(layer.nonzeros >= 0 and layer.padding >= 0, f"{name}: a negative number of entries")
        if before is not None:
            _require(layer.inputs == before.outputs, f"{name}: {layer.inputs} inputs after {before.outputs} outputs")
            _require(layer.input_exponent == before.output_exponent, f"{name}: the exponent before is another one")
        before = layer


def _check_shapes(image: Image) -> None:
    params, layers = image.params, image.layers
    blocks = sum(params.octets(layer.columns) for layer in layers)
    slots = [params.slots(layer.outputs) for layer in layers]
    expected = {
        "entries": (params.pes, None, params.word_bytes),
        "pointers": (params.pes, blocks, -(-pointer_block(params).size // 8)),
        "codebooks": (len(layers), 1 << params.code_bits),
        "bias": (params.groups, sum(slots) * params.group),
        "descriptors": (len(layers) + 1, descriptor(params).size // 8),
        "row_order": (sum(slots) * params.pes,),
    }
    for name, shape in expected.items():
        found = getattr(image, name).shape
        same = len(found) == len(shape) and all(b is None or a == b for a, b in zip(found, shape, strict=True))
        _require(same, f"{name} has shape {found}; expected {shape}".replace("None", "any"))
    sizes = {
        Memory.WEIGHTS: image.entries.shape[1],
        Memory.POINTERS: blocks,
        Memory.CODEBOOK: image.codebooks.size,
        Memory.BIAS: image.bias.shape[1],
        Memory.DESCRIPTORS: len(image.descriptors),
    }
    for memory, words in sizes.items():
        available = memory_shape(params, memory)[1]
        _require(words <= available, f"{memory.name.lower()}: {words} words; the array has {available}")
    _require(image.entries.shape[1] > 0, "entries are empty; expected at least one word")


def _check_descriptors(image: Image) -> None:
    params, words = image.params, image.descriptors
    found = [_fields(descriptor(params), word) for word in words]
    end = {**dict.fromkeys(found[-1], 0), "op": Op.END.value}
    _require(found[-1] == end, "the last descriptor is not END and nothing else")
    destination, lines_in = 0, params.lines(image.layers[0].columns)
    pointers = bias = 0
    for number, (layer, fields_) in enumerate(zip(image.layers, found[:-1], strict=True)):
        function = Function.RELU if layer.activation == "relu" else Function.NONE
        slots = params.slots(layer.outputs)
        exact = {
            "op": Op.MATVEC.value, "function": function.value, "chained": int(number > 0), "codebook": number,
            "shift": layer.shift, "source": destination, "octets": params.octets(layer.columns), "slots": slots,
            "pointers": pointers, "bias": bias, **{name: 0 for name in fields_ if name.startswith("reserved")},
        }  # fmt: skip
        for name, value in exact.items():
            _require(fields_[name] == value, f"descriptor {number}: {name} is {fields_[name]}; expected {value}")
        # A result may lie anywhere behind its source; where, only the descriptor says.
        first = destination + lines_in
        destination, lines_in = fields_["destination"], params.lines(slots * params.pes)
        _require(
            first <= destination <= params.act_lines - lines_in,
            f"descriptor {number}: destination is {destination}; expected {first} to {params.act_lines - lines_in}",
        )
        pointers += params.octets(layer.columns)
        bias += slots * params.group


def _fields(layout: data.Layout, word: NDArray[np.uint8]) -> dict[str, int]:
    value = int.from_bytes(word.tobytes(), "little")
    return {name: value >> first & ((1 << width) - 1) for name, first, width in fields(layout)}


def _check_row_order(image: Image) -> None:
    begin = 0
    for layer in image.layers:
        order = image.row_order[begin : begin + image.params.slots(layer.outputs) * image.params.pes]
        neurons = np.sort(order[order >= 0])
        good = np.array_equal(neurons, np.arange(layer.outputs)) and int(order.min()) >= -1
        _require(good, f"{layer.name}: row_order does not name each of {layer.outputs} neurons once")
        begin += len(order)


def _check_bias(image: Image) -> None:
    limit = 1 << (image.params.acc_bits - 1)
    good = not image.bias.size or (int(image.bias.min()) >= -limit and int(image.bias.max()) < limit)
    _require(good, f"a bias does not fit {image.params.acc_bits} bits")


def _check_pointers(image: Image) -> None:
    """Every column lies within the entries, none overlaps another, none is longer than the layer has slots."""
    params = image.params
    capacity = image.entries.shape[1] * LANES
    base, lengths = _pointer_fields(image.pointers, params)
    slots = np.repeat(
        [params.slots(layer.outputs) for layer in image.layers],
        [params.octets(layer.columns) for layer in image.layers],
    )
    _require(bool((lengths <= slots[:, np.newaxis]).all()), "a column has more entries than the layer has rows in a PE")
    totals = lengths.sum(axis=2)
    expected = np.cumsum(totals, axis=1) - totals
    _require(
        np.array_equal(base, expected) and int(totals.sum(axis=1).max()) <= capacity,
        "a pointer block leads out of the entries or into those of another",
    )
    stored = int(totals.sum())
    stated = sum(layer.nonzeros + layer.padding for layer in image.layers)
    _require(stored == stated, f"{stored} entries are pointed to, the layers state {stated}")


def _pointer_fields(pointers: NDArray[np.uint8], params: Params) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bases (pes, blocks) and lengths (pes, blocks, 8)."""
    values = {}
    for name, first, width in fields(pointer_block(params)):
        low, high = first // 8, (first + width - 1) // 8
        value = np.zeros(pointers.shape[:2], np.int64)
        for byte in range(low, high + 1):
            value |= pointers[:, :, byte].astype(np.int64) << (8 * (byte - low))
        values[name] = value >> (first % 8) & ((1 << width) - 1)
    return values["base"], np.stack([values[f"lengths.{lane}"] for lane in range(LANES)], axis=2)
