"""The nine layers of the EIE publication as random matrices and batches of their shapes and densities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.graph.dense import Dense, dense_graph
from compiler.graph.ir import Graph
from hw.params import Params

__all__ = ["BATCH", "MATRICES", "NINE", "Case", "Shape", "choose", "make_case", "row_blocks"]

BATCH = 4
"""Different vectors that one measurement runs back to back."""

MATRICES = ("uniform", "skewed")
SPREAD = 0.5  # sigma of the lognormal factors on rows and columns of a skewed matrix

# Fifteen weights, as many as a 4-bit codebook holds beside zero, none the negative of another.
_WEIGHTS = np.array([-977, -701, -523, -389, -271, -163, -71, 37, 113, 197, 293, 431, 587, 761, 941], np.float32)
_ROWS_AT_ONCE = 128


@dataclass(frozen=True)
class Shape:
    """One published layer.

    inputs, outputs : size. weights, activations : densities.
    paper_us : time on 64 PEs at 800 MHz as published.
    simulator : efficiency that the co-authors' own cycle simulator reaches on matrices like these, 64 PEs.
    """

    name: str
    inputs: int
    outputs: int
    weights: float
    activations: float
    paper_us: float
    simulator: float


# EIE (Han et al., ISCA 2016), tables III and IV. The activations of the NT layers are dense by construction there.
NINE = (
    Shape("Alex-6", 9216, 4096, 0.09, 0.351, 30.3, 0.813),
    Shape("Alex-7", 4096, 4096, 0.09, 0.353, 12.2, 0.806),
    Shape("Alex-8", 4096, 1000, 0.25, 0.375, 9.9, 0.921),
    Shape("VGG-6", 25088, 4096, 0.04, 0.183, 34.4, 0.588),
    Shape("VGG-7", 4096, 4096, 0.04, 0.375, 8.7, 0.585),
    Shape("VGG-8", 4096, 1000, 0.23, 0.411, 8.4, 0.909),
    Shape("NT-We", 4096, 600, 0.10, 1.0, 8.0, 0.638),
    Shape("NT-Wd", 600, 8791, 0.11, 1.0, 13.9, 0.847),
    Shape("NT-LSTM", 1201, 2400, 0.10, 1.0, 7.5, 0.838),
)


@dataclass(frozen=True, eq=False)
class Case:
    """A layer with its batch.

    weight : float32 (outputs, inputs), integers of at most fifteen distinct nonzero values.
    x : int16 (batch, inputs).
    """

    shape: Shape
    weight: NDArray[np.float32]
    x: NDArray[np.int16]

    @property
    def graph(self) -> Graph:
        """The layer as a network."""
        return dense_graph([Dense(self.shape.name, self.weight, None, "relu")])

    @property
    def nnz_active(self) -> int:
        """Nonzero weights on columns with a nonzero activation, summed over the batch."""
        return int(((self.x != 0) @ np.count_nonzero(self.weight, axis=0)).sum())


def choose(names: Sequence[str] | None) -> tuple[Shape, ...]:
    """The layers of these names, in the publication's order; all nine if None.

    Raises
    ------
    InputError
        There is no layer of that name; the message lists those that exist.
    """
    if names is None:
        return NINE
    known = {shape.name.lower(): shape for shape in NINE}
    for name in names:
        if name.lower() not in known:
            raise InputError(f"unknown layer {name!r}; expected some of {', '.join(shape.name for shape in NINE)}")
    wanted = {name.lower() for name in names}
    return tuple(shape for shape in NINE if shape.name.lower() in wanted)


def make_case(shape: Shape, seed: int, *, matrices: str = "uniform", scale: int = 1, batch: int = BATCH) -> Case:
    """Random matrix and batch of a layer: what a layer gets depends on its name and the seed alone.

    Parameters
    ----------
    shape : the layer.
    seed : of everything random.
    matrices : "uniform": each weight is there with the layer's density, independently. "skewed": the density of
        row i and column j is multiplied by lognormal(0, 0.5) factors of both, normalised to the same mean.
    scale : both sides are divided by it (a quick look, not a result).
    batch : vectors.
    """
    if matrices not in MATRICES:
        raise InputError(f"unknown matrices {matrices!r}; expected one of {', '.join(MATRICES)}")
    if scale < 1 or batch < 1 or seed < 0:
        raise InputError(f"scale {scale}, batch {batch}, seed {seed}: expected scale and batch ≥ 1, seed ≥ 0")
    number = NINE.index(shape) if shape in NINE else len(NINE)
    rng = np.random.default_rng([seed, number, MATRICES.index(matrices)])
    inputs, outputs = max(8, shape.inputs // scale), max(8, shape.outputs // scale)
    rows, columns = np.ones(outputs), np.full(inputs, shape.weights)
    if matrices == "skewed":
        rows, columns = rng.lognormal(0, SPREAD, outputs), rng.lognormal(0, SPREAD, inputs)
        columns *= _normalised(rows, columns, shape.weights)
    weight = np.zeros((outputs, inputs), np.float32)
    for first in range(0, outputs, _ROWS_AT_ONCE):
        part = weight[first : first + _ROWS_AT_ONCE]
        chance = np.multiply.outer(rows[first : first + len(part)], columns).astype(np.float32)
        there = np.flatnonzero(rng.random(part.shape, np.float32) < chance)
        part.reshape(-1)[there] = _WEIGHTS[rng.integers(0, len(_WEIGHTS), len(there))]
    active = rng.random((batch, inputs)) < shape.activations
    values = rng.integers(1, 1 << 15, (batch, inputs)) * rng.choice([-1, 1], (batch, inputs))
    return Case(shape, weight, np.where(active, values, 0).astype(np.int16))


def _normalised(rows: NDArray[np.float64], columns: NDArray[np.float64], density: float) -> float:
    """Factor s at which the mean of min(1, s · rows[i] · columns[j]) is `density`."""
    ascending = np.sort(columns)
    sums = np.concatenate([[0.0], np.cumsum(ascending)])
    factor = density / (rows.mean() * columns.mean())
    for _ in range(100):
        below = np.searchsorted(ascending, 1 / (factor * rows))
        mean = float((factor * rows * sums[below] + len(columns) - below).mean()) / len(columns)
        if abs(mean - density) < 1e-9:
            break
        factor *= density / mean
    return float(factor)


def row_blocks(case: Case, params: Params) -> Iterator[Case]:
    """The layer in blocks of rows that fit the accumulators of an array, to run one after the other.

    Balanced rows may take a slot more than their share, so a block leaves one free.
    """
    most = (params.rows - 1) * params.pes
    count = -(-len(case.weight) // most)
    for weight in np.array_split(case.weight, count):
        yield Case(case.shape, weight, case.x)
