"""A TOML table taken apart key by key; what is wrong is named with its full key, its value and what is legal."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from compiler.errors import RecipeError

__all__ = ["SEED_LIMIT", "Table", "read_toml"]

SEED_LIMIT = (1 << 32) - 1
"""Largest seed of a recipe."""

MOST_BYTES = 1 << 15
"""Of a recipe: what is far longer is none, and TOML of many dots takes time by the square of its length."""

_MISSING: Any = object()


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a recipe. Raises `RecipeError` if the file cannot be read or is not TOML."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise RecipeError(f"{path} has {path.stat().st_size} bytes; expected a recipe of at most {MOST_BYTES}")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    except ValueError as error:  # also a number of too many digits
        raise RecipeError(f"{path} is not valid TOML: {error}") from error
    except RecursionError:
        raise RecipeError(f"{path} is nested too deeply for a recipe") from None


class Table:
    """A TOML table that is taken apart key by key; what is wrong is named with its full key."""

    def __init__(self, content: Any, source: str, where: str) -> None:
        self.source, self.where = source, where
        if not isinstance(content, Mapping):
            raise RecipeError(f"{source}: {where} is {content!r}; expected a table")
        self.content = dict(content)

    def integer(self, key: str, low: int, high: int, default: Any = _MISSING) -> int:
        """A whole number."""

        def legal(value: Any) -> bool:
            return type(value) is int and low <= value <= high

        return int(self._take(key, legal, f"an integer from {low} to {high}", default))

    def number(
        self,
        key: str,
        low: float,
        high: float,
        default: Any = _MISSING,
        low_included: bool = False,
        high_included: bool = False,
    ) -> float:
        """A number; the limits belong to it only where that is said."""

        def legal(value: Any) -> bool:
            if type(value) not in (int, float):
                return False
            return low < value < high or (low_included and value == low) or (high_included and value == high)

        words = f"a number {'from' if low_included else 'above'} {low} {'to' if high_included else 'to below'} {high}"
        return float(self._take(key, legal, words, default))

    def text(self, key: str, default: Any = _MISSING) -> str:
        """A text."""

        def legal(value: Any) -> bool:
            return isinstance(value, str) and value != ""

        return str(self._take(key, legal, "a text that is not empty", default))

    def choice(self, key: str, among: Any, default: Any = _MISSING) -> str:
        """One of several texts."""

        def legal(value: Any) -> bool:
            return isinstance(value, str) and value in among

        return str(self._take(key, legal, f"one of {', '.join(among)}", default))

    def integers(self, key: str, low: int, high: int, default: Any = _MISSING) -> tuple[int, ...]:
        """A list of whole numbers."""

        def legal(value: Any) -> bool:
            return isinstance(value, list) and all(type(item) is int and low <= item <= high for item in value)

        return tuple(self._take(key, legal, f"a list of integers from {low} to {high}", default))

    def texts(self, key: str, default: Any = _MISSING) -> tuple[str, ...]:
        """A list of texts."""

        def legal(value: Any) -> bool:
            return isinstance(value, list) and all(isinstance(item, str) and item != "" for item in value)

        return tuple(self._take(key, legal, "a list of texts that are not empty", default))

    def numbers(self, key: str, low: float, high: float, default: Any = _MISSING) -> tuple[float, ...]:
        """A list of numbers between the limits."""

        def legal(value: Any) -> bool:
            return isinstance(value, list) and all(type(item) in (int, float) and low < item < high for item in value)

        return tuple(self._take(key, legal, f"a list of numbers above {low} and below {high}", default))

    def per_layer(self, key: str, layers: Sequence[str] | None, one: Callable[[Table, str], Any]) -> Any:
        """One value for all layers, or a table with a value for each.

        Parameters
        ----------
        layers : every layer that must be named, or None where they are not known yet.
        one : takes a single value from a table.
        """
        if not isinstance(self.content.get(key), Mapping):
            return one(self, key)
        table = self.table(key)
        values = {layer: one(table, layer) for layer in (list(table.content) if layers is None else layers)}
        table.finish()
        return values

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        return bool(self._take(key, lambda value: isinstance(value, bool), "true or false", default))

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self.content

    def table(self, key: str) -> Table:
        """A table within this one."""
        content = self._take(key, lambda value: isinstance(value, Mapping), "a table")
        return Table(content, self.source, self._full(key))

    def tables(self, key: str) -> list[Table]:
        """A list of tables."""
        content = self._take(key, lambda value: isinstance(value, list), f"tables [[{key}]]")
        return [Table(item, self.source, f"{self._full(key)}[{number}]") for number, item in enumerate(content)]

    def finish(self) -> None:
        """What is left was never asked for."""
        if self.content:
            unknown = ", ".join(self._full(key) for key in self.content)
            raise RecipeError(f"{self.source}: unknown key {unknown}")

    def _take(self, key: str, legal: Callable[[Any], bool], words: str, default: Any = _MISSING) -> Any:
        value = self.content.pop(key, default)
        if value is _MISSING:
            raise RecipeError(f"{self.source}: {self._full(key)} is missing; expected {words}")
        if not legal(value):
            raise RecipeError(f"{self.source}: {self._full(key)} is {value!r}; expected {words}")
        return value

    def _full(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key
