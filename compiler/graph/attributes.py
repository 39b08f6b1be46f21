"""What an attribute can be, by its name: those of one name mean the same in every operator.

The rules of types compare and index with attributes, so what they get is a number, a text or a tuple of integers before
they see it, whoever wrote the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["attribute_error"]

LARGEST = 1 << 40
"""Beyond every size, place, shift and exponent; keeps arithmetic with a few of them within 64 bits."""

Kind = tuple[str, Callable[[Any], bool]]


def _integer(value: Any) -> bool:
    return type(value) is int and abs(value) <= LARGEST


def _number(value: Any) -> bool:
    return _integer(value) or (isinstance(value, float) and not math.isnan(value))


_INTEGER: Kind = ("an integer", _integer)
_INTEGERS: Kind = ("integers", lambda value: isinstance(value, tuple) and all(map(_integer, value)))
_NUMBER: Kind = ("a number", _number)
_TEXTS: Kind = ("texts", lambda value: isinstance(value, tuple) and all(isinstance(text, str) for text in value))
_TEXT: Kind = ("a text", lambda value: isinstance(value, str))
_TRUTH: Kind = ("true or false", lambda value: isinstance(value, bool))

_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("axis", "begin", "end", "step", "groups", "sequences", "left", "right", "weight"), _INTEGER),
    **dict.fromkeys(("exponent", "weight_exponent", "shift", "image", "rows"), _INTEGER),
    **dict.fromkeys(("shape", "stride", "padding", "dilation", "kernel", "order", "before", "after"), _INTEGERS),
    **dict.fromkeys(("strides", "paddings", "dilations", "group_counts", "weights", "weight_exponents"), _INTEGERS),
    "exponents": _INTEGERS,
    **dict.fromkeys(("kinds", "reads", "makes", "layouts"), _TEXTS),
    **dict.fromkeys(("low", "high"), _NUMBER),
    **dict.fromkeys(("layout", "kind", "activation", "function", "then"), _TEXT),
    **dict.fromkeys(("drop", "reverse", "exact"), _TRUTH),
}


def attribute_error(attributes: Mapping[str, Any]) -> str:
    """What is wrong with the first attribute that is not of its kind; empty if all are."""
    for name, value in attributes.items():
        kind, holds = _KINDS[name]
        if not holds(value):
            return f"{name} is {value!r:.80}; expected {kind}"
    return ""
