"""The first results of a run at a glance, for those who did not ask for a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eie.output import Output

if TYPE_CHECKING:
    from sim.network import NetworkResult

__all__ = ["show_outputs"]

SAMPLES = 8
"""Samples shown."""

LARGEST = 3
"""Outputs shown of a vector, the largest first: those are its classes, if it has classes."""

VALUES = 6
"""Values shown of an output of several axes."""


def show_outputs(output: Output, result: NetworkResult, names: dict[str, str]) -> None:
    """A table for each output of the network: the largest numbers of each vector, or the first of each map.

    Parameters
    ----------
    names : value of the graph → what the user calls this output.
    """
    for value, name in names.items():
        real = result.real(value)
        shown = real[:SAMPLES]
        if real.ndim == 2 and real.shape[1] > 1:
            columns, rows, what = _largest(shown)
        else:
            columns, rows, what = _first(shown)
        more = f", {SAMPLES} of {len(real):,} samples" if len(real) > SAMPLES else ""
        output.table(columns, rows, title=f"{name}: {what}{more}")


def _largest(values: NDArray[np.float64]) -> tuple[tuple[str, ...], list[tuple[object, ...]], str]:
    count = min(LARGEST, values.shape[1])
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    columns = ("sample", *("largest", "second", "third")[:count])
    rows = [
        (sample, *(f"{n}: {values[sample, n]:.4g}" for n in places)) for sample, places in enumerate(order.tolist())
    ]
    return columns, rows, "number and value of the largest"


def _first(values: NDArray[np.float64]) -> tuple[tuple[str, ...], list[tuple[object, ...]], str]:
    flat = values.reshape(len(values), -1)
    rest = " …" if flat.shape[1] > VALUES else ""
    rows: list[tuple[object, ...]] = [
        (sample, "  ".join(f"{x:.4g}" for x in row[:VALUES]) + rest) for sample, row in enumerate(flat)
    ]
    shape = "x".join(map(str, values.shape[1:])) or "1"
    return ("sample", "values"), rows, f"first values of {shape}"
