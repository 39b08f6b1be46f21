"""Arrays of numbers that are no codes: codebooks, biases. Each takes whichever lossless form is the smallest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiler.coding.wire import Reader, Writer, pack_bits, unpack_bits
from compiler.errors import CodingError

__all__ = ["read_floats", "read_integers", "write_floats", "write_integers"]

Int = NDArray[np.int64]

_RAW, _HALF, _BRAIN, _SCALED, _TABLE = range(5)
_PACKED, _RISING, _LISTED = range(3)

_MAX_WIDTH = 54  # bits of a packed integer; differences of 48-bit biases fit
_MAX_VALUE = (1 << 62) - 1
_MAX_EXPONENT = 300  # float32 needs −149 to 127
_MAX_SCALED = 1 << 40  # of a float as an integer
_MAX_TABLE = 255  # distinct values worth a table


def write_integers(writer: Writer, values: Int) -> None:
    """Append integers in whichever form is the smallest.

    Each in as many bits as the widest needs above the least; ascending ones as differences; a few distinct ones as a
    list, and which each is.
    """
    found = np.unique(values)
    plain = _integers(values)
    if len(found) <= _MAX_TABLE and 2 * len(found) < len(values):
        listed, width = Writer(), (len(found) - 1).bit_length()
        listed.byte(_LISTED << 6)
        listed.byte(len(found))
        listed.raw(_integers(found))
        listed.raw(pack_bits(np.searchsorted(found, values), width))
        plain = min(plain, bytes(listed.data), key=len)
    writer.raw(plain)


def _integers(values: Int) -> bytes:
    writer = Writer()
    least = int(values.min()) if len(values) else 0
    offsets = values - least
    steps = np.diff(values, prepend=values[:1]) if len(values) else values
    width, step_width = _width(offsets), _width(steps)
    rising = not len(values) or (int(steps.min()) >= 0 and step_width < width)
    writer.byte((_RISING if rising else _PACKED) << 6 | (step_width if rising else width))
    writer.signed(int(values[0]) if rising and len(values) else least)
    writer.raw(pack_bits(steps[1:] if rising else offsets, step_width if rising else width))
    return bytes(writer.data)


def read_integers(reader: Reader, count: int, what: str, limit: int = _MAX_VALUE) -> Int:
    """`count` integers that `write_integers` wrote, none beyond `limit` in magnitude."""
    head = reader.byte(f"{what}: form of the integers", _LISTED << 6)
    if head == _LISTED << 6:
        size = reader.byte(f"{what}: size of the list", _MAX_TABLE)
        found = _read_integers(reader, size, reader.byte(f"{what}: form of the list", _LISTED << 6), what, limit)
        width = max(size - 1, 0).bit_length()
        picks = unpack_bits(reader.raw((count * width + 7) // 8, what), count, width)
        if count and int(picks.max(initial=0)) >= size:
            raise CodingError(f"{what}: an integer beyond the list of {size}")
        return found[picks]
    return _read_integers(reader, count, head, what, limit)


def _read_integers(reader: Reader, count: int, head: int, what: str, limit: int) -> Int:
    rising, width = head >> 6 == _RISING, head & 63
    if width > _MAX_WIDTH:
        raise CodingError(f"{what}: integers of {width} bits; expected at most {_MAX_WIDTH}")
    first = reader.signed(f"{what}: first integer", limit)
    stored = max(count - 1, 0) if rising else count
    data = reader.raw((stored * width + 7) // 8, what)
    parts = unpack_bits(data, stored, width)
    # Sums in floats first: wrapping would hide a lie.
    if rising and float(parts.astype(np.float64).sum()) > 2.0 * _MAX_VALUE:
        raise CodingError(f"{what}: an integer beyond {limit}")
    values: Int = (np.concatenate([[0], np.cumsum(parts)])[:count] if rising else parts) + first
    if count and max(-int(values.min()), int(values.max())) > limit:
        raise CodingError(f"{what}: an integer beyond {limit}")
    return values


def write_floats(writer: Writer, values: NDArray[np.float32]) -> None:
    """float32 (n,), finite: as integers times a power of two, as half or brain floats, by a table, or as they are."""
    forms = [_raw(values), _half(values), _brain(values), _scaled(values), _table(values)]
    writer.raw(min((form for form in forms if form is not None), key=len))


def read_floats(reader: Reader, count: int, what: str) -> NDArray[np.float32]:
    """What `write_floats` wrote; finite.

    Raises
    ------
    CodingError
        The file ends before, or holds what is no array of `count` finite floats.
    """
    form = reader.byte(f"{what}: form of the floats", _TABLE)
    if form == _TABLE:
        table = _read_plain(reader, reader.byte(f"{what}: form of the table", _SCALED), -1, what)
        width = max(len(table) - 1, 0).bit_length()
        picks = unpack_bits(reader.raw((count * width + 7) // 8, what), count, width)
        if count and int(picks.max(initial=0)) >= len(table):
            raise CodingError(f"{what}: a value beyond the table of {len(table)}")
        return table[picks]
    return _read_plain(reader, form, count, what)


def _read_plain(reader: Reader, form: int, count: int, what: str) -> NDArray[np.float32]:
    if count < 0:
        count = reader.byte(f"{what}: size of the table", _MAX_TABLE)
        if not count:
            raise CodingError(f"{what}: an empty table")
    values: NDArray[np.float32]
    if form == _RAW:
        values = np.frombuffer(reader.raw(4 * count, what), "<f4").astype(np.float32)
    elif form == _HALF:
        values = np.frombuffer(reader.raw(2 * count, what), "<f2").astype(np.float32)
    elif form == _BRAIN:
        wide = np.frombuffer(reader.raw(2 * count, what), "<u2").astype(np.uint32) << 16
        values = wide.view(np.float32)
    else:
        exponent = reader.signed(f"{what}: exponent", _MAX_EXPONENT)
        whole = read_integers(reader, count, what, limit=_MAX_SCALED)
        with np.errstate(over="ignore"):
            values = np.ldexp(whole.astype(np.float64), exponent).astype(np.float32)
    if not np.isfinite(values).all():
        raise CodingError(f"{what}: a value is not finite")
    return values


def _raw(values: NDArray[np.float32]) -> bytes:
    return bytes([_RAW]) + values.astype("<f4").tobytes()


def _half(values: NDArray[np.float32]) -> bytes | None:
    with np.errstate(over="ignore"):
        half = values.astype("<f2")
    return bytes([_HALF]) + half.tobytes() if _same(half.astype(np.float32), values) else None


def _brain(values: NDArray[np.float32]) -> bytes | None:
    bits = values.view(np.uint32)
    return None if (bits & 0xFFFF).any() else bytes([_BRAIN]) + (bits >> 16).astype("<u2").tobytes()


def _scaled(values: NDArray[np.float32]) -> bytes | None:
    """As integers, times the largest power of two that divides all values."""
    writer = Writer()
    writer.byte(_SCALED)
    exponent = _common_exponent(values)
    with np.errstate(over="ignore"):
        whole = np.ldexp(values.astype(np.float64), -exponent)
    if np.abs(whole).max(initial=0) > _MAX_SCALED:
        return None
    integers = whole.astype(np.int64)
    if not _same(np.ldexp(integers.astype(np.float64), exponent).astype(np.float32), values):
        return None  # a negative zero
    writer.signed(exponent)
    write_integers(writer, integers)
    return bytes(writer.data)


def _table(values: NDArray[np.float32]) -> bytes | None:
    """The distinct values and, for each, which."""
    found, picks = np.unique(values.view(np.uint32), return_inverse=True)
    if not 1 <= len(found) <= _MAX_TABLE or len(found) == len(values):
        return None
    table = found.view(np.float32)
    order = np.argsort(table, kind="stable")
    rank = np.argsort(order, kind="stable")
    forms = [write(table[order]) for write in (_raw, _half, _brain, _scaled)]
    best = min((form for form in forms if form is not None), key=len)
    width = (len(found) - 1).bit_length()
    return bytes([_TABLE, best[0], len(found)]) + best[1:] + pack_bits(rank[picks].astype(np.int64), width)


def _common_exponent(values: NDArray[np.float32]) -> int:
    """Largest e with every value a multiple of 2**e; 0 if all are 0."""
    nonzero = values[values != 0]
    if not len(nonzero):
        return 0
    mantissa, exponent = np.frexp(nonzero.astype(np.float64))
    whole = np.abs(mantissa * (1 << 24)).astype(np.int64)  # exact: float32 has 24 bits
    trailing = np.log2((whole & -whole).astype(np.float64)).astype(np.int64)  # exact for powers of two
    return int((exponent.astype(np.int64) - 24 + trailing).min())


def _same(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    """Equal in every bit."""
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


def _width(values: Int) -> int:
    return int(values.max()).bit_length() if len(values) else 0
