"""Floats in the context coder's stream: signs and exponents from what floats before had, mantissas as they are.

Trained values are spread over a few exponents, so of the nine bits before the mantissa three or four are news. The
model goes on from array to array: codebooks are too short to learn from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiler.coding.bits import BitDecoder, BitEncoder
from compiler.coding.kernels import all_heads, head_steps
from compiler.coding.mixing import fresh
from compiler.coding.numbers import read_floats, write_floats
from compiler.coding.wire import Reader, Writer, pack_bits, unpack_bits
from compiler.errors import CodingError

__all__ = ["MODELLED", "FloatModel"]

MODELLED = 16
"""Form of such an array, and the width of its mantissas is added to it; forms of `numbers.write_floats` are smaller."""

_MOST = 1 << 16  # values of an array: signs and exponents are coded bit by bit, which takes time
_MANTISSA = 23
# What a codebook of trained weights looks like: the model begins as if it had seen one. Part of the format.
_TYPICAL = np.array([-0.9, -0.7, -0.6, -0.4, -0.2, 0.1, 0.3, 0.45, 0.6, 0.8, 0.05, 0.02], np.float32)


class FloatModel:
    """What is known of the signs and exponents of a file's floats; the same on both sides."""

    def __init__(self) -> None:
        self._mix = fresh((256, 512, 1 << 16, 1024), 1, 1, 1 << 15, trust=(30, 30, 30, 30))
        self._learn(_TYPICAL)

    def write(self, writer: Writer, encoder: BitEncoder, values: NDArray[np.float32]) -> None:
        """Append float32 (n,) to the stream and to `writer`, or to `writer` alone where that is smaller."""
        plain = Writer()
        write_floats(plain, values)
        if 0 < len(values) <= _MOST:
            spelled = values.view(np.uint32).astype(np.int64)
            rest = spelled & ((1 << _MANTISSA) - 1)
            used = int(np.bitwise_or.reduce(rest))
            width = _MANTISSA - (_MANTISSA if not used else (used & -used).bit_length() - 1)
            tail = pack_bits(rest >> (_MANTISSA - width), width)
            before = float(self._mix.spent[0])
            found, bits = all_heads(self._mix, spelled >> _MANTISSA)
            if self._mix.spent[0] - before + 8 * (1 + len(tail)) < 8 * len(plain):
                encoder.code(found, bits)
                writer.byte(MODELLED + width)
                writer.raw(tail)
                return
        writer.raw(bytes(plain.data))

    def read(self, reader: Reader, decoder: BitDecoder, count: int, what: str) -> tuple[NDArray[np.float32], float]:
        """What `write` wrote, and the bits that it took in the stream.

        Raises
        ------
        CodingError
            As `numbers.read_floats`.
        """
        form = reader.byte(f"{what}: form of the floats", MODELLED + _MANTISSA)
        if form < MODELLED:
            reader.at -= 1
            values = read_floats(reader, count, what)
            if 0 < count <= _MOST:
                self._learn(values)
            return values, 0.0
        if count > _MOST:
            raise CodingError(f"{what}: {count} floats in the coded stream; expected at most {_MOST}")
        width = form - MODELLED
        rest = unpack_bits(reader.raw((count * width + 7) // 8, what), count, width) << (_MANTISSA - width)
        heads, bits, before = np.zeros(count, np.int64), np.zeros(1, np.int32), float(self._mix.spent[0])
        decoder.read(head_steps(self._mix, bits, heads), self._mix.chances, bits)
        values = (heads << _MANTISSA | rest).astype(np.uint32).view(np.float32)
        if not np.isfinite(values).all():
            raise CodingError(f"{what}: a value is not finite")
        return values, float(self._mix.spent[0]) - before

    def _learn(self, values: NDArray[np.float32]) -> None:
        """What is not in the stream is learned from as well; or else short arrays would never be worth it."""
        all_heads(self._mix, values.view(np.uint32).astype(np.int64) >> _MANTISSA)
