"""What a command prints and writes: words for people, JSON for machines, files whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import click

from eie.tables import table_text
from eie.verbosity import Verbosity, verbosity

__all__ = [
    "Output",
    "Progress",
    "Stages",
    "check_writable",
    "check_writable_folder",
]

Progress = Callable[[int, int], None]
"""Called with (done, total) while something long is under way."""


class Stages(Protocol):
    """Is told how far each stage of a training is."""

    def __call__(self, stage: str, done: int, total: int, text: str) -> None:
        """`done` of `total` epochs, and a few words on how it goes."""


PATIENCE = 1.0
"""Seconds after which a silent command says what it is doing."""

PAUSE = 60.0
"""Seconds between two lines that a log gets of what goes on."""


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
        self.quiet = verbosity() is Verbosity.QUIET
        if json_to not in (None, "-"):
            check_writable(Path(str(json_to)), "--json")

    def text(self, text: str = "") -> None:
        """A line for people, on standard output."""
        if self.json_to != "-":
            click.echo(text)

    def note(self, text: str) -> None:
        """A line on standard error: warnings, and what was decided for the user. ``eie -q`` leaves them out."""
        if not self.quiet:
            click.echo(text, err=True)

    @contextlib.contextmanager
    def patience(self, what: str) -> Iterator[None]:
        """Say on standard error what the block does, if it takes more than a second."""
        timer = threading.Timer(PATIENCE, self.note, [f"eie: {what} …"])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

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
        """A bar on standard error while the block runs; where that is not a terminal, a line now and then."""
        if not sys.stderr.isatty() or self.quiet:
            yield self._lines(title)
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        title_column = TextColumn("{task.description}", markup=False)
        columns = (title_column, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def _lines(self, title: str) -> Progress:
        said = time.monotonic()

        def line(done: int, total: int) -> None:
            nonlocal said
            if time.monotonic() - said >= PAUSE:
                said = time.monotonic()
                self.note(f"{title}: {done:,} of {total:,}")

        return line

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
