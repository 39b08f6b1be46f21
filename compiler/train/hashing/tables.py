"""Hash tables of the neurons of a layer: codes are computed again for neurons that moved, buckets laid out anew.

A table's buckets are one list of neurons with the place where each bucket begins, made by counting sort: that takes no
multiplication, and a bucket's neurons stand in rising order however they came there, so that tables after any number
of updates equal tables that are built at once.
"""

from __future__ import annotations

import numpy as np

from compiler.jit import njit
from compiler.train.hashing.projections import code_of

__all__ = ["lay_out", "rehash", "rehash_columns"]

_BLOCK = 256  # neurons whose sums stay in the first cache


@njit(cache=True, nogil=True)
def rehash(weights, at, inputs, neurons, starts, which, sign, per_code, touched, codes, sums):  # type: ignore[no-untyped-def]
    """Codes of the touched neurons, whose marks are taken away; returns the products.

    Parameters
    ----------
    weights, at, inputs, neurons : float32; neuron i has the `inputs` weights from ``at + i * inputs``.
    starts, which, sign : `projections.Projections`.
    per_code : bits of a code.
    touched : uint8 (neurons,): not zero where weights have changed since the neuron was hashed.
    codes : int32 (tables, neurons), changed in place.
    sums : float32 (tables * per_code,), scratch.
    """
    done = 0
    for neuron in range(neurons):
        if touched[neuron] == 0:
            continue
        touched[neuron] = 0
        sums[:] = 0
        row = at + neuron * inputs
        for index in range(inputs):
            value = weights[row + index]
            for entry in range(starts[index], starts[index + 1]):
                sums[which[entry]] += sign[entry] * value
        done += starts[inputs]
        for table in range(codes.shape[0]):
            codes[table, neuron] = code_of(sums, table * per_code, per_code)
    return done


@njit(cache=True, nogil=True)
def rehash_columns(  # type: ignore[no-untyped-def]
    weights, at, inputs, neurons, first, last, starts, which, sign, per_code, touched, codes
):
    """The same of weights that lie by input: of the neurons from `first` to before `last`, which threads can share.

    Parameters
    ----------
    weights, at, inputs, neurons : float32; neuron i has the weights from ``at + i`` on, in steps of `neurons`.
    touched : uint8, one for every neuron at least.
    """
    chosen = np.zeros(_BLOCK, np.int32)
    row, sums = np.zeros(_BLOCK, np.float32), np.zeros((codes.shape[0] * per_code, _BLOCK), np.float32)
    done = 0
    neuron = first
    while neuron < last:
        count = 0
        while neuron < last and count < _BLOCK:
            if touched[neuron]:
                touched[neuron] = 0
                chosen[count] = neuron
                count += 1
            neuron += 1
        sums[:] = 0
        for index in range(inputs):
            for place in range(count):
                row[place] = weights[at + index * neurons + chosen[place]]
            for entry in range(starts[index], starts[index + 1]):
                mine, one = sums[which[entry]], sign[entry]
                for place in range(count):
                    mine[place] += one * row[place]
        done += count * starts[inputs]
        for place in range(count):
            for table in range(codes.shape[0]):
                codes[table, chosen[place]] = code_of(sums[:, place], table * per_code, per_code)
    return done


@njit(cache=True, nogil=True)
def lay_out(codes, neurons, bucket_starts, members):  # type: ignore[no-untyped-def]
    """Buckets from codes, by counting sort.

    Parameters
    ----------
    codes : int32 (tables, at least `neurons`).
    bucket_starts : int32 (tables, buckets + 1), written.
    members : int32 (tables, at least `neurons`), written.
    """
    buckets = bucket_starts.shape[1] - 1
    for table in range(codes.shape[0]):
        bucket_starts[table, :] = 0
        for neuron in range(neurons):
            bucket_starts[table, codes[table, neuron] + 1] += 1
        for bucket in range(buckets):
            bucket_starts[table, bucket + 1] += bucket_starts[table, bucket]
        for neuron in range(neurons):
            code = codes[table, neuron]
            members[table, bucket_starts[table, code]] = neuron
            bucket_starts[table, code] += 1
        for bucket in range(buckets, 0, -1):
            bucket_starts[table, bucket] = bucket_starts[table, bucket - 1]
        bucket_starts[table, 0] = 0
