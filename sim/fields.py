"""What a line of JSON may hold: files of earlier runs are checked before they are believed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["wrong_fields"]

_WORDS = {str: "text", int: "whole numbers, 0 or more", float: "numbers, 0 or more", list: "lists", dict: "objects"}


def wrong_fields(plain: Mapping[str, Any], expected: Mapping[str, type]) -> str:
    """What is wrong with the fields of an object, in words; empty if nothing is.

    expected : of each field that must be there: str, list, dict, int (0 or more), float (finite, 0 or more).
    """
    if missing := [name for name in expected if name not in plain]:
        return f"it has no {', '.join(missing)}"
    for kind, words in _WORDS.items():
        if wrong := [name for name, each in expected.items() if each is kind and not _is(plain[name], kind)]:
            return f"{', '.join(wrong)} should be {words}"
    return ""


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):  # is an int to Python
        return False
    if kind is float:
        return isinstance(value, int | float) and 0 <= value <= sys.float_info.max  # an int may be more
    return isinstance(value, kind) and (not isinstance(value, int) or value >= 0)
