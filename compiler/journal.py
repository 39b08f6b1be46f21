"""What a long run says while it is under way: lines of JSON in its folder, and event files of TensorBoard if wanted.

A line is added as a whole, at once; whoever reads along (`eie watch`) takes the last line of each thing. A run that is
taken up again adds to the file.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from compiler.errors import ToolError
from compiler.files import append_line

__all__ = ["JOURNAL", "Journal", "Scalars", "event_writer"]

JOURNAL = "progress.jsonl"
"""File of a run's lines."""


def event_writer() -> Any:
    """TensorBoard's own writer of event files; a command that will need it asks before it begins.

    Raises
    ------
    ToolError
        The package tensorboard is not installed.
    """
    try:
        from tensorboard.summary import Writer
    except ImportError as error:
        raise ToolError("--tensorboard needs the package tensorboard; run: pip install tensorboard") from error
    return Writer


class Scalars:
    """Event files of TensorBoard in a folder. Raises as `event_writer`."""

    def __init__(self, folder: Path) -> None:
        self._writer = event_writer()(str(folder))

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Points of curves, by their names."""
        for name, value in values.items():
            self._writer.add_scalar(name, float(value), step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class Journal:
    """Lines about a run.

    Parameters
    ----------
    folder : of the run; made if need be. None for no lines. scalars : folder for event files, or None.

    Raises
    ------
    ToolError
        Event files are wanted, and their package is not installed.
    """

    def __init__(self, folder: Path | None, scalars: Path | None = None) -> None:
        self.path = None if folder is None else folder / JOURNAL
        self._scalars = None if scalars is None else Scalars(scalars)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.note("end", status="failed", message=f"{type(error).__name__}: {error}"[:500])
        if self._scalars is not None:
            self._scalars.close()

    def note(self, what: str, **said: Any) -> None:
        """A line. `what` : "begin", "stage", "epoch", "trial" or "end". NaN and infinite numbers are null in it."""
        if self.path is not None:
            finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in said.items()}
            line = {"what": what, "time": round(time.time(), 3), **finite}
            append_line(self.path, json.dumps(line, allow_nan=False))

    def curve(self, values: Mapping[str, float], step: int) -> None:
        """Points for TensorBoard."""
        if self._scalars is not None:
            self._scalars.add(values, step)
