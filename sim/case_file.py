"""The folder of a regression: a line of JSON for each case, added as it is through, and the summary."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compiler.claim import claimed
from compiler.errors import InputError
from compiler.files import append_line, write_file
from sim.trials import Key, Line, kit

__all__ = ["CASES", "SUMMARY", "CaseFile", "case_file", "cut", "json_lines"]

CASES = "cases.jsonl"
SUMMARY = "summary.json"


class CaseFile:
    """Lines of the cases of one suite. `kept` : those that were there, by case; the first one of each counts."""

    def __init__(self, path: Path, kept: Mapping[Key, Line]) -> None:
        self.path = path
        self.kept = kept

    def add(self, line: Line) -> None:
        """Write a line, at once and as a whole."""
        append_line(self.path, json.dumps(line.asdict()))

    def summarize(self, report: Mapping[str, Any]) -> None:
        """Write the summary beside the lines."""
        write_file(self.path.with_name(SUMMARY), (json.dumps(report, indent=2) + "\n").encode())


@contextlib.contextmanager
def case_file(folder: Path, suite: str, resume: bool) -> Iterator[CaseFile]:
    """Hold the folder of a regression, which may be new.

    Raises
    ------
    InputError
        It holds lines and `resume` is not set; they are of another suite or another kit, or are damaged; another
        process writes into it.
    """
    with claimed(folder):
        path = folder / CASES
        if path.exists() and not resume:
            raise InputError(f"{folder} holds a regression already; continue it with --resume or choose another folder")
        kept: dict[Key, Line] = {}
        plains, size = json_lines(path)
        for plain in plains:
            try:
                line = Line.of(plain)
            except InputError as error:
                raise InputError(f"{path}: {error}") from None
            for name, is_, wanted in (("suite", line.suite, suite), ("kit", line.kit, kit())):
                if is_ != wanted:
                    raise InputError(f"{path} holds cases of {name} {is_}; this is {wanted}: choose another folder")
            kept.setdefault(line.key, line)
        cut(path, size)
        yield CaseFile(path, kept)


def json_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The objects of a file of JSON lines, and their bytes; what has no end of line is left out: see `cut`.

    Raises
    ------
    InputError
        A line is no JSON object.
    """
    *lines, _ = path.read_bytes().split(b"\n") if path.exists() else (b"",)
    found: list[dict[str, Any]] = []
    for number, raw in enumerate(lines, 1):
        try:
            plain = json.loads(raw)
        except (ValueError, RecursionError):
            plain = None
        if not isinstance(plain, dict):
            raise InputError(f"{path}, line {number} is no JSON object; mend or remove it")
        found.append(plain)
    return found, sum(len(raw) + 1 for raw in lines)


def cut(path: Path, size: int) -> None:
    """Cut half a line off, of a process that was killed as it wrote it. size : bytes of whole lines."""
    if path.exists():
        os.truncate(path, size)
