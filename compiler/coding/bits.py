"""Bits with known probabilities, through constriction's range coder: one call for all of a block.

A `Coder` is given the probabilities of a block and gives back its bits. The encoder knows them, the decoder reads
them: what builds the probabilities is the same code on both sides and cannot tell which side it is on.
"""

from __future__ import annotations

from typing import Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from compiler.coding.mixing import ONE
from compiler.errors import CodingError

__all__ = ["BitCoder", "BitDecoder", "BitEncoder", "BitRecorder"]

Int = NDArray[np.int64]

_WORD = 4  # bytes
_PIECE = 1 << 20  # bits coded by one call; bounds the memory of their floats


class BitCoder(Protocol):
    """One side of the coder."""

    def code(self, found: Int, bits: Int | None) -> Int:
        """Bits (n,) of which `found` gives the probability to be 1, of ONE; `bits` are they, or None to read them."""


class BitRecorder:
    """Takes note of bits and their probabilities; nothing is coded."""

    def __init__(self) -> None:
        self.notes: list[tuple[Int, Int]] = []

    def code(self, found: Int, bits: Int | None) -> Int:
        """Take note of the bits."""
        assert bits is not None
        self.notes.append((found.copy(), bits))
        return bits


class BitEncoder:
    """Codes bits."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()
        self._model = constriction.stream.model.Bernoulli(perfect=False)

    def code(self, found: Int, bits: Int) -> None:
        """Append bits (n,) to the stream."""
        for first in range(0, len(bits), _PIECE):
            part = slice(first, first + _PIECE)
            self._encoder.encode(bits[part].astype(np.int32), self._model, found[part] / ONE)

    def finish(self) -> bytes:
        """The stream. Zeros at its end are left out; `BitDecoder` puts them back."""
        return bytes(self._encoder.get_compressed().astype(">u4").tobytes()).rstrip(b"\0")


class BitDecoder:
    """Reads what a `BitEncoder` wrote."""

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % _WORD)
        self._decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))
        self._model = constriction.stream.model.Bernoulli(perfect=False)

    def code(self, found: Int, bits: Int | None) -> Int:
        """The next bits of the stream.

        Raises
        ------
        CodingError
            No encoder wrote this stream.
        """
        assert bits is None
        try:
            read: Int = self._decoder.decode(self._model, found / ONE).astype(np.int64)
        except (AssertionError, ValueError) as error:
            raise CodingError(f"the coded stream is not what the coder writes ({error})") from None
        return read
