"""Weight sharing without retraining: each weight of a layer becomes one of a few values."""

from __future__ import annotations

import ckwrap
import numpy as np
from numpy.typing import NDArray

__all__ = ["EXACT_VALUES", "share"]

EXACT_VALUES = 1 << 15
"""Up to this many distinct weights are clustered exactly; beyond, weights are first pooled into bins, which leaves the
squared error within 0.1 % of the least."""

_BINS_A_CODE = 512


def share(
    weight: NDArray[np.float32], code_bits: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64]]:
    """Codes and centroids of a layer, and where its weights are.

    If the nonzero weights have at most ``2**code_bits - 1`` distinct values, these are the centroids.
    Otherwise one-dimensional k-means, weighted by how often a value occurs, finds the centroids with the least
    squared error (exactly, by dynamic programming, up to `EXACT_VALUES` distinct values).

    Parameters
    ----------
    weight : (out, in), finite.
    code_bits : 2 … 8.

    Returns
    -------
    codes : uint8 (out, in); 0 where the weight is zero and nowhere else.
    centroids : float64 (2**code_bits,), centroids[0] == 0, the used ones ascending from 1, the rest 0.
    places : int64, where codes are not zero, in row-major order.

    Notes
    -----
    Source: Deep Compression (Han et al., ICLR 2016), section 3, with the optimal clustering of
    Wang and Song (Ckmeans.1d.dp, The R Journal 2011) in place of Lloyd's iteration.
    """
    flat = np.flatnonzero(weight != 0)  # of booleans numpy finds them three times as fast
    nonzero = weight.reshape(-1)[flat]
    clusters = (1 << code_bits) - 1
    found, counts = np.unique(nonzero, return_counts=True)
    values = found.astype(np.float64)
    codes = np.zeros(weight.size, np.uint8)
    centroids = np.zeros(clusters + 1)
    if len(values) <= clusters:
        # Values keep their own code: boundaries between them would be at the mercy of rounding.
        codes[flat] = np.searchsorted(values, nonzero.astype(np.float64)) + 1
        centroids[1 : len(values) + 1] = values
    else:
        pooled, weights = _pool(values, counts.astype(np.float64), _BINS_A_CODE << code_bits)
        centers = np.sort(np.asarray(ckwrap.ckmeans(pooled, clusters, weights=weights).centers, np.float64))
        centroids[1 : len(centers) + 1] = centers
        codes[flat] = np.searchsorted((centers[1:] + centers[:-1]) / 2, nonzero) + 1
    return codes.reshape(weight.shape), centroids, flat


def _pool(
    values: NDArray[np.float64], counts: NDArray[np.float64], most: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values and weights for the clustering: as they are, or the means of at most `most` bins if there are too many.

    Bins are as dense as the centroids of the best clustering will be, whose density is that of the values to the power
    of 1/3 (Bennett, "Spectra of quantized signals", 1948): so a cluster holds about equally many bins wherever it
    lies. Of bins of equal width, a distribution with long tails would leave all but those in one.
    """
    if len(values) <= EXACT_VALUES:
        return values, counts
    apart = np.diff(values)
    density = counts[1:] / apart
    # To the power of 3/8: square roots, unlike cube roots, are the same on every machine.
    steps = apart * np.sqrt(np.sqrt(density * np.sqrt(density)))
    path = np.concatenate([[0.0], np.cumsum(steps)])
    bins = (path * ((min(most, EXACT_VALUES) - 1) / path[-1])).astype(np.int64)
    weights: NDArray[np.float64] = np.bincount(bins, weights=counts).astype(np.float64)
    sums = np.bincount(bins, weights=counts * values)
    used = weights > 0
    return sums[used] / weights[used], weights[used]
