"""Bytes in and out: integers of variable length, names, packed bits. Reading believes nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiler.errors import CodingError

__all__ = ["MAGIC", "Reader", "Writer", "pack_bits", "unpack_bits"]

MAGIC = b"EIEZ"
"""What an `.eiez` file begins with."""

_PIECE = 1 << 16  # packed integers at a time; bounds the memory that unpacking takes
_VARINT_BYTES = 10  # seven bits each: 64 bits


class Writer:
    """Collects the bytes of a file."""

    def __init__(self) -> None:
        self.data = bytearray()

    def __len__(self) -> int:
        return len(self.data)

    def byte(self, value: int) -> None:
        """One byte, 0 … 255."""
        self.data.append(value)

    def varint(self, value: int) -> None:
        """An integer ≥ 0, seven bits a byte, the low ones first."""
        while value > 0x7F:
            self.data.append(value & 0x7F | 0x80)
            value >>= 7
        self.data.append(value)

    def signed(self, value: int) -> None:
        """An integer of either sign: 0, −1, 1, −2 become 0, 1, 2, 3 and so on."""
        self.varint(2 * value if value >= 0 else -2 * value - 1)

    def raw(self, data: bytes) -> None:
        """Bytes as they are."""
        self.data += data


class Reader:
    """Takes a file's bytes one after the other.

    Every method raises `CodingError` where the file ends too early or a value is out of its range.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self.data) - self.at

    def raw(self, count: int, what: str) -> bytes:
        """The next `count` bytes."""
        if not 0 <= count <= self.left:
            raise CodingError(f"the file ends within {what}: {self.left} bytes left, {count} needed")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self, what: str, high: int = 255) -> int:
        """One byte, at most `high`."""
        value = self.raw(1, what)[0]
        if value > high:
            raise CodingError(f"{what} is {value}; expected at most {high}")
        return value

    def varint(self, what: str, high: int, low: int = 0) -> int:
        """An integer from `low` to `high`."""
        value = 0
        for number in range(_VARINT_BYTES):
            byte = self.raw(1, what)[0]
            value |= (byte & 0x7F) << 7 * number
            if byte < 0x80:
                break
        else:
            raise CodingError(f"{what} has more than {_VARINT_BYTES} bytes")
        if not low <= value <= high:
            raise CodingError(f"{what} is {value}; expected {low} to {high}")
        return value

    def signed(self, what: str, limit: int) -> int:
        """An integer from −limit to limit."""
        value = self.varint(what, 2 * limit)
        return value >> 1 if value % 2 == 0 else -(value >> 1) - 1


def pack_bits(values: NDArray[np.int64], width: int) -> bytes:
    """Integers 0 … 2**width − 1, `width` bits each, the high bit first, zeros to the end of the last byte."""
    shifts = np.arange(width - 1, -1, -1)
    return np.packbits((values[:, np.newaxis] >> shifts & 1).astype(np.uint8).reshape(-1)).tobytes()


def unpack_bits(data: bytes, count: int, width: int) -> NDArray[np.int64]:
    """What `pack_bits` packed; `data` has exactly its bytes."""
    values = np.zeros(count, np.int64)
    if not width:
        return values
    weights = 1 << np.arange(width - 1, -1, -1, dtype=np.int64)
    for first in range(0, count, _PIECE):  # a multiple of eight: pieces begin with a byte
        number = min(_PIECE, count - first)
        piece = np.frombuffer(data, np.uint8, (number * width + 7) // 8, first * width // 8)
        bits = np.unpackbits(piece, count=number * width).reshape(number, width)
        values[first : first + number] = bits.astype(np.int64) @ weights
    return values
