"""What a search varies: any field of a recipe or of the array, named by its path."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compiler.errors import RecipeError
from compiler.train.table import Table

__all__ = ["Variable", "paths", "place", "replaced", "variables_of"]

_SHOWN = 40
"""Paths that a message names."""

Value = int | float | str | bool


@dataclass(frozen=True)
class Variable:
    """One field and the values that it may have.

    Attributes
    ----------
    path : such as ``stages.prune.density.fc1``; a list is entered by the name of an entry, or its number.
    low, high : both belong to the range; 0 for a list of choices. whole : integers only. log : by ratios.
    choices : instead of a range.
    """

    path: str
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False
    choices: tuple[Value, ...] = ()

    @property
    def ends(self) -> tuple[Value, ...]:
        """Values that have to be legal for all to be: both ends of a range, or every choice."""
        if self.choices:
            return self.choices
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def asdict(self) -> dict[str, Any] | list[Value]:
        """As a recipe says it."""
        if self.choices:
            return list(self.choices)
        return {"low": self.ends[0], "high": self.ends[1], "log": self.log}


def variables_of(table: Table) -> tuple[Variable, ...]:
    """The table ``[search.variables]``: path → ``{ low, high, log }``, or a list of choices.

    A range of integers has integers as its ends. Raises `RecipeError`.
    """
    found = []
    for path in list(table.content):
        content = table.content[path]
        where = f"{table.source}: {table.where}.{path}"
        if isinstance(content, list):
            found.append(_choices(table, path, where))
        elif isinstance(content, Mapping) and {"low", "high"} & content.keys():
            found.append(_range(table.table(path), path, where))
        elif isinstance(content, Mapping):
            raise RecipeError(
                f"{where} is a table without low and high; expected {{ low = …, high = … }} or a list of choices, and "
                f'a path of several parts in quotes: "{path}.…" = …'
            )
        else:
            raise RecipeError(f"{where} is {content!r}; expected {{ low = …, high = … }} or a list of choices")
    if not found:
        raise RecipeError(f"{table.source}: {table.where} is empty; expected a variable at least")
    return tuple(found)


def _choices(table: Table, path: str, where: str) -> Variable:
    content = table.content.pop(path)
    if len(content) < 2 or not all(isinstance(each, Value) for each in content) or len(set(content)) < len(content):
        raise RecipeError(f"{where} is {content!r}; expected two or more different numbers, texts or truth values")
    return Variable(path, choices=tuple(content))


def _range(table: Table, path: str, where: str) -> Variable:
    whole = all(type(table.content.get(key)) is int for key in ("low", "high"))
    low, high = (table.number(key, -1e30, 1e30) for key in ("low", "high"))
    log = table.flag("log", default=False)
    table.finish()
    if low >= high:
        raise RecipeError(f"{where}: low is {low:g} and high {high:g}; expected low below high")
    if log and low <= 0:
        raise RecipeError(f"{where}: low is {low:g}; with log expected above 0")
    return Variable(path, low, high, whole, log)


def paths(tree: Any, before: str = "") -> Iterator[str]:
    """Every path of a tree of tables and lists that leads to a single value."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from paths(value, f"{before}{key}.")
    elif isinstance(tree, Sequence) and not isinstance(tree, str):
        for number, value in enumerate(tree):
            name = value.get("name", number) if isinstance(value, Mapping) else number
            yield from paths(value, f"{before}{name}.")
    else:
        yield before[:-1]


def place(tree: Any, path: str, source: str, new: bool = False) -> tuple[Any, Any]:
    """Where a path leads: what holds the value, and the key or number of it there.

    Keys may have dots of their own, as those of layers do. With `new` the last key may be missing in its table: recipes
    leave out what is as usual.

    Raises
    ------
    RecipeError
        There is no such path; the message says how far it goes and which paths there are.
    """
    holder, rest, walked = tree, path, ""
    while True:
        options = dict(_steps(holder))
        # The longest key first: "rnn.weight" before "rnn".
        key = next((k for k in sorted(options, key=len, reverse=True) if rest == k or rest.startswith(f"{k}.")), None)
        if key is None and new and isinstance(holder, Mapping) and walked:
            return holder, rest
        if key is None:
            raise RecipeError(f"{source}: there is no {path}; {_instead(tree, holder, walked)}")
        spot, walked = options[key], f"{walked}.{key}" if walked else key
        if rest == key:
            break
        holder, rest = holder[spot], rest[len(key) + 1 :]
    if isinstance(holder[spot], Mapping | list):
        there = ", ".join(list(paths(holder[spot], f"{path}."))[:_SHOWN])
        raise RecipeError(f"{source}: {path} is no single value; expected one of {there or 'nothing'}")
    return holder, spot


def _steps(holder: Any) -> Iterator[tuple[str, Any]]:
    """What a step of a path may be called → key or number."""
    if isinstance(holder, Mapping):
        yield from ((str(key), key) for key in holder)
    elif isinstance(holder, list):
        for number, value in enumerate(holder):
            yield str(number), number
            if isinstance(value, Mapping) and isinstance(value.get("name"), str):
                yield value["name"], number


def _instead(tree: Any, holder: Any, walked: str) -> str:
    if not isinstance(holder, Mapping | list):
        return f"{walked} is {holder!r}, a single value"
    below = list(paths(holder, f"{walked}." if walked else ""))
    more = f" and {len(below) - _SHOWN} more" if len(below) > _SHOWN else ""
    return f"expected one of {', '.join(below[:_SHOWN])}{more}"


def replaced(tree: Mapping[str, Any], values: Mapping[str, Value], source: str) -> dict[str, Any]:
    """A copy of a tree with other values at some paths, whose last keys may be new. Raises `RecipeError` as `place`."""
    changed = copy.deepcopy(dict(tree))
    for path, value in values.items():
        holder, spot = place(changed, path, source, new=True)
        holder[spot] = value
    return changed
