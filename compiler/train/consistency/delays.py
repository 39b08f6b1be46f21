"""How long a worker takes for a step where machines are disturbed: seeded, so that every run meets the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compiler.errors import RecipeError
from compiler.train.table import Table

__all__ = ["KINDS", "Delays"]

KINDS = ("none", "fixed", "random", "rotating")
"""Nobody; worker 0 always; each worker now and then; one worker after the other for a while."""


@dataclass(frozen=True)
class Delays:
    """Seconds of a step.

    Attributes
    ----------
    kind : one of `KINDS`.
    step : seconds of a step of a worker that nothing disturbs.
    jitter : every step is so much longer or shorter, as a part of itself, uniformly.
    factor : how many times longer a step is that is disturbed.
    share : of the steps that are disturbed, of kind "random".
    period : for how many steps of an undisturbed worker one worker after the other is disturbed, of kind "rotating".
    """

    kind: str
    step: float = 1.0
    jitter: float = 0.1
    factor: float = 4.0
    share: float = 0.1
    period: float = 8.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RecipeError(f"stragglers are of kind {self.kind!r}; expected one of {', '.join(KINDS)}")

    @classmethod
    def parse(cls, table: Table, kind: str) -> Delays:
        """From a recipe's table. Raises `RecipeError`."""
        return cls(
            kind,
            step=table.number("step", 0, 3600, default=1.0),
            jitter=table.number("jitter", 0, 1, default=0.1, low_included=True),
            factor=table.number("factor", 1, 1000, default=4.0, low_included=True),
            share=table.number("share", 0, 1, default=0.1, low_included=True),
            period=table.number("period", 0, 1e6, default=8.0),
        )

    def seconds(self, seed: int, worker: int, workers: int, clock: int, now: float) -> float:
        """Of the step that `worker` begins at time `now` (seconds since the start)."""
        drawn, jitter = np.random.Generator(np.random.PCG64([seed, worker, clock])).random(2)
        slow = {
            "none": False,
            "fixed": worker == 0,
            "random": drawn < self.share,
            "rotating": int(now / (self.period * self.step)) % workers == worker,
        }[self.kind]
        return float(self.step * (self.factor if slow else 1.0) * (1 + self.jitter * (2 * jitter - 1)))
