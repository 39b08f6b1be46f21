"""The memories of an image as C source, for a host that loads them through the array's registers."""

from __future__ import annotations

from collections.abc import Iterable

from compiler.image.image import Image
from compiler.image.rings import must_be_resident
from compiler.image.words import memory_words
from hw.layouts import identity, memory_shape

__all__ = ["c_source"]

_BEAT_PARTS = 4  # 32-bit parts of a beat of the refill stream


def c_source(image: Image, name: str) -> str:
    """C99 text of the header ``NAME.h``: all that a host must load, in 32-bit parts, low part first.

    ``NAME_memories``: for each unit of each memory the parts of its words (``struct eie_words``). ``NAME_tiles``: the
    beats of the refill stream for one sample, four parts each. ``NAME_FRAME``: activation lines of a sample.
    ``NAME_OUTPUT_FIRST`` and ``NAME_OUTPUT_LINES``: those of its first output.

    Raises
    ------
    ImageError
        A map lies off chip: the guide's host does not serve the activation streams.
    """
    must_be_resident(image, "the host in C")
    digest = int(identity(image.params), 16)
    upper = name.upper()
    lines = [
        f"/* Memories of {name}, for an array of hash {identity(image.params)}. */",
        f"#ifndef {upper}_H", f"#define {upper}_H", "",
        "#include <stdint.h>", "",
        "/* Words of one unit of a memory, from address 0 on, in `count` parts of 32 bits. */",
        "#ifndef EIE_WORDS", "#define EIE_WORDS", "struct eie_words {",
        "    uint32_t memory, unit, count;", "    const uint32_t *parts;", "};", "#endif", "",
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
    output = image.maps[image.outputs[0]]
    for what, number in (
        ("HASH_LOW", digest & 0xFFFFFFFF), ("HASH_HIGH", digest >> 32), ("MEMORIES", len(entries)),
        ("BEATS", len(beats)), ("FRAME", image.frame), ("OUTPUT_FIRST", output.base), ("OUTPUT_LINES", output.lines),
    ):  # fmt: skip
        lines.append(f"#define {upper}_{what} {number}u")
    return "\n".join([*lines, "", "#endif", ""])


def _array(name: str, parts: Iterable[int]) -> list[str]:
    numbers = [f"0x{part:08X}u," for part in parts]
    rows = [" ".join(numbers[at : at + 8]) for at in range(0, len(numbers), 8)]
    return [f"static const uint32_t {name}[] = {{", *(f"    {row}" for row in rows), "};", ""]
