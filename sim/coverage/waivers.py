"""Points that need not be reached, each with its reason: sim/coverage/waivers.toml.

A waiver names its points by the file and the text of the source line, not by its number, so that an edit elsewhere does
not move it to another line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from compiler.errors import InputError
from sim.coverage.points import KINDS, Point

__all__ = ["Waiver", "Waiving", "apply", "read_waivers", "source_lines", "waivers"]


@dataclass(frozen=True)
class Waiver:
    """A pattern of points.

    file : pattern of files, as ``hw/*.py`` or ``hw/(core|host).py``. line : regular expression that is found in the
    text of the source line; none means any, the interface of a block (line 0) too. kinds : of points. what : regular
    expression of the whole of what is counted; none means any. reason : why it need not be reached.
    rule : it is for bits of words or terms of sums, of which some are reached and some are not; the others are waived.
        Otherwise a point that is reached after all is an error.
    """

    file: str
    line: str
    kinds: tuple[str, ...]
    what: str
    reason: str
    rule: bool

    def __str__(self) -> str:
        return f"{self.file} {self.line!r} {'/'.join(self.kinds)} {self.what!r}"

    def of(self, file: str) -> bool:
        """Whether its pattern is for a file."""
        return re.fullmatch(self.file.replace(".", r"\.").replace("*", "[^/]*"), file) is not None

    def fits(self, point: Point, text: str) -> bool:
        """Whether the waiver is for a point on a line with this text."""
        return (
            point.kind in self.kinds
            and self.of(point.file)
            and (not self.line or (point.line > 0 and re.search(self.line, text) is not None))
            and (not self.what or re.fullmatch(self.what, point.what) is not None)
        )


@dataclass(frozen=True)
class Waiving:
    """What came of the waivers.

    of : for each point that is waived, the waiver. problems : waivers that match nothing, or what is reached.
    """

    of: dict[Point, Waiver]
    problems: tuple[str, ...]


_FIELDS = {"file", "line", "kind", "what", "reason", "rule"}


def read_waivers(text: str, name: str) -> tuple[Waiver, ...]:
    """The waivers of a TOML file: a list of tables ``[[waiver]]``.

    Raises
    ------
    InputError
        The file is no such list, or an entry has a field too many, too few, or no reason; `name` names the file.
    """
    try:
        entries = tomllib.loads(text).get("waiver", [])
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name}: {error}") from None
    found = []
    for number, entry in enumerate(entries, 1):
        if unknown := set(entry) - _FIELDS:
            raise InputError(
                f"{name}, waiver {number}: unknown field {min(unknown)!r}; expected {', '.join(sorted(_FIELDS))}"
            )
        kinds = tuple(entry.get("kind", "").split())
        if not kinds or set(kinds) - set(KINDS):
            raise InputError(
                f"{name}, waiver {number}: kind {entry.get('kind')!r}; expected one or more of {', '.join(KINDS)}"
            )
        if not entry.get("file") or len(entry.get("reason", "").split()) < 3:
            raise InputError(f"{name}, waiver {number}: expected a file, and a reason in words")
        found.append(Waiver(entry["file"], entry.get("line", ""), kinds, entry.get("what", ""), entry["reason"],
                            bool(entry.get("rule", False))))  # fmt: skip
    return tuple(found)


def waivers() -> tuple[Waiver, ...]:
    """The kit's own."""
    file = resources.files("sim") / "coverage" / "waivers.toml"
    return read_waivers(file.read_text(encoding="utf-8"), "waivers.toml")


def source_lines(files: Sequence[str]) -> dict[str, list[str]]:
    """The lines of each source file of the hardware."""
    root = Path(__file__).parents[2]
    return {file: (root / file).read_text(encoding="utf-8").splitlines() for file in files}


def apply(points: Mapping[Point, int], patterns: Sequence[Waiver], lines: Mapping[str, Sequence[str]]) -> Waiving:
    """Waive what is not reached, and find waivers that are wrong.

    Parameters
    ----------
    points : with their counts. lines : text of the source files of the points.
    """
    of: dict[Point, Waiver] = {}
    problems = []
    for waiver in patterns:
        used, reached = 0, None
        files = {file for file in lines if waiver.of(file)}
        for point, count in points.items():
            if point.file not in files or point.kind not in waiver.kinds:
                continue
            text = lines[point.file][point.line - 1] if point.line else ""
            if not waiver.fits(point, text):
                continue
            if count:
                reached = reached or point
            else:
                used += 1
                of.setdefault(point, waiver)
        if not used and reached is None:
            problems.append(f"waiver {waiver}: there is no such point")
        elif reached is not None and (not waiver.rule or not used):
            problems.append(f"waiver {waiver}: {reached.file}:{reached.line} {reached.what} is reached after all")
    return Waiving(of, tuple(problems))
