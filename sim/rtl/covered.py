"""What is counted of a covered array: Verilator's options, and which lines of its Verilog are left out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from compiler.errors import ToolError
from sim.coverage.bins import Watch, property_text

__all__ = ["OPTIONS", "left_out", "with_bins"]

OPTIONS = (
    "--coverage-line", "--coverage-toggle", "--coverage-expr", "--coverage-user", "--coverage-max-width", "64",
)  # fmt: skip
"""Signals wider than these 64 bits are whole words, whose fields are signals of their own."""

_DECLARED = re.compile(r"  (input|output|inout|wire|reg)\b(?: \[[^]]*\])? (\S+?)(?: =.*|;| ;)*$")


def _lines(text: str, top: str) -> Iterator[int]:
    """Numbers of the lines that are not counted, from 1, in order.

    Those are nets without a name (parts of expressions, which are counted as such), words whose fields are signals,
    inputs of all modules but the top (the output that drives them is counted), and what the backend writes beside
    each process.
    """
    lines = text.splitlines()
    begin = 0
    while begin < len(lines):
        if not lines[begin].startswith("module "):
            begin += 1
            continue
        end = next(n for n in range(begin, len(lines)) if lines[n].startswith("endmodule"))
        inside = [(n, found) for n in range(begin, end) if (found := _DECLARED.match(lines[n]))]
        names = {found[2].lstrip("\\") for _, found in inside}
        whole = {name[:at] for name in names for at in range(len(name)) if name[at] == "."}
        own = lines[begin].split()[1].lstrip("\\").split("(")[0] == top
        inputs = set() if own else {found[2].lstrip("\\") for _, found in inside if found[1] == "input"}
        for n in range(begin, end):
            found = _DECLARED.match(lines[n])
            if found:
                name = found[2].lstrip("\\")
                if name.startswith("$") or name in whole or name in inputs or name.split(".")[0] in inputs:
                    yield n + 1
            elif "dump_module" in lines[n]:
                yield n + 1
        begin = end


def left_out(text: str, top: str, file: str) -> str:
    """A configuration for Verilator that leaves these lines of `file`, whose text is given, out of the coverage."""
    ranges: list[list[int]] = []
    for line in _lines(text, top):
        if ranges and ranges[-1][1] == line - 1:
            ranges[-1][1] = line
        else:
            ranges.append([line, line])
    rules = "".join(f'coverage_off -file "{file}" -lines {first}-{last}\n' for first, last in ranges)
    return "`verilator_config\n" + rules


def with_bins(text: str, watches: Sequence[Watch]) -> str:
    """Annotated Verilog with a ``cover property`` for each watch whose module is in it.

    Raises
    ------
    ToolError
        A module has no signal of the name that a watch uses.
    """
    parts = re.split(r"(?m)^(?=module )", text)
    for n, part in enumerate(parts):
        if not part.startswith("module "):
            continue
        module = re.sub(r"\$\d+", "", part.split()[1].lstrip("\\").split("(")[0])
        mine = [watch for watch in watches if module == watch.module or module.endswith("." + watch.module)]
        if not mine:
            continue
        declared = [found[2] for line in part.splitlines() if (found := _DECLARED.match(line))]
        names = {re.sub(r"\$\d+", "", name.lstrip("\\")): name for name in reversed(declared)}
        names |= {name.lstrip("\\"): name for name in declared}
        made = []
        for watch in mine:
            try:
                made.append(property_text(watch, names))
            except KeyError as error:
                raise ToolError(
                    f"bin {watch.name}: {module} has no signal {error}; it has {', '.join(sorted(names)[:200])}"
                ) from None
        body, end, rest = part.rpartition("endmodule")
        parts[n] = body + "\n".join(made) + "\n" + end + rest
    return "".join(parts)
