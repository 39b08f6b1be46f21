"""The active neurons of an input: those that share most buckets with it.

More buckets are probed, each with the least certain bit flipped, then the next, until enough neurons are found.

Source of probing: Multi-Probe LSH (Lv et al., 2007).
"""

from __future__ import annotations

import numpy as np

from compiler.jit import njit
from compiler.train.hashing.projections import code_of

__all__ = ["retrieve"]


@njit(cache=True, nogil=True)
def next_random(state):  # type: ignore[no-untyped-def]
    """The next of a stream of 64-bit numbers, by xorshift* (Vigna, 2016); `state` is uint64 (1,), not zero."""
    x = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    return x * np.uint64(2685821657736338717)


@njit(cache=True, nogil=True)
def retrieve(sums, bucket_starts, members, per_code, probes, want, hits, found, levels, state, active):  # type: ignore[no-untyped-def]
    """Write up to `want` neurons into `active`; returns how many.

    Parameters
    ----------
    sums : float32 (tables * per_code,): projections of the input.
    bucket_starts, members : see `tables.lay_out`.
    probes : most buckets of a table that are looked into, at most ``1 + per_code``.
    want : rounds of probing end when so many neurons are found; of more, those that share most buckets are taken,
        and of equals those from a random place on.
    hits : int16 (neurons,), zeros before and after.
    found, levels : int32 (neurons,) and (tables * probes + 2,), scratch.
    state : see `next_random`.
    """
    tables = bucket_starts.shape[0]
    count = 0
    for probe in range(probes):
        for table in range(tables):
            first = table * per_code
            code = code_of(sums, first, per_code)
            if probe:  # flip the bit with the probe-th smallest distance from zero; of equals the first
                for bit in range(per_code):
                    margin, rank = abs(sums[first + bit]), 0
                    for other in range(per_code):
                        distance = abs(sums[first + other])
                        if distance < margin or (distance == margin and other < bit):
                            rank += 1
                    if rank == probe - 1:
                        code ^= 1 << bit
                        break
            for place in range(bucket_starts[table, code], bucket_starts[table, code + 1]):
                neuron = members[table, place]
                if hits[neuron] == 0:
                    found[count] = neuron
                    count += 1
                hits[neuron] += 1
        if count >= want:
            break
    taken = 0
    if count <= want:
        for place in range(count):
            active[place] = found[place]
            hits[found[place]] = 0
        return count
    levels[:] = 0
    for place in range(count):
        levels[hits[found[place]]] += 1
    level, above = len(levels) - 1, 0
    while above + levels[level] < want:
        above += levels[level]
        level -= 1
    left = want - above  # of those with just `level` hits
    offset = np.int64(next_random(state) % np.uint64(count))
    for step in range(count):
        turned = step + offset
        if turned >= count:
            turned -= count
        neuron = found[turned]
        if hits[neuron] > level:
            active[taken] = neuron
            taken += 1
        elif hits[neuron] == level and left > 0:
            active[taken] = neuron
            taken += 1
            left -= 1
    for place in range(count):
        hits[found[place]] = 0
    return taken
