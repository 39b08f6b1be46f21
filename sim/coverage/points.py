"""From Verilator's points, of lines of generated Verilog, to points of the Amaranth source.

One source line makes many lines of Verilog: an ``m.If`` is a branch of the process of each signal assigned in it, a PE
is there many times, arrays of other parameters have other widths. All of one place in the source are one point.

==========  ==========================================================================================================
kind        what is counted
==========  ==========================================================================================================
line        a statement below ``m.If``, ``m.Switch`` or ``m.FSM`` was carried out (others always are)
branch      a condition held (``taken``), or none of its chain did (``else``); both ways of a ``Mux``; a reset
expr        a term of an expression of single bits decided its value, as Verilator's ``--coverage-expr`` lists them
toggle      a bit of a signal rose, or fell; of named signals up to 64 bits, as struct fields where they have some
==========  ==========================================================================================================
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["KINDS", "Point", "Sources", "merge"]

KINDS = ("line", "branch", "expr", "toggle")

RAM = "hw/rtl/eie_ram.v"


class Point(NamedTuple):
    """One thing to reach: line 0 of a file is the block's interface, whose signals the library declares."""

    file: str
    line: int
    kind: str
    what: str


@dataclass
class _Module:
    """What is known of one module: its own file, where its signals are declared, what its nets without a name are."""

    files: Counter[str] = field(default_factory=Counter)
    declared: dict[int, tuple[str, str]] = field(default_factory=dict)
    nets: dict[str, str] = field(default_factory=dict)
    fields: dict[str, list[tuple[int, int, str]]] = field(default_factory=dict)

    @cached_property
    def own(self) -> str:
        """The file that most of the module comes from."""
        found = [file for file, _ in self.files.most_common() if file != "hw/platform.py"]
        return found[0] if found else ""


@dataclass
class _Switch:
    """An open switch: its branches, the line that is the last conditional one, and which comes next."""

    indent: str
    branches: list[tuple[str, list[str]]]
    at: int = 0


_ATTRIBUTE = re.compile(r"^\s*\(\* (\w+) = \"([^\"]*)\" \*\)$")
_INNER = re.compile(r"\(\* src = \"([^\"]*)\" \*\) ?")
_DECLARED = re.compile(r"^  (?:input|output|inout|wire|reg)\b(?: \[[^]]*\])? (\S+?)(?: *=.*| *;)*$")
_ASSIGN = re.compile(r"^  assign (\S+) +?= (.*);$")
_NET = re.compile(r"(?<![\w$])\\?\$(?:signal\$)?\d+(?![\w$])")
_SLICE = re.compile(r"([A-Za-z_][\w.]*)((?:\$\d+)*) ?\[(\d+)(?::(\d+))?\]")
_SUFFIX = re.compile(r"\$\d+(?=\W|$)")
_COPY = re.compile(r"(pe|writeback)_\d+__(.*)")
_BIN = re.compile(r"// bin (\S+)$")
_DEPTH = 6
_LONGEST = 110


def _plain(name: str) -> str:
    """A name of Amaranth without the numbers that only keep names apart."""
    return _SUFFIX.sub("", name.lstrip("\\")).rstrip("$")


class Sources:
    """The Verilog of one build, read for where each line comes from.

    Parameters
    ----------
    text : annotated Verilog (`hw.annotated`).
    """

    def __init__(self, text: str) -> None:
        self._modules: dict[int, _Module] = {}  # by line
        self._arms: dict[tuple[int, str], tuple[str, str, list[str]]] = {}  # line, way → source, what, statements
        self._sources: dict[int, str] = {}  # of operators
        self._ways: dict[int, str] = {}  # condition of the multiplexer of a line
        self._bins: dict[int, str] = {}
        self._read(text.splitlines())

    def _read(self, lines: list[str]) -> None:
        module = _Module()
        pending: dict[str, str] = {}
        stack: list[_Switch] = []
        known: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            if line.startswith("module "):
                module, known, stack = _Module(), {}, []
            self._modules[number] = module
            if found := _BIN.search(line):
                self._bins[number] = found[1]
                continue
            if found := _ATTRIBUTE.match(line):
                pending[found[1]] = found[2]
                continue
            for source in (pending.get("src", ""), *_INNER.findall(line)):
                if source.startswith("hw/"):
                    module.files[source.rpartition(":")[0]] += 1
            if found := _DECLARED.match(line):
                known.setdefault(found[1], pending.get("src", ""))
                module.declared[number] = found[1], known[found[1]]
            elif found := _ASSIGN.match(line):
                self._assign(number, module, found[1], found[2])
            else:
                self._branch(number, line, pending.get("branches"), stack)
            pending = {}

    def _assign(self, number: int, module: _Module, name: str, value: str) -> None:
        sources = _INNER.findall(value)
        self._sources[number] = sources[0] if sources else ""
        plain = _INNER.sub("", value)
        if _NET.fullmatch(name):
            module.nets[name.lstrip("\\")] = plain
        if "." in name and (part := _SLICE.fullmatch(plain.lstrip("\\").strip())):
            low = int(part[4] or part[3])
            module.fields.setdefault(part[1] + part[2], []).append((low, int(part[3]), name.lstrip("\\")))
        if " ? " in plain:
            self._ways[number] = plain.split(" ? ")[0]

    def _branch(self, number: int, line: str, branches: str | None, stack: list[_Switch]) -> None:
        """Follow ``if`` chains and ``casez``, and note which branch a line begins."""
        indent = line[: len(line) - len(line.lstrip())]
        text = line.strip()
        if branches is not None and text.startswith(("if (", "casez (")):
            parsed = [(part.split("=")[0], part.split("=")[1].split()) for part in branches.split("|")]
            stack.append(_Switch(indent, parsed))
            if text.startswith("if ("):
                self._arm(number, "if", stack[-1])
            return
        if not stack:
            return
        top = stack[-1]
        if text.endswith(":") and indent == top.indent + "  ":
            self._arm(number, "case", top)
        elif indent == top.indent and text.startswith("end else if ("):
            self._arm(number, "if", top)
        elif indent == top.indent and text in ("end", "endcase"):
            stack.pop()

    def _arm(self, number: int, way: str, switch: _Switch) -> None:
        if switch.at >= len(switch.branches):
            return
        source, covers = switch.branches[switch.at]
        switch.at += 1
        what = "default" if source == "else" else "taken"
        if source == "else":
            source = next((each for each, _ in reversed(switch.branches[: switch.at]) if each != "else"), "")
        self._arms[number, way] = source, what, covers
        if way == "if":
            rest = switch.branches[switch.at :]
            if not rest:
                self._arms[number, "else"] = source, "else", []
            elif rest[0][0] == "else":
                self._arms[number, "else"] = source, "else", rest[0][1]

    def points(self, name: str) -> list[Point]:
        """The points of the source that a point of Verilator counts for; none if it says nothing of the source."""
        keys = dict(part.split("\x02", 1) for part in name.split("\x01") if "\x02" in part)
        line, what, kind = int(keys["l"]), keys["o"], keys["t"]
        if keys["f"].endswith("eie_ram.v"):
            text = _SUFFIX.sub("", what.replace("__024", "$"))
            return [Point(RAM, line, kind, text)]
        if keys["f"] != "accelerator.v" or line not in self._modules:
            return []
        module = self._modules[line]
        if kind == "user":
            return [Point("", 0, "bin", self._bins[line])] if line in self._bins else []
        if kind == "toggle":
            return self._toggle(module, line, what)
        if kind == "expr":
            return [self._place(module, self._sources.get(line, ""), "expr", self._expression(module, what))]
        if what in ("cond_then", "cond_else") and line in self._ways:
            condition = self._expression(module, self._ways[line])
            way = f"Mux({condition}): {'first' if what == 'cond_then' else 'second'}"
            return [self._place(module, self._sources.get(line, ""), "branch", way)]
        way = "if" if what == "elsif" else what  # what Verilator calls all but the last of a chain
        return self._taken(module, *self._arms[line, way]) if (line, way) in self._arms else []

    def _taken(self, module: _Module, source: str, what: str, covers: list[str]) -> list[Point]:
        if not source.startswith("hw/"):  # a reset of Amaranth's: ResetInserter
            return [Point(module.own, 0, "branch", f"reset: {what}")] if module.own else []
        if source.startswith("hw/accelerator.py") and module.own != "hw/accelerator.py":  # that of the clock domain
            return []
        points = [self._place(module, source, "branch", what)]
        points += [
            self._place(module, each, "line", "carried out") for each in covers if each.startswith("hw/")
        ]  # fmt: skip
        return points

    def _toggle(self, module: _Module, line: int, what: str) -> list[Point]:
        if line not in module.declared:
            return []
        name, source = module.declared[line]
        name = _plain(name)
        if not name or name.startswith("$") or name in ("clk", "rst"):
            return []
        bits, _, edge = what.rpartition(":")
        place = "".join(re.findall(r"\[\d+\]", bits[len(bits.rstrip("[]0123456789")) :]))
        found = self._place(module, source, "toggle", f"{name}{place} {'rises' if edge == '0->1' else 'falls'}")
        if copy := _COPY.match(found.what):  # an interface of one of the many PEs or write-back groups
            found = Point(f"hw/{copy[1]}.py", 0, "toggle", copy[2])
        return [found]

    def _place(self, module: _Module, source: str, kind: str, what: str) -> Point:
        file, _, line = source.rpartition(":")
        if file.startswith("hw/"):
            return Point(file, int(line), kind, what)
        return Point(module.own, 0, kind, what)

    def _expression(self, module: _Module, text: str, depth: int = _DEPTH) -> str:
        """An expression in the names of the source; one too long is cut, and ends with a digest of the whole."""

        def inside(found: re.Match[str]) -> str:
            value = module.nets.get(found[0].lstrip("\\"))
            return "…" if value is None or depth == 0 else f"({self._expression(module, value, depth - 1)})"

        def part(found: re.Match[str]) -> str:
            low = int(found[4] or found[3])
            known = module.fields.get(found[1] + found[2], ())
            inner = [each for each in known if each[0] <= low <= int(found[3]) <= each[1]]
            if not inner:
                return found[0]
            first, last, name = min(inner, key=lambda each: each[1] - each[0])
            return name if (first, last) == (low, int(found[3])) else f"{name}[{int(found[3]) - first}]"

        text = _SLICE.sub(part, text.replace("__024", "$").replace("__02e", ".").replace("\\", ""))
        full = re.sub(r" +", " ", _plain(_NET.sub(inside, text)))
        full = full.replace("( ", "(").replace(" )", ")").replace("$signed", "").replace("$unsigned", "")
        if depth < _DEPTH or len(full) <= _LONGEST:
            return full
        return f"{full[:_LONGEST]}… #{hashlib.sha256(full.encode()).hexdigest()[:6]}"


def merge(builds: Iterable[tuple[str, list[str], NDArray[np.uint64]]]) -> dict[Point, int]:
    """Points of all builds with their counts added up.

    Parameters
    ----------
    builds : of each, its Verilog, the names of its points, and their counts (`sim.rtl.collect.read_counts`).
    """
    total: dict[Point, int] = {}
    for text, names, counts in builds:
        sources = Sources(text)
        for name, count in zip(names, counts.tolist(), strict=True):
            for point in sources.points(name):
                total[point] = total.get(point, 0) + count
    return dict(sorted(total.items()))
