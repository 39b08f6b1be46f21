"""Bits with known probabilities, through constriction's range coder: one call for many of them."""

from __future__ import annotations

from collections.abc import Iterator

import constriction
import numpy as np
from numpy.typing import NDArray

from compiler.coding.mixing import ONE
from compiler.errors import CodingError

__all__ = ["BitDecoder", "BitEncoder", "BitRecorder"]

Int = NDArray[np.int64]
Bits = NDArray[np.int32]

_WORD = 4  # bytes
_PIECE = 1 << 20  # bits coded by one call; bounds the memory of their floats


class BitRecorder:
    """Takes note of bits and their probabilities; nothing is coded."""

    def __init__(self) -> None:
        self.notes: list[tuple[Int, Bits]] = []

    def code(self, found: Int, bits: Bits) -> None:
        """Take note of bits (n,), of which `found` (n,) gives the probability to be 1, of ONE."""
        self.notes.append((found, bits))


class BitEncoder:
    """Codes bits."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()
        self._model = constriction.stream.model.Bernoulli(perfect=False)

    def code(self, found: Int, bits: Bits) -> None:
        """Append bits (n,) to the stream; `found` as of `BitRecorder.code`."""
        for first in range(0, len(bits), _PIECE):
            part = slice(first, first + _PIECE)
            self._encoder.encode(bits[part], self._model, found[part] / ONE)

    def finish(self) -> bytes:
        """The stream. Zeros at its end are left out; `BitDecoder` puts them back."""
        return bytes(self._encoder.get_compressed().astype(">u4").tobytes()).rstrip(b"\0")


class BitDecoder:
    """Reads what a `BitEncoder` wrote."""

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % _WORD)
        self._decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))
        self._model = constriction.stream.model.Bernoulli(perfect=False)

    def read(self, steps: Iterator[int], chances: NDArray[np.float64], bits: Bits) -> None:
        """Read bits for a generator that yields how many `chances` it has, until it ends.

        Raises
        ------
        CodingError
            No encoder wrote this stream.
        """
        decode, model = self._decoder.decode, self._model
        try:
            for size in steps:
                bits[:size] = decode(model, chances[:size])
        except (AssertionError, ValueError) as error:
            raise CodingError(f"the coded stream is not what the coder writes ({error})") from None
