"""Shared values for a set of weights: k-means from several starts, the exact optimum, and a uniform grid.

Source: Deep Compression (Han et al., ICLR 2016), section 3.1 and 3.2 (starts); the exact clustering is
Ckmeans.1d.dp (Wang and Song, The R Journal 2011) by way of `compiler.lower.share`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiler.lower.share import share

__all__ = ["STARTS", "centroids", "grid", "nearest", "start"]

STARTS = ("exact", "linear", "density", "random")
"""How the centroids of a layer are found: the optimum at once, or Lloyd's iteration from one of three starts."""

_ITERATIONS = 300


def centroids(
    values: NDArray[np.float32], count: int, how: str = "exact", seed: int = 0, iterations: int = _ITERATIONS
) -> NDArray[np.float64]:
    """At most `count` centroids of nonzero `values`, ascending and none of them zero.

    Parameters
    ----------
    values : (n,), n >= 1, finite and not zero.
    count : 1 … 255.
    how : one of `STARTS`.
    seed : of the random start.
    iterations : of Lloyd's algorithm at most; it ends when no value changes its centroid.

    Notes
    -----
    A cluster of small positive and negative values may have its mean at zero exactly, which would be code 0; it is
    moved to the smallest float that is not.
    """
    if how == "exact":
        bits = max(1, count.bit_length())
        if count != (1 << bits) - 1:
            raise ValueError(f"count is {count}; exact clustering takes 2**bits - 1")
        found = _exact(values, bits)
    else:
        found = _lloyd(values.astype(np.float64), start(values, count, how, seed), iterations)
    tiny = float(np.finfo(np.float32).tiny)
    return np.where(np.abs(found) < tiny, tiny, found)


def start(values: NDArray[np.float32], count: int, how: str, seed: int = 0) -> NDArray[np.float64]:
    """First centroids: evenly spaced from least to greatest, evenly in the cumulative distribution, or drawn.

    Random ones are drawn from the values without replacement. (Deep Compression, section 3.2: "Forgy", "density-
    based", "linear".)
    """
    wide = values.astype(np.float64)
    if how == "linear":
        found = np.linspace(wide.min(), wide.max(), count) if count > 1 else np.array([wide.mean()])
    elif how == "density":
        found = np.quantile(wide, (np.arange(count) + 0.5) / count)
    elif how == "random":
        distinct = np.unique(wide)
        found = np.random.default_rng(seed).choice(distinct, min(count, len(distinct)), replace=False)
    else:
        raise ValueError(f"start is {how!r}; expected one of {', '.join(STARTS)}")
    return np.unique(found)


def nearest(values: NDArray[np.floating], centers: NDArray[np.float64]) -> NDArray[np.intp]:
    """Number of the centroid next to each value; `centers` ascend."""
    return np.searchsorted((centers[1:] + centers[:-1]) / 2, values)


def grid(values: NDArray[np.float32], bits: int, zero: bool = False) -> tuple[float, NDArray[np.float64]]:
    """Step and levels of a uniform quantizer with 2**bits - 1 levels beside zero.

    The levels are -m … m+1 without 0 (those of two's complement), or their mirror image, whichever leaves the
    smaller squared error at its best step. The step comes from a search over the range that the greatest magnitude
    spans.

    Parameters
    ----------
    zero : whether values may become zero as well, which the error then counts.

    Returns
    -------
    step, and the integer levels, ascending, float64 (2**bits - 1,); a value is step · level.
    """
    wide = values.astype(np.float64)
    tiny = float(np.finfo(np.float32).tiny)
    if bits == 1 and not zero:  # one level, which is best at the mean
        mean = float(wide.mean())
        return max(abs(mean), tiny), np.array([-1.0 if mean < 0 else 1.0])
    half = 1 << (bits - 1)
    levels = np.array([level for level in range(1 - half, half + 1) if level])
    best: tuple[float, float, NDArray[np.float64]] | None = None
    for candidate in (levels.astype(np.float64), -levels[::-1].astype(np.float64)):
        reach = max(float(np.abs(wide).max()) / np.abs(candidate).max(), tiny)
        known = np.sort(np.append(candidate, 0.0)) if zero else candidate
        for step in reach * np.geomspace(0.25, 1.0, 48):
            points = step * known
            error = float(((points[nearest(wide, points)] - wide) ** 2).sum())
            if best is None or error < best[0]:
                best = (error, float(step), candidate)
    assert best is not None
    return best[1], best[2]


def _exact(values: NDArray[np.float32], bits: int) -> NDArray[np.float64]:
    _, table, _ = share(values.reshape(1, -1), max(bits, 2))
    if bits > 1:
        return np.asarray(table[1:][table[1:] != 0], np.float64)
    return np.array([float(values.astype(np.float64).mean())])  # one cluster: its mean


def _lloyd(values: NDArray[np.float64], centers: NDArray[np.float64], iterations: int) -> NDArray[np.float64]:
    """Lloyd's iteration on sorted values: clusters are runs, so their sums come from one running sum."""
    ordered = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    before: NDArray[np.intp] | None = None
    for _ in range(iterations):
        inner = np.searchsorted(ordered, (centers[1:] + centers[:-1]) / 2, side="right")
        edges = np.concatenate([[0], inner, [len(ordered)]])
        if before is not None and np.array_equal(edges, before):
            break
        before = edges
        counts = np.diff(edges)
        used = counts > 0  # an empty cluster keeps its centroid and may catch values later
        centers = np.where(used, np.diff(sums[edges]) / np.maximum(counts, 1), centers)
        centers = np.sort(centers)
    return np.unique(centers)
