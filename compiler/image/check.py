"""What must hold in an image before anyone allocates by its sizes or follows its addresses.

CRC-32 finds damage; these checks find lies: a file can carry right checksums over wrong contents.
"""

from __future__ import annotations

import numpy as np
from amaranth.lib import data
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.image.image import Image
from compiler.image.refilled import Refilled, pointer_fields
from compiler.image.steps import Step
from compiler.lower.chain import ACTIVATIONS, MAX_SHIFT
from hw.layouts import REFILL_BITS, Function, Memory, Op, descriptor, fields, memory_shape, pointer_block
from hw.params import LANES, Params

__all__ = ["check"]

TOO_LONG = "a column has more entries than the layer has rows in a PE"

MAX_EXPONENT = 4096
"""Far beyond any exponent of a float; keeps later arithmetic with exponents within machine integers."""


def check(image: Image) -> None:
    """Raise `ImageError` for the first thing that is wrong; cheap checks of sizes first."""
    _check_layers(image)
    _check_shapes(image)
    _check_steps(image)
    _check_row_order(image)
    _check_bias(image)
    _check_pointers(image)
    _check_stream(image)


def _require(good: bool, message: str) -> None:
    if not good:
        raise ImageError(message)


def _check_layers(image: Image) -> None:
    _require(bool(image.layers), "it has no layers")
    _require(len({layer.name for layer in image.layers}) == len(image.layers), "a layer name is used twice")
    before = None
    for layer in image.layers:
        name = layer.name
        _require(layer.inputs > 0 and layer.outputs > 0, f"{name}: {layer.inputs} inputs, {layer.outputs} outputs")
        _require(layer.activation in ACTIVATIONS, f"{name}: activation {layer.activation!r}")
        _require(0 <= layer.shift <= MAX_SHIFT, f"{name}: shift {layer.shift}; expected 0 to {MAX_SHIFT}")
        exponents = (layer.input_exponent, layer.weight_exponent, layer.output_exponent)
        _require(max(map(abs, exponents)) <= MAX_EXPONENT, f"{name}: exponents {exponents} are out of range")
        _require(
            layer.output_exponent == layer.input_exponent + layer.weight_exponent + layer.shift,
            f"{name}: exponents {exponents} do not agree with shift {layer.shift}",
        )
        _require(layer.nonzeros >= 0 and layer.padding >= 0, f"{name}: a negative number of entries")
        _require(0 < layer.descriptors < image.params.descriptors, f"{name}: {layer.descriptors} descriptors")
        if before is None:
            _require(layer.columns == layer.inputs, f"{name}: {layer.columns} columns; expected {layer.inputs}")
        else:
            _require(layer.inputs == before.outputs, f"{name}: {layer.inputs} inputs after {before.outputs} outputs")
            _require(layer.input_exponent == before.output_exponent, f"{name}: the exponent before is another one")
        before = layer


def _check_shapes(image: Image) -> None:
    """Shapes as far as the layers decide them; what descriptors decide is checked with these."""
    params, layers = image.params, image.layers
    expected = {
        "entries": (params.pes, None, params.word_bytes),
        "pointers": (params.pes, None, -(-pointer_block(params).size // 8)),
        "tiles": (None, REFILL_BITS // 8),
        "codebooks": (len(layers), 1 << params.code_bits),
        "bias": (params.groups, None),
        "descriptors": (sum(layer.descriptors for layer in layers) + 1, descriptor(params).size // 8),
        "row_order": (None,),
    }
    for name, shape in expected.items():
        found = getattr(image, name).shape
        same = len(found) == len(shape) and all(b is None or a == b for a, b in zip(found, shape, strict=True))
        _require(same, f"{name} has shape {found}; expected {shape}".replace("None", "any"))
    sizes = {
        Memory.WEIGHTS: image.entries.shape[1],
        Memory.POINTERS: image.pointers.shape[1],
        Memory.CODEBOOK: image.codebooks.size,
        Memory.BIAS: image.bias.shape[1],
        Memory.DESCRIPTORS: len(image.descriptors),
    }
    for memory, words in sizes.items():
        available = memory_shape(params, memory)[1]
        _require(words <= available, f"{memory.name.lower()}: {words} words; the array has {available}")
    _require(image.entries.shape[1] > 0, "entries are empty; expected at least one word")


def _check_steps(image: Image) -> None:
    """Descriptors chain layers, blocks and tiles over the memories without a gap, as the packer lays them out."""
    params = image.params
    ends = _fields(descriptor(params), image.descriptors[-1])
    _require(ends == {**dict.fromkeys(ends, 0), "op": Op.END.value}, "the last descriptor is not END and nothing else")
    _require(not image.descriptors[:-1, _reserved(params)].any(), "a reserved bit of a descriptor is set")
    number = pointers = bias = positions = 0
    source, columns, free = 0, image.layers[0].columns, params.lines(image.layers[0].columns)
    for n, (layer, steps) in enumerate(zip(image.layers, image.steps, strict=True)):
        function = Function.RELU if layer.activation == "relu" else Function.NONE
        act_vectors = params.act_vectors(columns)
        _require(layer.columns == columns, f"{layer.name}: {layer.columns} columns; expected {columns}")
        first = block = rows = 0
        begin = free
        for step in steps:
            exact = {
                "op": Op.MATVEC.value, "function": function.value, "codebook": n, "shift": layer.shift,
                "chained": int(n > 0 and block == 0), "source": source + first // params.groups, "bias": bias,
                "keep": int(first + step.act_vectors < act_vectors), "fold": steps[0].fold,
            }  # fmt: skip
            if step.refill:
                _require(params.refill, f"descriptor {number}: refill, which the array does not have")
                _require(
                    step.pointers + step.pointer_blocks(params) <= params.pointer_blocks,
                    f"descriptor {number}: its pointer blocks do not fit the array",
                )
            else:
                exact.update(pointers=pointers, buffer=0)
                pointers += step.pointer_blocks(params)
            for name, value in exact.items():
                found = getattr(step, name)
                _require(found == value, f"descriptor {number}: {name} is {found}; expected {value}")
            _check_size(step, number, params, act_vectors - first)
            first += step.act_vectors
            if not step.keep:
                lines = step.lines(params)
                # A result may lie anywhere behind its source; where, only the descriptor says.
                _require(
                    free <= step.destination <= params.act_lines - lines,
                    f"descriptor {number}: destination is {step.destination}; "
                    f"expected {free} to {params.act_lines - lines}",
                )
                _require(
                    block == 0 or step.destination == free,
                    f"descriptor {number}: destination is {step.destination}; expected {free}, behind the rows before",
                )
                begin = step.destination if block == 0 else begin
                free, block, first = step.destination + lines, block + 1, 0
                rows += step.outputs(params) * params.groups
                bias += step.outputs(params)
            number += 1
        _require(first == 0, f"{layer.name}: its last descriptor keeps the sums")
        _require(layer.outputs <= rows, f"{layer.name}: {layer.outputs} outputs; its descriptors have room for {rows}")
        source, columns = begin, (free - begin) * params.line
        positions += columns
    _require(pointers == image.pointers.shape[1], f"pointers have {image.pointers.shape[1]} words; expected {pointers}")
    _require(bias == image.bias.shape[1], f"bias has {image.bias.shape[1]} words; expected {bias}")
    _require(len(image.row_order) == positions, f"row_order has shape {image.row_order.shape}; expected ({positions},)")


def _check_size(step: Step, number: int, params: Params, act_vectors: int) -> None:
    """Sizes of one descriptor within what the array has."""
    limits = {
        "act_vectors": (1, act_vectors), "slots": (1, params.rows), "fragment_slots": (0, step.slots),
        "fragment_log2": (0, params.max_split.bit_length() - 1), "fold": (0, params.fold - 1),
    }  # fmt: skip
    for name, (low, high) in limits.items():
        value = getattr(step, name)
        _require(low <= value <= high, f"descriptor {number}: {name} is {value}; expected {low} to {high}")
    whole = step.act_vectors % max(params.groups, 1 << step.fold) == 0
    _require(whole or not step.keep, f"descriptor {number}: the next tile does not begin with a line")


def _reserved(params: Params) -> NDArray[np.intp]:
    """Bytes of a descriptor that hold nothing but reserved bits."""
    bits = np.ones(descriptor(params).size, np.bool_)
    for name, first, width in fields(descriptor(params)):
        bits[first : first + width] = name.startswith("reserved")
    return np.flatnonzero(bits.reshape(-1, 8).all(axis=1))


def _fields(layout: data.Layout, word: NDArray[np.uint8]) -> dict[str, int]:
    value = int.from_bytes(word.tobytes(), "little")
    return {name: value >> first & ((1 << width) - 1) for name, first, width in fields(layout)}


def _check_row_order(image: Image) -> None:
    begin = 0
    for layer, steps in zip(image.layers, image.steps, strict=True):
        size = sum(image.params.positions(step.outputs(image.params)) for step in steps if not step.keep)
        order = image.row_order[begin : begin + size]
        neurons = np.sort(order[order >= 0])
        good = np.array_equal(neurons, np.arange(layer.outputs)) and int(order.min()) >= -1
        _require(good, f"{layer.name}: row_order does not name each of {layer.outputs} neurons once")
        begin += size


def _check_bias(image: Image) -> None:
    limit = 1 << (image.params.acc_bits - 1)
    good = not image.bias.size or (int(image.bias.min()) >= -limit and int(image.bias.max()) < limit)
    _require(good, f"a bias does not fit {image.params.acc_bits} bits")


def _check_pointers(image: Image) -> None:
    """Every column lies within the entries, none overlaps another, none is longer than the layer has rows in a PE."""
    params = image.params
    stay = [step for steps in image.steps for step in steps if not step.refill]
    capacity = image.entries.shape[1] * LANES
    base, lengths = pointer_fields(image.pointers, params)
    rows = np.repeat([step.rows for step in stay], [step.pointer_blocks(params) for step in stay]).astype(np.int64)
    _require(bool((lengths <= rows[:, np.newaxis]).all()), TOO_LONG)
    totals = lengths.sum(axis=2)
    expected = np.cumsum(totals, axis=1) - totals
    _require(
        np.array_equal(base, expected) and int(totals.sum(axis=1).max()) <= capacity,
        "a pointer block leads out of the entries or into those of another",
    )
    stored = int(totals.sum())
    stated = sum(layer.nonzeros + layer.padding for layer in image.layers)
    if len(stay) == sum(layer.descriptors for layer in image.layers):
        _require(stored == stated, f"{stored} entries are pointed to, the layers state {stated}")


def _check_stream(image: Image) -> None:
    """The packets of the stream bring each tile's words, and its pointers lead only to these."""
    params = image.params
    streamed = [step for steps in image.steps for step in steps if step.refill]
    if not streamed:
        _require(not len(image.tiles), "it has tiles that no descriptor uses")
        return
    memories = Refilled(image)
    for step in streamed:
        try:
            loaded = memories.fill(step.buffer)
        except ValueError as e:
            _require(False, f"the refill stream is damaged: {e}")
        blocks = memories.pointers[:, step.pointers : step.pointers + step.pointer_blocks(params)]
        base, lengths = pointer_fields(blocks, params)
        _require(bool((lengths <= step.rows).all()), TOO_LONG)
        ends = base + lengths.sum(axis=2)
        low, high = loaded.words[:, :1] * LANES, loaded.words[:, 1:] * LANES
        good = bool(((base >= low) & (ends <= high) | (lengths.sum(axis=2) == 0)).all())
        _require(good, "a pointer block of a tile leads out of the words that came with it")
    _require(memories.done, "the refill stream goes on after the last tile")
