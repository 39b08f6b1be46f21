"""Speed and quality of weight sharing: `compiler.lower.share` beside scikit-learn's k-means and the exact optimum.

A million float weights, normal ones and ones with long tails (Student's t with 3 degrees of freedom). The objective is
the sum of squared distances to the nearest centroid. The exact optimum comes from dynamic programming over all distinct
values: of all weights for 16 codes; for 256 codes, where its table would take gigabytes, of the first 100,000, which
the kit then shares as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ckwrap
import numpy as np
from numpy.typing import NDArray

from compiler.lower.share import share
from sim.benchmarks import anchors

__all__ = ["ShareRow", "measure_sharing", "objective", "optimum"]

WEIGHTS = 1_000_000
_EXACT = {4: WEIGHTS, 8: 100_000}
_TO_REACH_S = {4: 1.0, 8: 5.0}
_TO_REACH_EXCESS, _TO_REACH_FASTER = 1e-3, 10.0
_REPEATS = 3

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ShareRow:
    """One distribution and code width. Seconds are CPU seconds of this process on one thread.

    Attributes
    ----------
    seconds, objective : of `compiler.lower.share` for all weights, the best of three; codes of every weight included.
    anchor, anchor_s, anchor_objective : the same of scikit-learn, once; centers only. None where it is not installed.
    compared : how many weights the optimum was found for. excess : share by which
        `compiler.lower.share` misses it there.
    to_reach_s : seconds to reach.
    """

    distribution: str
    codes: int
    weights: int
    seconds: float
    objective: float
    anchor: str | None
    anchor_s: float | None
    anchor_objective: float | None
    compared: int
    excess: float
    to_reach_s: float

    @property
    def faster(self) -> float | None:
        """How many times faster than scikit-learn."""
        return None if self.anchor_s is None else self.anchor_s / self.seconds

    @property
    def reached(self) -> bool:
        """Fast enough, near enough to the optimum, and ten times faster than the anchor with no larger error."""
        beside = self.anchor_objective is None or (
            (self.faster or 0) >= _TO_REACH_FASTER and self.objective <= self.anchor_objective
        )
        return self.seconds <= self.to_reach_s and self.excess <= _TO_REACH_EXCESS and beside


def measure_sharing(seed: int, progress: Callable[[str], None], weights: int = WEIGHTS) -> list[ShareRow]:
    """Rows of both distributions at 16 and 256 codes. Scikit-learn takes a minute or more for 256."""
    rng = np.random.default_rng(seed)
    made = {"normal": rng.normal(size=weights), "long tails (t, 3)": rng.standard_t(3, size=weights)}
    rows = []
    for name, drawn in made.items():
        values = drawn.astype(np.float32)
        for bits in _EXACT:
            progress(f"sharing {weights} weights, {name}, {1 << bits} codes")
            seconds, error = _timed(values, bits)
            # The kit keeps a code for zero; the anchor and the optimum get as many centers as are left.
            clusters = (1 << bits) - 1
            anchor = anchors.kmeans(values, clusters, seed)
            anchor_s = anchor_error = None
            if anchor is not None:
                begin = time.process_time()
                centers = anchor[1]()
                anchor_s = time.process_time() - begin
                anchor_error = objective(values, centers)
            part = values[: _EXACT[bits]]
            own = error if len(part) == len(values) else _timed(part, bits, 1)[1]
            rows.append(
                ShareRow(
                    name, 1 << bits, len(values), seconds, error, anchor and anchor[0], anchor_s, anchor_error,
                    len(part), own / optimum(part, clusters) - 1, _TO_REACH_S[bits],
                )
            )  # fmt: skip
    return rows


def objective(values: Floats, centers: NDArray[np.float64]) -> float:
    """Sum of squared distances of values to the nearest of ascending centers."""
    wide = values.astype(np.float64)
    nearest = centers[np.searchsorted((centers[1:] + centers[:-1]) / 2, wide)]
    return float(((wide - nearest) ** 2).sum())


def optimum(values: Floats, clusters: int) -> float:
    """The least objective there is."""
    found, counts = np.unique(values, return_counts=True)
    best: Any = ckwrap.ckmeans(found.astype(np.float64), clusters, weights=counts.astype(np.float64))
    return objective(values, np.sort(np.asarray(best.centers, np.float64)))


def _timed(values: Floats, bits: int, repeats: int = _REPEATS) -> tuple[float, float]:
    """Seconds, and the objective."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        codes, centroids, _ = share(values[np.newaxis], bits)
        times.append(time.process_time() - begin)
    wide = values.astype(np.float64)
    return max(min(times), 1e-9), float(((centroids[codes[0]] - wide) ** 2).sum())
