"""What other people's code takes for the work that the kit's is measured against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

__all__ = ["csc", "kmeans", "matvec"]


def csc(weight: NDArray[np.float32]) -> Callable[[], Any]:
    """A dense matrix compressed column by column by scipy."""
    return lambda: scipy.sparse.csc_array(weight)


def matvec(weight: NDArray[np.float32], vector: NDArray[np.float32]) -> tuple[str, Callable[[], Any]]:
    """Name and call of a dense float32 matrix-vector product, on one thread where torch is installed."""
    try:
        import torch
    except ModuleNotFoundError:
        return "numpy dense float32 matvec (torch is not installed)", lambda: weight @ vector
    matrix, operand = torch.from_numpy(weight), torch.from_numpy(vector)

    def product() -> Any:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return matrix @ operand
        finally:
            torch.set_num_threads(threads)

    return "torch dense float32 matvec, one thread", product


def kmeans(
    values: NDArray[np.float32], clusters: int, seed: int
) -> tuple[str, Callable[[], NDArray[np.float64]]] | None:
    """Name and call of scikit-learn's k-means with one start and else its defaults; None where it is not installed.

    The call gives the centers of values (n,), ascending.
    """
    try:
        from sklearn.cluster import KMeans  # type: ignore[import-untyped, unused-ignore]
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return None

    def centers() -> NDArray[np.float64]:
        with threadpool_limits(1):
            found = KMeans(clusters, n_init=1, random_state=seed).fit(values[:, np.newaxis])
        return np.sort(found.cluster_centers_[:, 0].astype(np.float64))

    return "scikit-learn KMeans, n_init=1, one thread", centers
