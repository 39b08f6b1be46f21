"""Messages of protobuf without their schema: taken apart by what looks like a message, lied about, and put together."""

from __future__ import annotations

from random import Random

from sim.fuzz.lies import lie_bytes, number, text

__all__ = ["Fields", "lie_fields", "parse", "write"]

Fields = list[tuple[int, int, "int | bytes | Fields"]]
"""(number, wire type, value) of each field: an integer, bytes, or fields of a message."""

_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("no varint")


def parse(data: bytes, depth: int = 0) -> Fields:
    """The fields of a message. Raises `ValueError` or `IndexError` if it is none."""
    found: Fields = []
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if not key >> 3:
            raise ValueError("no field 0")
        if kind == _VARINT:
            value, at = _varint(data, at)
            found.append((key >> 3, kind, value))
            continue
        size = {_EIGHT: 8, _FOUR: 4}.get(kind, -1)
        if kind == _LENGTH:
            size, at = _varint(data, at)
        if size < 0 or at + size > len(data):
            raise ValueError("no message")
        part = data[at : at + size]
        at += size
        inner: bytes | Fields = part
        if kind == _LENGTH and size > 1 and depth < 6 and not part.isascii():
            inner = _inner(part, depth)
        elif kind == _LENGTH and size > 3 and depth < 6 and min(part) < 32:
            inner = _inner(part, depth)
        found.append((key >> 3, kind, inner))
    return found


def _inner(part: bytes, depth: int) -> bytes | Fields:
    try:
        return parse(part, depth + 1)
    except (ValueError, IndexError):
        return part


def write(fields: Fields) -> bytes:
    """The message of fields."""
    made = bytearray()
    for place, kind, value in fields:
        made += _coded(place << 3 | kind)
        if isinstance(value, int):
            made += _coded(value)
            continue
        part = write(value) if isinstance(value, list) else value
        made += (_coded(len(part)) if kind == _LENGTH else b"") + part
    return bytes(made)


def _coded(value: int) -> bytes:
    value &= (1 << 64) - 1
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


def lie_fields(random: Random, fields: Fields) -> Fields:
    """The same with one field changed, left out, doubled, or taken from elsewhere."""
    if not fields:
        return [(random.randint(1, 20), _VARINT, number(random))]
    at = random.randrange(len(fields))
    place, kind, value = fields[at]
    if isinstance(value, list) and random.random() < 0.85:
        return [*fields[:at], (place, kind, lie_fields(random, value)), *fields[at + 1 :]]
    way = random.random()
    if way < 0.12:
        return [*fields[:at], *fields[at + 1 :]]
    if way < 0.22:
        return [*fields, fields[at]]
    if way < 0.3:
        other = random.choice(fields)
        return [*fields[:at], (place, other[1], other[2]), *fields[at + 1 :]]
    if way < 0.36:
        return [*fields[:at], (random.randint(1, 20), kind, value), *fields[at + 1 :]]
    if way < 0.4:
        shuffled = list(fields)
        random.shuffle(shuffled)
        return shuffled
    changed: int | bytes
    if isinstance(value, int):
        changed = number(random, value)
    else:
        raw = write(value) if isinstance(value, list) else value
        if kind == _LENGTH:
            changed = random.choice((lie_bytes(random, raw), text(random).encode("utf-8", "replace"), raw * 2, b""))
        else:
            changed = random.randbytes(len(raw))
    return [*fields[:at], (place, kind, changed), *fields[at + 1 :]]
