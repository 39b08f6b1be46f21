"""Byte protocol of the serial port, written once: the bridge in hardware and the driver's port derive from it.

docs/driver.md describes it for people.
"""

from __future__ import annotations

from amaranth.lib import data

__all__ = [
    "ANSWER", "BAD", "BEATS", "CRC_INIT", "CRC_POLYNOMIAL", "DAMAGED", "DONE", "GIVE", "INCREMENT", "LAST",
    "MOST_WORDS", "READ", "REQUEST", "SHORT", "TAKE", "WRITE", "command", "head",
]  # fmt: skip

REQUEST, ANSWER = 0xE1, 0x1E
"""First byte of a request and of an answer."""

READ, WRITE, BEATS, GIVE, TAKE = 1, 2, 3, 4, 5
"""Operations: read registers, write registers, offer beats to the refill stream, offer rows of maps to the array, take
those that it sends."""
INCREMENT, LAST = 0x10, 0x20
"""Flags of a command: the offset grows by 4 from word to word; the last beat of the request carries TLAST."""

DONE, DAMAGED, BAD, SHORT = range(4)
"""Kinds of an answer: carried out; or nothing was done, because the checksum is wrong, there is no such command, or
the request stopped in the middle."""

MOST_WORDS = 64
"""32-bit words in a request or an answer; a beat has four."""

CRC_POLYNOMIAL, CRC_INIT = 0x1021, 0xFFFF
"""Checksum over all bytes before it, the first one included; its high byte is sent first."""


def command() -> data.StructLayout:
    """The command byte of a request."""
    return data.StructLayout({"operation": 4, "increment": 1, "last": 1, "reserved": 2})


def head() -> data.StructLayout:
    """What follows the first byte of a request. The tag comes back in the answer; beats have offset 0."""
    return data.StructLayout({"tag": 8, "command": command(), "count": 8, "offset": 12, "reserved": 4})
