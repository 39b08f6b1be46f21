"""Differences of two ways that were tried on the same seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from compiler.experiments.base import SummaryTable

__all__ = ["Family", "Paired", "holm", "seeds_in_words"]

_ROUND = 4


@dataclass(frozen=True)
class Paired:
    """Mean difference of pairs, with what a paired t-test says of it.

    Attributes
    ----------
    mean : of first minus second.
    low, high : 95 % confidence interval of the mean.
    p : probability of a mean as far from zero if there were no difference; 1 where all pairs are equal.
    pairs : how many.
    """

    mean: float
    low: float
    high: float
    p: float
    pairs: int

    @classmethod
    def of(cls, first: Sequence[float], second: Sequence[float]) -> Paired:
        """From equally long lists whose items belong together.

        Raises
        ------
        ValueError
            The lists have different lengths, or fewer than two items.
        """
        if len(first) != len(second) or len(first) < 2:
            raise ValueError(f"{len(first)} and {len(second)} values; expected the same number, at least two")
        difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
        mean = float(difference.mean())
        if np.ptp(difference) == 0:  # no spread, so there is nothing to test by
            return cls(mean, mean, mean, 1.0 if mean == 0 else 0.0, len(difference))
        test = stats.ttest_1samp(difference, 0.0)
        low, high = test.confidence_interval(0.95)
        return cls(mean, float(low), float(high), float(test.pvalue), len(difference))

    def asdict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @property
    def significant(self) -> bool:
        """Whether p is below 0.05."""
        return self.p < 0.05

    def words(self, unit: str = "points") -> str:
        """The difference, its interval and p, in words."""
        return f"{self.mean:+.3f} {unit} (95 % {self.low:+.3f} to {self.high:+.3f}, p = {self.p:.2g}, n = {self.pairs})"


def seeds_in_words(count: int) -> str:
    """How many seeds stand behind a figure; one has no interval, which is said."""
    return "one seed, no interval" if count == 1 else f"{count} seeds"


def holm(p: Sequence[float]) -> list[float]:
    """P-values of several tests corrected so that any false finding at all has the stated probability.

    Source: A Simple Sequentially Rejective Multiple Test Procedure (Holm, 1979).
    """
    found, greatest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda number: p[number])):
        greatest = max(greatest, min(1.0, (len(p) - rank) * p[index]))
        found[index] = greatest
    return found


@dataclass(frozen=True)
class Family:
    """All comparisons that one report makes, with p-values corrected for their number.

    Attributes
    ----------
    pairs : what is compared, in words → the differences.
    corrected : in the same words → p after Holm's correction.
    """

    pairs: Mapping[str, Paired]

    @classmethod
    def of(cls, values: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Family:
        """From the two ways' values by seed; comparisons of one seed, which nothing can be tested by, are left out."""
        return cls({name: Paired.of(*both) for name, both in values.items() if len(both[0]) > 1})

    @property
    def corrected(self) -> dict[str, float]:
        """See the class."""
        return dict(zip(self.pairs, holm([pair.p for pair in self.pairs.values()]), strict=True))

    def split(self) -> tuple[list[str], list[str]]:
        """Names of those below and of those above zero, by p below 0.05 after the correction."""
        found = self.corrected
        sure = {name: pair.mean for name, pair in self.pairs.items() if found[name] < 0.05}
        return [name for name, mean in sure.items() if mean < 0], [name for name, mean in sure.items() if mean > 0]

    def asdict(self) -> dict[str, Any]:
        """As JSON: each comparison with `p_holm` beside p."""
        found = self.corrected
        return {name: {**pair.asdict(), "p_holm": found[name]} for name, pair in self.pairs.items()}

    def table(self, unit: str) -> SummaryTable:
        """A row for each comparison."""
        found = self.corrected
        rows: list[list[str | int | float | None]] = [
            [
                name, *(round(value, _ROUND) for value in (pair.mean, pair.low, pair.high)),
                *(float(f"{p:.2g}") for p in (pair.p, found[name])), pair.pairs,
            ]
            for name, pair in self.pairs.items()
        ]  # fmt: skip
        return SummaryTable(
            f"Differences of pairs by seed, {unit}; paired t-tests, p corrected for their number (Holm)",
            ["first - second", "mean", "95 % low", "95 % high", "p", "p, Holm", "seeds"],
            rows,
        )

    def tables(self, unit: str) -> list[SummaryTable]:
        """The table; none where there is nothing to compare, as with one seed."""
        return [self.table(unit)] if self.pairs else []

    def finding(self) -> str:
        """One sentence: which comparisons show a difference, and that the others show none."""
        if not self.pairs:
            return "One seed: no difference can be tested."
        low, high = self.split()
        parts = [f"{words} zero: {', '.join(names) or 'none'}" for words, names in (("below", low), ("above", high))]
        rest = len(self.pairs) - len(low) - len(high)
        seeds = min(pair.pairs for pair in self.pairs.values())
        few = f"; with {seeds} seeds only large differences can show" if rest and seeds < 5 else ""
        return (
            f"Of {len(self.pairs)} paired comparisons, p below 0.05 after Holm's correction for their number: "
            f"{'; '.join(parts)}. {rest} show no difference, which is not the same as none{few}."
        )
