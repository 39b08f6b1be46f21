"""What a repr says of things that hold many others: the first few, and how many there are besides."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["few"]

MOST = 4


def few(things: Iterable[object]) -> str:
    """The first of `things`, separated by commas, and the number of those left out."""
    texts = [str(thing) for thing in things]
    rest = f" and {len(texts) - MOST} more" if len(texts) > MOST else ""
    return ", ".join(texts[:MOST]) + rest
