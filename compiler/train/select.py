"""Selection of weights by patterns of their keys or of the modules that they are in."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from compiler.errors import ModelError

__all__ = ["Patterns", "chosen"]

Patterns = str | Sequence[str]
"""One pattern or several: names with ``*``, ``?`` and ``[…]`` as in file names."""


def chosen(keys: Sequence[str], only: Patterns | None = None, ignore: Patterns = ()) -> list[str]:
    """The keys that some pattern of `only` matches (None: all) and none of `ignore`, in their order.

    A pattern matches a key, or the path of a module that the weight is in: "encoder" and "encoder.*" both stand for
    "encoder.layers.0.linear1", and "head" for a layer of that name and for all within one.

    Raises
    ------
    ModelError
        A pattern matches nothing, or nothing is left.
    """
    wanted, unwanted = [None if each is None else _listed(each) for each in (only, ignore)]
    for pattern in (*(wanted or ()), *(unwanted or ())):
        if not any(_matches(key, pattern) for key in keys):
            raise ModelError(f"{pattern!r} matches no weight; the weights are {', '.join(keys) or 'none'}")
    found = [
        key
        for key in keys
        if (wanted is None or any(_matches(key, each) for each in wanted))
        and not any(_matches(key, each) for each in unwanted or ())
    ]
    if keys and not found:
        raise ModelError(f"only = {only!r} and ignore = {ignore!r} leave none of the weights {', '.join(keys)}")
    return found


def _listed(patterns: Patterns) -> list[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns)


def _matches(key: str, pattern: str) -> bool:
    parts = key.split(".")
    return any(fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))
