"""Differences of two ways that were tried on the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

__all__ = ["Paired", "holm", "seeds_in_words"]


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
