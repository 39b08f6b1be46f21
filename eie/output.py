"""What a command prints and writes: words for people, JSON for machines, files whole or not at all."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import click

__all__ = [
    "Output",
    "Progress",
    "Stages",
    "check_writable",
    "check_writable_folder",
    "grouped",
    "table_text",
]

Progress = Callable[[int, int], None]
"""Called with (done, total) while something long is under way."""


class Stages(Protocol):
    """Is told how far each stage of a training is."""

    def __call__(self, stage: str, done: int, total: int, text: str) -> None:
        """`done` of `total` epochs, and a few words on how it goes."""


PLAIN_WIDTH = 120
"""Columns of a table that is not printed to a terminal."""


class Output:
    """Where the words of one command go.

    Parameters
    ----------
    json_to : value of ``--json``: None for people only; "-" for JSON on standard output, and then nothing else
        goes there; a path for JSON in that file beside the words for people.

    Raises
    ------
    click.UsageError
        The file's folder does not exist; found out before any work is done.
    """

    def __init__(self, json_to: str | None = None) -> None:
        self.json_to = json_to
        if json_to not in (None, "-"):
            check_writable(Path(str(json_to)), "--json")

    def text(self, text: str = "") -> None:
        """A line for people, on standard output."""
        if self.json_to != "-":
            click.echo(text)

    def note(self, text: str) -> None:
        """A line on standard error: warnings, and what was decided for the user."""
        click.echo(text, err=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
        """A table on standard output; numbers are aligned to the right and None is shown as "-"."""
        if self.json_to == "-":
            return
        self.text(table_text(columns, list(rows), title) + "\n")

    def result(self, value: object) -> None:
        """The machine's answer, if one was asked for."""
        if self.json_to is None:
            return
        text = json.dumps(value, indent=2, default=_plain, allow_nan=False) + "\n"
        if self.json_to == "-":
            click.echo(text, nl=False)
        else:
            from compiler.files import write_file

            write_file(Path(self.json_to), text.encode())

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """A bar on standard error while the block runs; silent where that is not a terminal."""
        if not sys.stderr.isatty():
            yield lambda done, total: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        title_column = TextColumn("{task.description}", markup=False)
        columns = (title_column, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    @contextlib.contextmanager
    def stages(self) -> Iterator[Stages]:
        """Progress of training on standard error: a bar, or a line a stage where that is not a terminal."""
        if not sys.stderr.isatty():

            def line(stage: str, done: int, total: int, text: str) -> None:
                if done == total:
                    self.note(f"  {stage}: {text}")

            yield line
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.fields[stage]:>8}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[text]}", markup=False),
        )  # fmt: skip
        with Bar(*columns, console=Console(stderr=True)) as bar:
            tasks: dict[str, TaskID] = {}

            def step(stage: str, done: int, total: int, text: str) -> None:
                if stage not in tasks:
                    tasks[stage] = bar.add_task(stage, stage=stage, text=text)
                bar.update(tasks[stage], completed=done, total=total, text=text)

            yield step


def table_text(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> str:
    """A table as plain text, its title above it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, name in enumerate(columns):
        words = any(isinstance(row[number], str) for row in rows)
        table.add_column(name, justify="left" if words else "right", overflow="fold")
    for row in rows:
        table.add_row(*(grouped(cell) for cell in row))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PLAIN_WIDTH
    # No markup: names of layers and files may hold square brackets.
    console = Console(file=io.StringIO(), markup=False, highlight=False, width=width)
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    return "\n".join([title, *lines] if title else lines)


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


def check_writable(path: Path, what: str) -> None:
    """Refuse an output that cannot be written, before the work whose result it would hold.

    Raises
    ------
    click.UsageError
        The folder does not exist or may not be written, or the path is itself a folder.
    """
    from compiler.files import is_stream

    if path.is_dir():
        raise click.UsageError(f"{what} {path} is a folder; expected the name of a file")
    if is_stream(path):
        if not os.access(path, os.W_OK):
            raise click.UsageError(f"{what} {path} may not be written")
        return
    folder = path.resolve().parent if path.is_symlink() else path.parent
    if not folder.is_dir():
        raise click.UsageError(f"{what} {path}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise click.UsageError(f"{what} {path}: the folder {folder} may not be written")


def check_writable_folder(path: Path, what: str) -> None:
    """Refuse an output folder, which may be new, that cannot be made or written.

    Raises
    ------
    click.UsageError
        It is a file, or may not be written.
    """
    if path.exists() and not path.is_dir():
        raise click.UsageError(f"{what} {path} is a file; expected a folder, which may be new")
    there = path.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise click.UsageError(f"{what} {path}: {there} is not a folder that may be written")


def _plain(value: Any) -> Any:
    """What `json` does not know: numpy numbers and arrays, and paths."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
