"""What an experiment is: trials that do not depend on one another, and what follows from their results together."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from compiler.train.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Env", "Experiment", "Summary", "SummaryTable", "Trial"]


@dataclass(frozen=True)
class Trial:
    """One training, or a few that share their beginning.

    Attributes
    ----------
    key : unique in the experiment; letters, digits, dots, - and _.
    options : JSON; with the experiment's own settings they decide the result.
    """

    key: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Env:
    """Where a trial runs.

    Attributes
    ----------
    data_dir : folder with the files of the data set, or None for the cache.
    note : is told in a few words how far it is.
    """

    data_dir: Path | None
    note: Callable[[str], None]


@dataclass(frozen=True)
class SummaryTable:
    """Rows of text and numbers; None is a figure that there is not."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float | None]]


@dataclass(frozen=True)
class Summary:
    """What all trials say together.

    Attributes
    ----------
    figures : JSON.
    tables : for the report.
    findings : sentences that follow from the figures, whichever way they came out.
    plots : file name without its ending → figure.
    """

    figures: Mapping[str, Any]
    tables: Sequence[SummaryTable]
    findings: Sequence[str]
    plots: Mapping[str, Figure] = field(default_factory=dict)

    @classmethod
    def skipped(cls, results: Mapping[str, Mapping[str, Any]]) -> Summary | None:
        """What is said where trials could not measure on this machine (``skipped`` has the reason), or None."""
        reasons = {key: result["skipped"] for key, result in results.items() if "skipped" in result}
        if not reasons:
            return None
        reason = next(iter(reasons.values()))
        return cls({"skipped": reasons}, [], [f"SKIPPED, nothing was measured: {reason}."])


@dataclass(frozen=True, kw_only=True)
class Experiment(ABC):
    """One experiment with its settings; a subclass is a file of this package and a line in `KINDS`.

    Attributes
    ----------
    name : of the recipe.
    seeds : each trial is repeated with every one of them.
    listed : settings that say which trials there are and change none of them: with other ones, what is finished stays.
    """

    kind: ClassVar[str]
    listed: ClassVar[tuple[str, ...]] = ("seeds",)
    name: str
    seeds: tuple[int, ...]

    @classmethod
    @abstractmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """The fields that only this kind has, taken from the recipe. Raises `RecipeError`."""

    @abstractmethod
    def trials(self) -> list[Trial]:
        """All trials, in the order in which they start."""

    @abstractmethod
    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Do one trial, in a process of its own and on one thread; returns JSON."""

    @abstractmethod
    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """What the results say; `results` has every trial's, by its key."""

    def asdict(self) -> dict[str, Any]:
        """Kind and settings, as JSON."""
        return {"kind": self.kind, **dataclasses.asdict(self)}
