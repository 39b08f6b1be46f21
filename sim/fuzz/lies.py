"""Ways to make something wrong out of something right: bytes, numbers, texts, and values such as JSON and TOML hold."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

__all__ = ["lie_bytes", "lie_value", "number", "parse_tensors", "text", "write_tensors"]

_NUMBERS = (
    0, 1, -1, 2, 3, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, -128, 32767, 32768, -32768, -32769, 65535, 65536,
    (1 << 20) - 1, 1 << 20, (1 << 24) - 1, 1 << 24, (1 << 28) + 1, (1 << 31) - 1, 1 << 31, -(1 << 31), (1 << 32) - 1,
    1 << 32, 1 << 53, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, -(1 << 63), 10**30,
)  # fmt: skip

_TEXTS = (
    "", " ", "a", "x" * 5000, "\0", "\n", "../../etc/passwd", "/dev/zero", "é∂", "\x1b[31m", "\ud800", "%s{0}", "nan",
    "1e999", "C", "HWC", "CHW", "relu", "none", "Input", "Array", "Scan",
)  # fmt: skip


def number(random: Random, near: int | None = None, bits: int | None = None) -> int:
    """A number at which something may break, or one beside `near`; of `bits` bits without a sign if they are given."""
    if near is not None and random.random() < 0.5:
        made = random.choice((near + 1, near - 1, -near, 2 * near, near // 2, near ^ 1 << random.randrange(16)))
    else:
        made = random.choice(_NUMBERS)
    return made if bits is None else made & (1 << bits) - 1


def text(random: Random) -> str:
    """A text that nobody expects."""
    return random.choice(_TEXTS)


def lie_bytes(random: Random, data: bytes, begin: int = 0, edits: int = 3) -> bytes:
    """Some bytes from `begin` on changed, cut out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(random.randint(1, edits)):
        if len(changed) <= begin:
            break
        at = random.randrange(begin, len(changed))
        match random.randrange(9):
            case 0:
                changed[at] ^= 1 << random.randrange(8)
            case 1:
                changed[at] = random.choice((0, 1, 127, 128, 254, 255))
            case 2:
                del changed[at : at + random.randint(1, 8)]
            case 3:
                changed[at:at] = random.randbytes(random.randint(1, 6))
            case 4:
                changed[at:at] = b"\xff" * random.randint(1, 10)
            case 5:
                size = random.choice((1, 2, 4, 8))
                changed[at : at + size] = number(random, None, 8 * size).to_bytes(
                    size, random.choice(("little", "big"))
                )
            case 6:
                size = random.randint(1, 64)
                changed[at:at] = changed[at : at + size]
            case 7:
                other, size = random.randrange(begin, len(changed)), random.randint(1, 32)
                changed[at : at + size] = changed[other : other + size]
            case _:
                del changed[at:]
    return bytes(changed)


def lie_value(random: Random, value: Any) -> Any:
    """A value of dictionaries, lists, numbers and texts with one of them changed, anywhere in it."""
    ways = _places(value)
    path = random.choice(ways)
    # Most leaves of a file stand deep in long lists; the rest shall be reached as often.
    if random.random() < 0.5:
        depth = random.randint(0, max(map(len, ways)))
        path = random.choice([way for way in ways if len(way) <= depth])
    return _changed(random, value, path, lambda found: _wrong(random, found, value))


def _places(value: Any, most: int = 4000) -> list[tuple[Any, ...]]:
    """The ways to all that is in a value, and to itself."""
    found: list[tuple[Any, ...]] = []
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    while waiting and len(found) < most:
        path, here = waiting.pop()
        found.append(path)
        if isinstance(here, dict):
            waiting += [((*path, key), part) for key, part in here.items()]
        elif isinstance(here, list):
            waiting += [((*path, at), part) for at, part in enumerate(here)]
    return found


_DELETED = object()


def _changed(random: Random, value: Any, path: Sequence[Any], change: Callable[[Any], Any]) -> Any:
    """A copy in which the part at `path` is changed; all else is shared."""
    if not path:
        made = change(value)
        return None if made is _DELETED else made
    key, *rest = path
    part = _changed(random, value[key], rest, change) if rest else change(value[key])
    if isinstance(value, dict):
        copied = dict(value)
        if part is _DELETED:
            del copied[key]
        else:
            copied[key] = part
        return copied
    items = list(value)
    items[key : key + 1] = [] if part is _DELETED else [part]
    return items


def _wrong(random: Random, found: Any, whole: Any) -> Any:
    """Something else in place of what was found."""
    way = random.random()
    if way < 0.08:
        return _DELETED
    if way < 0.16:
        other: Any = whole
        for key in random.choice(_places(whole)):
            other = other[key]
        return other
    if way < 0.26:
        return random.choice(
            (None, True, [], {}, [[]], 0.5, float("nan"), float("inf"), -0.0, number(random), text(random))
        )
    if isinstance(found, bool):
        return not found
    if isinstance(found, int):
        return number(random, found)
    if isinstance(found, float):
        return random.choice((0.0, -found, found * 1e300, found * 1e-300, float("nan"), float("inf"), found + 1))
    if isinstance(found, str):
        return random.choice((text(random), found + "x", found[:-1], found.upper(), found * 2))
    if isinstance(found, list) and found:
        at = random.randrange(len(found))
        return random.choice((
            [*found, found[at]], found[:at], found[at:], found[::-1], found * random.choice((2, 100)), [*found, None],
        ))  # fmt: skip
    if isinstance(found, dict) and found:
        key = random.choice(list(found))
        return random.choice((
            {**found, "extra": found[key]}, {name: found[name] for name in found if name != key},
            {**found, key: found[random.choice(list(found))]},
        ))  # fmt: skip
    return number(random)


def parse_tensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the bytes of the tensors of a safetensors file that is right."""
    import json

    (size,) = struct.unpack("<Q", data[:8])
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    return header, data[8 + size :]


def write_tensors(header: Any, content: bytes) -> bytes:
    """A safetensors file with whatever header; made here because the library writes only right ones."""
    import json

    coded = json.dumps(header).encode()
    return struct.pack("<Q", len(coded)) + coded + content
