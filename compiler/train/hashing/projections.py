"""Sparse signed random projections: the bits of a hash are the signs of a vector's sums over random coordinates.

Two vectors differ in a bit with probability angle / pi, so that neurons whose weights point where the input points
share its buckets.

Sources: Similarity Estimation Techniques from Rounding Algorithms (Charikar, 2002); Database-friendly random
projections (Achlioptas, 2003), whose entries are +1, -1 and, two in three, 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.jit import njit

__all__ = ["Projections", "code_of", "project"]


@dataclass(frozen=True, eq=False)
class Projections:
    """All projections of one layer, by coordinate of the input: an input of zero costs nothing.

    Attributes
    ----------
    starts : int32 (inputs + 1,): where the entries of each coordinate begin.
    which : int32 (entries,): the projection that an entry belongs to.
    sign : float32 (entries,): +1 or -1.
    """

    starts: NDArray[np.int32]
    which: NDArray[np.int32]
    sign: NDArray[np.float32]

    @classmethod
    def draw(cls, inputs: int, bits: int, density: float, seed: int) -> Projections:
        """`bits` projections of vectors of `inputs` numbers, each entry nonzero with probability `density`."""
        random = np.random.Generator(np.random.PCG64([seed, inputs, bits]))
        chosen = random.random((inputs, bits)) < density
        # A projection without entries would give every vector the same bit.
        for bit in np.flatnonzero(~chosen.any(0)):
            chosen[random.integers(inputs), bit] = True
        signs = np.where(random.random((inputs, bits)) < 0.5, np.float32(-1), np.float32(1))
        starts = np.concatenate([[0], np.cumsum(chosen.sum(1))]).astype(np.int32)
        return cls(starts, np.nonzero(chosen)[1].astype(np.int32), signs[chosen])


@njit(cache=True, nogil=True)
def project(starts, which, sign, indices, values, count, sums):  # type: ignore[no-untyped-def]
    """Projections of a vector with `count` nonzeros into `sums`; returns the products that it took.

    They are additions, as entries are +1 or -1, and counted as though they were multiplications.
    """
    sums[:] = 0
    done = 0
    for place in range(count):
        index, value = indices[place], values[place]
        for entry in range(starts[index], starts[index + 1]):
            sums[which[entry]] += sign[entry] * value
        done += starts[index + 1] - starts[index]
    return done


@njit(cache=True, nogil=True)
def code_of(sums, first, per_code):  # type: ignore[no-untyped-def]
    """The code whose bits are the signs of `per_code` projections from `first` on, the lowest bit first."""
    code = 0
    for bit in range(per_code):
        if sums[first + bit] >= 0:
            code |= 1 << bit
    return code
