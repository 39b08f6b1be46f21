"""Names of tensors: what they share with the name before is not written again."""

from __future__ import annotations

import itertools

from compiler.coding.wire import Reader, Writer
from compiler.errors import CodingError

__all__ = ["read_name", "write_name"]

_SUFFIXES = ("", ".weight", ".bias")
_MAX_BYTES = 1000
_SHARED = 15  # characters that a name can take from the one before


def write_name(writer: Writer, name: str, before: str) -> None:
    """One byte (characters taken from the stem before, ending, whether all is said), then the rest of the stem."""
    ending = max((n for n, suffix in enumerate(_SUFFIXES) if name.endswith(suffix)), key=lambda n: len(_SUFFIXES[n]))
    stem = name[: len(name) - len(_SUFFIXES[ending])]
    same = (a == b for a, b in zip(stem, _stem(before), strict=False))
    shared = sum(1 for _ in itertools.takewhile(bool, itertools.islice(same, _SHARED)))
    rest = stem[shared:].encode()
    writer.byte(shared << 3 | ending << 1 | bool(rest))
    if rest:
        writer.varint(len(rest))
        writer.raw(rest)


def read_name(reader: Reader, before: str) -> str:
    """The name that `write_name` wrote after `before`."""
    head = reader.byte("a name", _SHARED << 3 | 7)
    shared, ending = head >> 3, head >> 1 & 3
    stem = _stem(before)
    if shared > len(stem) or ending >= len(_SUFFIXES):
        raise CodingError("a name refers to more than the name before has")
    rest = b""
    if head & 1:
        rest = reader.raw(reader.varint("length of a name", _MAX_BYTES, 1), "a name")
    try:
        return stem[:shared] + rest.decode() + _SUFFIXES[ending]
    except UnicodeDecodeError:
        raise CodingError("a name is not UTF-8") from None


def _stem(name: str) -> str:
    for suffix in _SUFFIXES[1:]:
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name
