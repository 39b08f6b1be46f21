"""The memories of an image as C source, for a host that loads them through the array's registers."""

from __future__ import annotations

from collections.abc import Iterable

from compiler.image.image import Image
from compiler.image.rings import off_chip
from compiler.image.words import memory_words
from hw.layouts import identity, memory_shape
from hw.params import LANES

__all__ = ["c_source"]

_BEAT_PARTS = 4  # 32-bit parts of a beat of a stream

_STRUCTS = """
/* Words of one unit of a memory, from address 0 on, in `count` parts of 32 bits. */
#ifndef EIE_WORDS
#define EIE_WORDS
struct eie_words {
    uint32_t memory, unit, count;
    const uint32_t *parts;
};
#endif

/* What streams while a layer runs. For each sample, `height` times a row of each of `reads` maps goes to the array,
   from entry `first` of the rows on. The map `writes` comes, EIE_NO_MAP if none. */
#ifndef EIE_TRANSFER
#define EIE_TRANSFER
#define EIE_NO_MAP 0xFFFFFFFFu
struct eie_transfer {
    uint32_t height, first, reads, writes;
};

/* Beats of a row of a map. */
struct eie_row {
    uint32_t map, beats;
};
#endif
"""


def c_source(image: Image, name: str) -> str:
    """C99 text of the header ``NAME.h``: all that a host must load, in 32-bit parts, low part first.

    ``NAME_memories``: for each unit of each memory the parts of its words (``struct eie_words``). ``NAME_tiles``: the
    beats of the refill stream for one sample, four parts each. ``NAME_FRAME``: activation lines of a sample, which
    begin at line ``NAME_FRAMES``. ``NAME_INPUT_LINES``: whether an input lies in them. ``NAME_OUTPUT_FIRST`` and
    ``NAME_OUTPUT_LINES``: lines of its first output, none if that streams.

    Of what streams: ``NAME_transfers`` and ``NAME_rows`` (`compiler.image.rings.off_chip`), ``NAME_maps``: beats of a
    sample of each map off chip, ``NAME_INPUT_MAP`` and ``NAME_OUTPUT_MAP``: that of the first input and output,
    ``EIE_NO_MAP`` if it stays on chip. ``NAME_input_order`` and ``NAME_output_order``: for each lane of a pixel of
    them its channel, or -1.
    """
    digest = int(identity(image.params), 16)
    upper = name.upper()
    lines = [
        f"/* Memories of {name}, for an array of hash {identity(image.params)}. */",
        f"#ifndef {upper}_H", f"#define {upper}_H", "", "#include <stdint.h>", *_STRUCTS.split("\n"),
    ]  # fmt: skip
    entries = []
    for memory, units in memory_words(image).items():
        parts = -(-memory_shape(image.params, memory)[2] // 32)
        for unit, words in enumerate(units):
            if words:
                array = f"{name}_{memory.name.lower()}_{unit}"
                lines += _array(array, (word >> 32 * n & 0xFFFFFFFF for word in words for n in range(parts)))
                entries.append(f"    {{{memory.value}u, {unit}u, {len(words) * parts}u, {array}}},")
    lines += [f"static const struct eie_words {name}_memories[] = {{", *entries, "};", ""]
    beats = [int.from_bytes(beat.tobytes(), "little") for beat in image.tiles]
    # C has no array without elements.
    lines += _array(f"{name}_tiles", (beat >> 32 * n & 0xFFFFFFFF for beat in beats or [0] for n in range(_BEAT_PARTS)))
    streams, numbers = _streams(image, name)
    lines += streams
    for what, number in (("input", image.inputs[0]), ("output", image.outputs[0])):
        order = ", ".join(map(str, image.map_orders[number].tolist()))
        lines += [f"static const int32_t {name}_{what}_order[] = {{{order}}};", ""]
    output = image.maps[image.outputs[0]]
    lies = not output.off_chip
    resident = any(not image.maps[number].off_chip for number in image.inputs)
    for what, number in (
        ("HASH_LOW", digest & 0xFFFFFFFF), ("HASH_HIGH", digest >> 32), ("MEMORIES", len(entries)),
        ("BEATS", len(beats)), ("FRAMES", image.rings), ("FRAME", image.frame),
        ("INPUT_LINES", int(resident)), ("OUTPUT_FIRST", output.base if lies else 0),
        ("OUTPUT_LINES", output.lines if lies else 0), ("INPUT_LANES", image.maps[image.inputs[0]].vectors * LANES),
        ("OUTPUT_LANES", output.vectors * LANES), *numbers,
    ):  # fmt: skip
        lines.append(f"#define {upper}_{what} {number}u")
    return "\n".join([*lines, "", "#endif", ""])


def _streams(image: Image, name: str) -> tuple[list[str], list[tuple[str, int]]]:
    """What streams as C, and the numbers about it."""
    outside = [number for number, each in enumerate(image.maps) if each.off_chip]
    at = {number: n for n, number in enumerate(outside)}
    transfers: list[str] = []
    rows: list[str] = []
    for each in off_chip(image):
        height = image.maps[each.reads[0]].height if each.reads else 0
        writes = f"{at[each.writes]}u" if each.writes >= 0 else "EIE_NO_MAP"
        transfers.append(f"{{{height}u, {len(rows)}u, {len(each.reads)}u, {writes}}}")
        rows += [f"{{{at[number]}u, {image.maps[number].row}u}}" for number in each.reads]
    sizes = [f"{image.maps[number].lines * image.params.groups}u" for number in outside]
    text = [
        f"static const struct eie_transfer {name}_transfers[] = {{{', '.join(transfers) or '{0u, 0u, 0u, 0u}'}}};",
        f"static const struct eie_row {name}_rows[] = {{{', '.join(rows) or '{0u, 0u}'}}};",
        f"static const uint32_t {name}_maps[] = {{{', '.join(sizes) or '0u'}}};", "",
    ]  # fmt: skip
    none = 0xFFFFFFFF
    return text, [
        ("TRANSFERS", len(transfers)), ("MAPS", len(outside)),
        ("INPUT_MAP", at.get(image.inputs[0], none)), ("OUTPUT_MAP", at.get(image.outputs[0], none)),
    ]  # fmt: skip


def _array(name: str, parts: Iterable[int]) -> list[str]:
    numbers = [f"0x{part:08X}u," for part in parts]
    rows = [" ".join(numbers[at : at + 8]) for at in range(0, len(numbers), 8)]
    return [f"static const uint32_t {name}[] = {{", *(f"    {row}" for row in rows), "};", ""]
