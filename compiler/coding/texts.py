"""Texts of a file: deflated behind a dictionary that both sides know."""

from __future__ import annotations

import zlib

from compiler.coding.wire import Reader, Writer
from compiler.errors import CodingError, ModelError

__all__ = ["MAX_TEXT", "deflate", "inflated"]

MAX_TEXT = 1 << 22
"""Bytes of the text of a graph."""


def deflate(writer: Writer, text: bytes, dictionary: bytes, what: str, most: int) -> None:
    """Append the size of a deflated text, and the text. Raises `ModelError` if it is longer than `most`."""
    if len(text) > most:
        raise ModelError(f"{what} takes {len(text)} bytes; a file holds at most {most}")
    stream = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=dictionary)
    packed = stream.compress(text) + stream.flush() if text else b""
    writer.varint(len(packed))
    writer.raw(packed)


def inflated(reader: Reader, dictionary: bytes, what: str, most: int) -> bytes:
    """The text that `deflate` appended."""
    packed = reader.raw(reader.varint(f"size of {what}", most), what)
    if not packed:
        return b""
    stream = zlib.decompressobj(-15, zdict=dictionary)
    try:
        text = stream.decompress(packed, most)
    except zlib.error as error:
        raise CodingError(f"{what}: not readable ({error})") from None
    if not stream.eof or stream.unused_data:
        raise CodingError(f"{what}: more than {most} bytes, or it does not end with its text")
    return text
