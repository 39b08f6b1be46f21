"""What other people's code takes for the work that the kit's is measured against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

__all__ = ["csc", "matvec"]


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
