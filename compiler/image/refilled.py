"""Weight and pointer memories as the refill stream fills them, tile by tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.image.image import Image
from hw.layouts import Memory, fields, memory_shape, pointer_block, refill_header
from hw.params import LANES, Params

__all__ = ["Loaded", "Refilled", "pointer_fields"]

Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Loaded:
    """What one tile brought: the first weight word and the one behind the last (pes, 2), and each packet's words."""

    words: Int
    packets: list[int]


class Refilled:
    """The memories of all PEs in full size, `entries` and `pointers`, and a place in the stream.

    Parameters
    ----------
    image : its resident words stand in the memories from the start.
    """

    def __init__(self, image: Image) -> None:
        self._params = params = image.params
        self._tiles, self._at = image.tiles, 0
        self.entries = np.zeros((params.pes, params.weight_words, image.entries.shape[2]), np.uint8)
        self.pointers = np.zeros((params.pes, params.pointer_blocks, image.pointers.shape[2]), np.uint8)
        self._stay = {Memory.WEIGHTS: image.entries.shape[1], Memory.POINTERS: image.pointers.shape[1]}
        self._spans: dict[tuple[Memory, int], tuple[int, int]] = {}  # (memory, buffer) → words that it takes
        self.entries[:, : image.entries.shape[1]] = image.entries
        self.pointers[:, : image.pointers.shape[1]] = image.pointers

    @property
    def done(self) -> bool:
        """The stream is used up."""
        return self._at == len(self._tiles)

    def fill(self, buffer: int) -> Loaded:
        """Take the packets of the next tile, which must go to `buffer`.

        Raises
        ------
        ValueError
            The stream ends early, or a packet is not one that the array takes there.
        """
        words = np.zeros((self._params.pes, 2), np.int64)
        packets = []
        while True:
            header = self._header()
            memory, unit, first, count = (header[name] for name in ("memory", "unit", "address", "words"))
            if memory not in (Memory.WEIGHTS.value, Memory.POINTERS.value) or header["reserved"]:
                raise ValueError(f"a packet goes to memory {memory}; expected weights or pointers")
            kind = Memory(memory)
            units, size, width = memory_shape(self._params, kind)
            low, high = self._spans.get((kind, buffer), (first, first))
            span = min(low, first), max(high, first + count)
            other = self._spans.get((kind, 1 - buffer), (size, size))
            free = self._stay[kind] <= first and (span[1] <= other[0] or other[1] <= span[0])
            if unit >= units or first + count > size or header["buffer"] != buffer or not free:
                raise ValueError(
                    f"a packet goes to PE {unit}, words {first} to {first + count}, buffer {header['buffer']}"
                )
            self._spans[kind, buffer] = span
            body = self._tiles[self._at : self._at + count]
            if len(body) < count:
                raise ValueError("it ends in the middle of a packet")
            self._at += count
            target = self.entries if kind is Memory.WEIGHTS else self.pointers
            target[unit, first : first + count] = body[:, : -(-width // 8)]
            if kind is Memory.WEIGHTS:
                words[unit] = first, first + count
            packets.append(count)
            if header["last"]:
                return Loaded(words, packets)

    def _header(self) -> dict[str, int]:
        if self.done:
            raise ValueError("it ends before the last tile is there")
        word = int.from_bytes(self._tiles[self._at].tobytes(), "little")
        self._at += 1
        return {name: word >> first & ((1 << width) - 1) for name, first, width in fields(refill_header(self._params))}


def pointer_fields(pointers: NDArray[np.uint8], params: Params) -> tuple[Int, Int]:
    """Bases (pes, blocks) and lengths (pes, blocks, 8) of pointer words (pes, blocks, bytes)."""
    values = {}
    for name, first, width in fields(pointer_block(params)):
        low, high = first // 8, (first + width - 1) // 8
        value = np.zeros(pointers.shape[:2], np.int64)
        for byte in range(low, high + 1):
            value |= pointers[:, :, byte].astype(np.int64) << (8 * (byte - low))
        values[name] = value >> (first % 8) & ((1 << width) - 1)
    return values["base"], np.stack([values[f"lengths.{lane}"] for lane in range(LANES)], axis=2)
