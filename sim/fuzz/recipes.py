"""Recipes of trainings and of experiments: TOML that lies."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from sim.fuzz.lies import lie_bytes, lie_value
from sim.fuzz.target import Finding, Target

__all__ = ["Recipes", "toml"]


def toml(value: Any) -> str:
    """A value as TOML, tables within lists and tables inline; what TOML has no word for is written wrongly."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value)


class Recipes(Target):
    """What `eie train` and `eie experiment` are given; nothing is trained.

    Parameters
    ----------
    folder : with the recipes of the kit.
    """

    name = "recipe"
    text = "recipes of trainings, of distributed ones and of experiments"
    suffix = ".toml"
    share = 25

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        """All recipes of the kit."""
        from compiler import experiments  # noqa: F401  (takes seconds, which are not the first case's)
        from compiler.train import recipe  # noqa: F401

        paths = sorted(self._folder.rglob("*.toml"))
        self._texts = [path.read_bytes() for path in paths]
        self._tables = [tomllib.loads(each.decode()) for each in self._texts]

    def make(self, random: Random) -> bytes:
        """One value of a recipe lies, or its text is damaged."""
        if random.random() < 0.2:
            return lie_bytes(random, random.choice(self._texts))
        if random.random() < 0.01:
            return random.choice((b"a = " + b"[" * 100_000, b"[a" + b".b" * 50_000 + b"]", b"a=" + b"9" * 10_000))
        table: Any = random.choice(self._tables)
        for _ in range(random.choice((1, 1, 2))):
            table = lie_value(random, table)
        if not isinstance(table, dict):
            return toml(table).encode("utf-8", "replace")
        lines = [f"{json.dumps(str(key))} = {toml(part)}" for key, part in table.items()]
        return "\n".join(lines).encode("utf-8", "surrogatepass")

    def check(self, path: Path, random: Random) -> None:
        """A recipe that is accepted says the same again in its own words."""
        from compiler import experiments
        from compiler.train import recipe
        from compiler.train.terngrad import job

        content = path.read_bytes()
        if b"kind" in content and b"stages" not in content:
            experiments.load(path)
        elif b"schedule" in content and b"stages" not in content:
            job.load(path)
        else:
            read = recipe.load(path)
            if recipe.parse(read.asdict(), "again").asdict() != read.asdict():
                raise Finding("its own words are read as another recipe")
