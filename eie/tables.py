"""Tables as plain text that fit the width of the terminal and break no word.

A table that is too wide is set in parts, one below the other, each beginning with the first column.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["PLAIN_WIDTH", "grouped", "table_text", "width"]

PLAIN_WIDTH = 120
"""Columns of a table that is not printed to a terminal, unless COLUMNS says otherwise."""

_GAP = 3
"""Blanks between two columns."""


def width() -> int:
    """Columns that there are to print in."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return shutil.get_terminal_size().columns
    return PLAIN_WIDTH


def table_text(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> str:
    """A table as plain text, its title above it; numbers stand to the right, None is "-"."""
    from rich.cells import cell_len

    limit = width()
    cells = [[grouped(cell) for cell in row] for row in rows]
    texts = [[name, *(row[number] for row in cells)] for number, name in enumerate(columns)]
    longest = [max(cell_len(word) for text in column for word in text.split() or [""]) for column in texts]
    longest = [min(most, max(limit // 2, 1)) for most in longest]
    natural = [max(map(cell_len, column)) for column in texts]
    words = [any(isinstance(row[number], str) for row in rows) for number in range(len(columns))]
    parts = []
    for block in _blocks(longest, limit):
        widths = _shrunk([natural[n] for n in block], [longest[n] for n in block], limit)
        parts.append(_render([texts[n] for n in block], [words[n] for n in block], widths))
    lines = "\n\n".join(parts)
    return f"{title}\n{lines}" if title else lines


def _blocks(longest: Sequence[int], limit: int) -> list[list[int]]:
    """Columns that stand beside one another; every block begins with the first column."""
    blocks: list[list[int]] = [[0]]
    for number in range(1, len(longest)):
        block = [*blocks[-1], number]
        if len(blocks[-1]) > 1 and sum(longest[n] + _GAP for n in block) - _GAP > limit:
            block = [0, number]
            blocks.append(block)
        blocks[-1] = block
    return blocks


def _shrunk(natural: list[int], longest: list[int], limit: int) -> list[int]:
    """Widths of columns: as wide as their longest text, or narrower, but never than their longest word."""
    widths = list(natural)
    while sum(widths) + _GAP * (len(widths) - 1) > limit:
        slack = [wide - least for wide, least in zip(widths, longest, strict=True)]
        if max(slack) <= 0:
            break
        widths[slack.index(max(slack))] -= 1
    return widths


def _render(texts: Sequence[Sequence[str]], words: Sequence[bool], widths: Sequence[int]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column, is_text, wide in zip(texts, words, widths, strict=True):
        table.add_column(column[0], justify="left" if is_text else "right", width=wide, overflow="fold")
    for row in zip(*(column[1:] for column in texts), strict=True):
        table.add_row(*row)
    # No markup: names of layers and files may hold square brackets. The widths above are the limit.
    console = Console(file=io.StringIO(), markup=False, highlight=False, width=sum(widths) + _GAP * len(widths))
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def grouped(value: Any) -> str:
    """A table cell: thousands separated, four significant digits for fractions, "-" for None."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) or hasattr(value, "__index__"):
        return f"{value:,}"
    return str(value)
