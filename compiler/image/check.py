"""What must hold in an image before anyone allocates by its sizes or follows its addresses.

CRC-32 finds damage; these checks find lies: a file can carry right checksums over wrong contents.
"""

from __future__ import annotations

import numpy as np

from compiler.errors import ImageError
from compiler.image.check_entries import check_entries
from compiler.image.check_lives import check_lives
from compiler.image.check_maps import check_maps
from compiler.image.check_outputs import check_outputs
from compiler.image.check_steps import check_steps
from compiler.image.check_streams import check_streams
from compiler.image.image import Image, LayerInfo
from compiler.image.steps import LoopStep
from compiler.lower.program import RATES
from hw.layouts import REFILL_BITS, Memory, descriptor, memory_shape, output_word, pointer_block
from hw.params import PIECES

__all__ = ["check"]


def check(image: Image) -> None:
    """Raise `ImageError` for the first thing that is wrong; cheap checks of sizes first."""
    _check_layers(image)
    _check_shapes(image)
    check_maps(image)
    check_steps(image)
    check_streams(image)
    check_lives(image)
    check_outputs(image)
    check_entries(image)


_MAX_WINDOW = 1 << 16
"""Beyond every kernel, step and origin that a descriptor can be made of."""


def _require(good: bool, message: str) -> None:
    if not good:
        raise ImageError(message)


def _check_layers(image: Image) -> None:
    _require(bool(image.layers), "it has no layers")
    _require(len({layer.name for layer in image.layers}) == len(image.layers), "a layer name is used twice")
    for number, layer in enumerate(image.layers):
        _check_layer(layer, len(image.maps), image.params.descriptors)
        good = not layer.rates or len(layer.rates) == image.maps[layer.result].channels
        good = good and all(0 < rate <= RATES for rate in layer.rates)
        _require(good, f"{layer.name}: {len(layer.rates)} rates; expected one a channel, 1 to {RATES}, or none")
        _check_windows(layer, number in image.operations)


def _check_layer(layer: LayerInfo, maps: int, descriptors: int) -> None:
    name = layer.name
    numbers = [*layer.sources, layer.result]
    _require(bool(layer.sources) and all(0 <= n < maps for n in numbers), f"{name}: maps {numbers}; there are {maps}")
    _require(layer.result not in layer.sources, f"{name}: it reads the map that it writes")
    _require(layer.tile_y > 0 and layer.tile_x > 0, f"{name}: tiles of {layer.tile_y} x {layer.tile_x} pixels")
    counts = (layer.products, layer.nonzeros, layer.padding, layer.entries - layer.padding)
    _require(min(counts) >= 0, f"{name}: a negative number of products, weights or entries")
    _require(0 < layer.descriptors < descriptors, f"{name}: {layer.descriptors} descriptors")
    _require(layer.expected >= 0, f"{name}: {layer.expected} cycles are expected")
    good = len(layer.other) in (0, 3) and min(layer.other, default=0) >= 0
    _require(good, f"{name}: {layer.other} are not another tile and its cycles")
    good = set(layer.parts) <= set(range(len(layer.sources)))
    _require(good, f"{name}: its descriptors are of segments {layer.parts}; there are {len(layer.sources)}")


def _check_windows(layer: LayerInfo, operation: bool) -> None:
    name, segments = layer.name, 0 if operation else len(layer.sources)
    good = len(layer.windows) == 8 * segments and max(map(abs, layer.windows), default=0) <= _MAX_WINDOW
    good = good and all(n > 0 for at, n in enumerate(layer.windows) if at % 8 < 6)
    _require(good, f"{name}: windows {layer.windows}; expected 8 numbers a segment: sizes, steps and an origin")
    good = len(layer.pool) == 4 and 0 < min(layer.pool) and max(layer.pool) <= _MAX_WINDOW
    _require(good, f"{name}: pool {layer.pool}; expected 4 sizes")


def _check_shapes(image: Image) -> None:
    """Shapes as far as the layers decide them; what descriptors decide is checked with these."""
    params = image.params
    expected = {
        "entries": (params.pes, None, params.word_bytes),
        "pointers": (params.pes, None, -(-pointer_block(params).size // 8)),
        "tiles": (None, REFILL_BITS // 8),
        "codebooks": (None, 1 << params.code_bits),
        "table": (params.groups, None, -(-output_word(params).size // 8)),
        "functions": (None, PIECES + 1),
        "descriptors": (None, -(-descriptor(params).size // 8)),
        "orders": (None,),
    }
    for name, shape in expected.items():
        found = getattr(image, name).shape
        same = len(found) == len(shape) and all(b is None or a == b for a, b in zip(found, shape, strict=True))
        _require(same, f"{name} has shape {found}; expected {shape}".replace("None", "any"))
    ends = floor = 0
    for number, step in enumerate(image.program):
        if isinstance(step, LoopStep):
            _require(
                floor <= step.first < number,
                f"descriptor {number} ends a loop that begins at descriptor {step.first}; expected {floor} to "
                f"{number - 1}: the body of a loop holds no other loop",
            )
            ends, floor = ends + 1, number + 1
    expected_count = sum(layer.descriptors for layer in image.layers) + ends + 1
    _require(
        len(image.descriptors) == expected_count,
        f"descriptors has shape {image.descriptors.shape}; expected ({expected_count}, {image.descriptors.shape[1]})",
    )
    sizes = {
        Memory.WEIGHTS: image.entries.shape[1],
        Memory.POINTERS: image.pointers.shape[1],
        Memory.CODEBOOK: image.codebooks.size,
        Memory.OUTPUTS: image.table.shape[1],
        Memory.DESCRIPTORS: len(image.descriptors),
        Memory.TABLES: len(image.functions) * PIECES,
        Memory.ACTIVATIONS: image.rings + image.frame,
    }
    for memory, words in sizes.items():
        available = memory_shape(params, memory)[1]
        _require(words <= available, f"{memory.name.lower()}: {words} words; the array has {available}")
    _require(image.entries.shape[1] > 0, "entries are empty; expected at least one word")
    _require(image.frame > 0, f"a frame of {image.frame} lines; expected at least one")
    # The check of entries relies on it: code 0 is padding.
    _require(not np.any(image.codebooks[:, 0]), "code 0 of a codebook is not the weight zero")
