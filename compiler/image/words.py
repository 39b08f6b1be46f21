"""The words of an image's memories, as integers to load and as text for ``$readmemh``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compiler.image.image import Image
from hw.layouts import Memory, descriptor_stride, fields, memory_shape, table_word
from hw.params import DESCRIPTOR_PARTS, Params

__all__ = ["memory_words", "readmemh", "stored_words"]


def memory_words(image: Image) -> dict[Memory, list[list[int]]]:
    """Words to load through the host port: memory → unit → words from address 0 on, as far as used."""
    return {memory: [_integers(unit) for unit in words] for memory, words in _word_bytes(image).items()}


def stored_words(image: Image) -> dict[Memory, list[list[int]]]:
    """What the memories of the array hold then: other words for the descriptors of a slim one, and parity bits."""
    return {memory: [_integers(unit) for unit in words] for memory, words in _stored_bytes(image).items()}


def readmemh(image: Image, folder: str | Path) -> None:
    """Write what each memory unit holds as ``$readmemh`` text, ``<memory>_<unit>.hex``.

    The names are ``weights_<pe>``, ``pointers_<pe>``, ``codebook_0``, ``outputs_<group>``, ``descriptors_0``,
    ``tables_0``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for memory, units in _stored_bytes(image).items():
        width = _stored_width(image.params, memory) + image.params.parity
        digits = min(-(-width // 4), 2 * units.shape[2])
        for number, words in enumerate(units):
            text = words[:, ::-1].tobytes().hex().encode()
            characters = np.frombuffer(text, np.uint8).reshape(len(words), 2 * words.shape[1])[:, -digits:]
            lines = np.concatenate([characters, np.full((len(words), 1), ord("\n"), np.uint8)], axis=1)
            (folder / f"{memory.name.lower()}_{number}.hex").write_bytes(lines.tobytes())


def _word_bytes(image: Image) -> dict[Memory, NDArray[np.uint8]]:
    """Memory → uint8 (units, words, bytes), the low byte first."""
    return {
        Memory.WEIGHTS: image.entries,
        Memory.POINTERS: image.pointers,
        Memory.CODEBOOK: np.ascontiguousarray(image.codebooks, "<i2").view(np.uint8).reshape(1, -1, 2),
        Memory.OUTPUTS: image.table,
        Memory.DESCRIPTORS: image.descriptors[np.newaxis],
        **({Memory.TABLES: _table_words(image)} if len(image.functions) else {}),
    }


def _stored_bytes(image: Image) -> dict[Memory, NDArray[np.uint8]]:
    """The same as the memories hold it."""
    found, params = _word_bytes(image), image.params
    if params.slim:
        parts = np.zeros((DESCRIPTOR_PARTS, descriptor_stride(params), 4), np.uint8)
        parts[:, : len(image.descriptors)] = image.descriptors.reshape(-1, DESCRIPTOR_PARTS, 4).swapaxes(0, 1)
        found[Memory.DESCRIPTORS] = parts.reshape(1, -1, 4)
    if params.parity:
        return {memory: _with_parity(words, _stored_width(params, memory)) for memory, words in found.items()}
    return found


def _stored_width(params: Params, memory: Memory) -> int:
    """Bits of a word of the memory itself, without its parity bit."""
    return 32 if params.slim and memory is Memory.DESCRIPTORS else memory_shape(params, memory)[2]


def _with_parity(words: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """(units, words, bytes) with the bit `hw.parity` puts above the `width` bits of each word."""
    wider = np.zeros((*words.shape[:2], max(words.shape[2], width // 8 + 1)), np.uint8)
    wider[..., : words.shape[2]] = words
    odd = np.bitwise_count(np.bitwise_xor.reduce(words, axis=2)) & 1
    wider[..., width // 8] |= odd << width % 8
    return wider


def _table_words(image: Image) -> NDArray[np.uint8]:
    """(1, tables * 512, bytes): each piece of a function table, where it begins and how much it rises."""
    table = image.functions.astype(np.int64)
    layout = table_word(image.params)
    values = {"value": table[:, :-1], "step": np.diff(table, axis=1)}
    words = sum((values[name] & (1 << width) - 1) << first for name, first, width in fields(layout))
    as_bytes = np.ascontiguousarray(words, "<i8").view(np.uint8).reshape(1, -1, 8)
    return as_bytes[..., : -(-layout.size // 8)]


def _integers(words: NDArray[np.uint8]) -> list[int]:
    """Python integers of (n, bytes), through 64-bit pieces: `int.from_bytes` word by word is ten times slower."""
    pieces = -(-words.shape[1] // 8)
    wide = np.zeros((len(words), pieces * 8), np.uint8)
    wide[:, : words.shape[1]] = words
    columns = wide.view("<u8").T.tolist()
    total: list[int] = columns[-1]
    for column in columns[-2::-1]:
        total = [high << 64 | low for high, low in zip(total, column, strict=True)]
    return total
