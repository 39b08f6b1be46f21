"""Says what a long command is doing, and keeps how long each of its steps took."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from compiler.train.run import Progress

__all__ = ["EVERY", "Clock", "Console"]

EVERY = 15.0
"""Seconds after which a step that still runs says so again."""


class Console(Protocol):
    """Where the words go."""

    def note(self, text: str) -> None:
        """Say a line."""

    def progress(self, title: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Show how many of how many are done while the block runs."""

    def stages(self) -> AbstractContextManager[Progress]:
        """Show how far each stage of training is while the block runs."""


@dataclass
class Clock:
    """What is going on, and how long each step took.

    output : where to say it. every : seconds between two lines on a step that still runs.
    seconds : name of a step → what it took.
    """

    output: Console
    every: float = EVERY
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def step(self, name: str, text: str) -> Iterator[None]:
        """Time one step, and say every few seconds that it goes on.

        The lines come from a thread: what takes long is a child process, or a function of a library.
        """
        self.output.note(f"{text} …")
        began, ended = time.monotonic(), threading.Event()

        def tell() -> None:
            while not ended.wait(self.every):
                self.output.note(f"  {name}: {time.monotonic() - began:.0f} s so far")

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            ended.set()
            teller.join()
        self.seconds[name] = round(time.monotonic() - began, 3)
