"""Port over a byte stream: a serial line, or a socket of a simulator that understands the same bytes."""

from __future__ import annotations

import binascii
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hw.frames import ANSWER, BAD, BEATS, CRC_INIT, DAMAGED, DONE, GIVE, MOST_WORDS, READ, SHORT, TAKE, WRITE
from sim.driver.frames import Answer, Request
from sim.driver.port import DriverError, Port, refused

__all__ = ["ByteStream", "FramedPort"]

TRIES = 3
"""Times that a request is sent which the other end says not to have carried out."""
_REASONS = {DAMAGED: "its checksum was wrong", BAD: "it was none that the other end knows", SHORT: "it stopped early"}
_BEAT_WORDS = 4


class ByteStream(ABC):
    """Bytes to and from a device."""

    @abstractmethod
    def write(self, content: bytes) -> None:
        """Send all of it."""

    @abstractmethod
    def read(self, most: int, timeout: float) -> bytes:
        """What has come, at most so many bytes; empty if nothing comes within `timeout` seconds."""

    @abstractmethod
    def close(self) -> None:
        """Give the device back."""


class FramedPort(Port):
    """Requests with checksums over a byte stream, one at a time.

    A request that the other end did not carry out (it says so) is sent again. If an answer is damaged or does not come,
    nobody knows whether the request was carried out; that is an error, and the driver loads anew.

    Parameters
    ----------
    stream : the bytes.
    timeout : seconds until an answer must have come.
    silence : seconds without a byte after which the line is free of the rests of a damaged request.
    """

    def __init__(self, stream: ByteStream, *, timeout: float = 2.0, silence: float = 0.05) -> None:
        self.stream, self.timeout, self.silence = stream, timeout, silence
        self.repeated = 0
        """Requests that were sent again so far."""
        self._tag = 0
        self._held = b""

    def read32(self, offset: int) -> int:
        """Read a register."""
        return self.read_block(offset, 1)[0]

    def write32(self, offset: int, value: int) -> None:
        """Write a register."""
        self.write_block(offset, [value])

    def read_block(self, offset: int, count: int) -> list[int]:
        """Read one register `count` times."""
        found: list[int] = []
        while len(found) < count:
            size = min(MOST_WORDS, count - len(found))
            answer = self._ask(READ, offset, size)
            if answer.done < size:
                raise refused("read", offset)
            found += answer.words
        return found

    def write_block(self, offset: int, values: Sequence[int]) -> None:
        """Write successive values to one register."""
        for at in range(0, len(values), MOST_WORDS):
            words = tuple(values[at : at + MOST_WORDS])
            if self._ask(WRITE, offset, len(words), words).done < len(words):
                raise refused("write", offset)

    def send(self, beats: NDArray[np.uint8], ends: NDArray[np.bool_]) -> int:
        """Offer beats, as many as a request holds, up to the end of a tile."""
        size = min(len(beats), MOST_WORDS // _BEAT_WORDS)
        last = np.flatnonzero(ends[:size])
        if len(last):
            size = int(last[0]) + 1
        if not size:
            return 0
        words = tuple(np.ascontiguousarray(beats[:size]).view("<u4").ravel().tolist())
        return self._ask(BEATS, 0, len(words), words, last=bool(len(last))).done

    def give(self, beats: NDArray[np.uint8]) -> int:
        """Offer rows of maps, as many as a request holds."""
        part = np.ascontiguousarray(beats[: MOST_WORDS // _BEAT_WORDS]).view("<u4").ravel().tolist()
        return self._ask(GIVE, 0, len(part), tuple(part)).done if part else 0

    def take(self, most: int) -> NDArray[np.uint8]:
        """Rows of maps that stand at the array's output, as many as an answer holds."""
        count = min(most, MOST_WORDS // _BEAT_WORDS)
        answer = self._ask(TAKE, 0, _BEAT_WORDS * count) if count else Answer(0, DONE)
        found = np.array(answer.words[: _BEAT_WORDS * answer.done], "<u4")
        return found.view(np.uint8).reshape(-1, 4 * _BEAT_WORDS)

    def close(self) -> None:
        """Close the stream."""
        self.stream.close()

    def _ask(self, operation: int, offset: int, count: int, words: tuple[int, ...] = (), last: bool = False) -> Answer:
        """Send a request until it is carried out; returns the answer."""
        kind = DONE
        for attempt in range(TRIES):
            self._tag = (self._tag + 1) % 256
            self.stream.write(Request(self._tag, operation, offset, count, words, last=last).pack())
            answer = self._answer(count if operation in (READ, TAKE) else 0)
            if (kind := answer.kind) == DONE:
                return answer
            if kind == BAD and operation in (GIVE, TAKE):
                raise DriverError(
                    "the other end of the line knows no streams of maps: build its bridge with streams "
                    "(`hw.bridge.SerialHost`), or compile the network so that its maps stay on chip"
                )
            self._drain()
            self.repeated += attempt + 1 < TRIES
        raise DriverError(f"a request was not carried out in {TRIES} attempts: {_REASONS.get(kind, kind)}")

    def _answer(self, words: int) -> Answer:
        """The answer to the last request."""
        deadline = time.monotonic() + self.timeout
        while True:
            start = self._held.find(ANSWER)
            self._held = self._held[start:] if start >= 0 else b""
            size = 7 + 4 * self._held[3] if len(self._held) > 3 else 4
            if len(self._held) < size or len(self._held) < 7:
                self._held += self._more(deadline)
                continue
            held, self._held = self._held[:size], self._held[size:]
            if binascii.crc_hqx(held, CRC_INIT):
                self._drain()
                raise DriverError(
                    "an answer of the accelerator is damaged (its checksum is wrong); what was asked may have been "
                    "done: load again, and check the line"
                )
            tag, kind, count = held[1:4]
            if tag != self._tag:  # of a request that was given up
                continue
            if kind == DONE and count != words:
                raise DriverError(f"an answer has {count} words; expected {words}")
            found = tuple(int.from_bytes(held[n : n + 4], "little") for n in range(4, size - 3, 4))
            return Answer(tag, kind, held[-3], found)

    def _more(self, deadline: float) -> bytes:
        """More bytes, before the deadline."""
        found = self.stream.read(4096, max(0.0, deadline - time.monotonic()))
        if not found:
            raise DriverError(
                f"no answer within {self.timeout:g} s ({len(self._held)} bytes of one came): is the accelerator at "
                "this port, with this baud rate, and out of reset?"
            )
        return found

    def _drain(self) -> None:
        """Forget what comes until the line is silent."""
        self._held = b""
        while self.stream.read(4096, self.silence):
            pass
