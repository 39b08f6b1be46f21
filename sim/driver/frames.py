"""Requests and answers of the serial port as bytes; docs/driver.md and `hw.frames` define them."""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hw.frames import (
    ANSWER,
    BAD,
    BEATS,
    CRC_INIT,
    DAMAGED,
    DONE,
    GIVE,
    INCREMENT,
    LAST,
    MOST_WORDS,
    READ,
    REQUEST,
    SHORT,
    TAKE,
    WRITE,
)

__all__ = ["HEAD_BYTES", "Answer", "Receiver", "Request", "checked", "done"]

HEAD_BYTES = 6
"""Of a request: what comes before its words."""
_OPERATION, _RESERVED = 0x0F, 0xC0


def checked(content: bytes) -> bytes:
    """The bytes with their checksum."""
    return content + binascii.crc_hqx(content, CRC_INIT).to_bytes(2, "big")


@dataclass(frozen=True)
class Request:
    """One request. words : of a write, or four for each beat offered; count : words read, written, offered or taken."""

    tag: int
    operation: int
    offset: int
    count: int
    words: tuple[int, ...] = ()
    increment: bool = False
    last: bool = False

    def pack(self) -> bytes:
        """The bytes that are sent."""
        command = self.operation | INCREMENT * self.increment | LAST * self.last
        content = bytes([REQUEST, self.tag, command, self.count]) + self.offset.to_bytes(2, "little")
        return checked(content + b"".join(word.to_bytes(4, "little") for word in self.words))


@dataclass(frozen=True)
class Answer:
    """One answer. done : accesses without an error, or beats taken; words : of a read or of beats, 0 behind those."""

    tag: int
    kind: int
    done: int = 0
    words: tuple[int, ...] = ()

    def pack(self) -> bytes:
        """The bytes that are sent."""
        words = b"".join(word.to_bytes(4, "little") for word in self.words)
        return checked(bytes([ANSWER, self.tag, self.kind, len(self.words)]) + words + bytes([self.done]))


class Receiver:
    """The accelerator's end of the line in Python, as `hw.bridge.Bridge` is it in hardware.

    Parameters
    ----------
    beats : the refill stream is there. streams : those of maps are.
    """

    def __init__(self, beats: bool = True, streams: bool = False) -> None:
        self._operations = (READ, WRITE, *((BEATS,) if beats else ()), *((GIVE, TAKE) if streams else ()))
        self._held = b""

    def feed(self, received: bytes) -> Iterator[Request | Answer]:
        """Requests that are complete, to be carried out; and for those that are wrong, the answer that says so."""
        self._held += received
        while True:
            start = self._held.find(REQUEST)
            self._held = self._held[start:] if start >= 0 else b""
            held = self._held
            if len(held) < HEAD_BYTES:
                return
            tag, command, count = held[1:4]
            offset, operation = int.from_bytes(held[4:6], "little"), command & _OPERATION
            beats = operation in (BEATS, GIVE, TAKE)
            if (
                operation not in self._operations or command & _RESERVED or not 0 < count <= MOST_WORDS
                or offset >> 12 or (beats and (count % 4 or offset))
            ):  # fmt: skip
                self._held = held[HEAD_BYTES:]
                yield Answer(tag, BAD)
                continue
            size = HEAD_BYTES + (0 if operation in (READ, TAKE) else 4 * count) + 2
            if len(held) < size:
                return
            self._held = held[size:]
            if binascii.crc_hqx(held[:size], CRC_INIT):
                yield Answer(tag, DAMAGED)
                continue
            content = held[HEAD_BYTES : size - 2]
            words = tuple(int.from_bytes(content[n : n + 4], "little") for n in range(0, len(content), 4))
            yield Request(tag, operation, offset, count, words, bool(command & INCREMENT), bool(command & LAST))

    def silent(self) -> Answer | None:
        """The line is silent within a request: it is given up."""
        held, self._held = self._held, b""
        return Answer(held[1] if len(held) > 1 else 0, SHORT) if held else None


def done(request: Request, count: int, words: Sequence[int] = ()) -> Answer:
    """The answer to a request of which `count` accesses were carried out without an error."""
    filled = (*words, *[0] * (request.count - len(words))) if request.operation in (READ, TAKE) else ()
    return Answer(request.tag, DONE, count, filled)
