"""Population count."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth import Cat, Value

__all__ = ["added", "ones"]


def ones(bits: Iterable[object]) -> Value:
    """Number of ones among one-bit values, as a balanced tree of additions."""
    return added(Cat(bit) for bit in bits)


def added(values: Iterable[Value]) -> Value:
    """Sum of values, as a balanced tree of additions."""
    terms: list[Value] = list(values)
    while len(terms) > 1:
        paired: list[Value] = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = paired + ([terms[-1]] if len(terms) % 2 else [])
    return terms[0]
