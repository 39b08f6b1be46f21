"""One sample after the other through a network of active neurons: forward, backward, and updates of what took part.

All layers lie in flat arrays, so that one compiled kernel serves networks of any depth. Threads run the same kernel on
other samples and the same weights without locks: updates are so sparse that they seldom meet.

Source of the last: Hogwild!: A Lock-Free Approach to Parallelizing Stochastic Gradient Descent (Recht et al., 2011).
"""

from __future__ import annotations

import math

import numpy as np

from compiler.jit import njit
from compiler.train.hashing.projections import project
from compiler.train.hashing.retrieve import next_random, retrieve

__all__ = [
    "ADAPTIVE", "BACKWARD", "COUNTS", "FORWARD", "HASH", "QUERY", "RANDOM", "REHASH", "TOP", "UPDATE", "WAYS",
    "add_at", "add_rows", "dot_at", "smallest", "step_at", "train_samples",
]  # fmt: skip

HASH, RANDOM, ADAPTIVE, TOP = range(4)
WAYS = ("hash", "random", "adaptive", "top")
"""How active neurons are found: by the tables, by chance, by chance and result, or the greatest results."""

_STEER = 0.01  # how fast running means and the share of adaptive dropout follow

FORWARD, BACKWARD, UPDATE, QUERY, REHASH = range(5)
COUNTS = ("forward", "backward", "update", "query", "rehash")
"""What multiplications are counted for, in the order of the counters."""


@njit(cache=True, nogil=True, fastmath=True)
def dot_at(weights, row, indices, values, count):  # type: ignore[no-untyped-def]
    """Sum of ``weights[row + indices[i]] * values[i]``."""
    total = np.float32(0)
    for place in range(count):
        total += weights[row + indices[place]] * values[place]
    return total


@njit(cache=True, nogil=True, fastmath=True)
def add_at(weights, row, indices, count, value, sums):  # type: ignore[no-untyped-def]
    """Add ``weights[row + indices[i]] * value`` to ``sums[i]``."""
    for place in range(count):
        sums[place] += weights[row + indices[place]] * value


@njit(cache=True, nogil=True, fastmath=True)
def add_rows(weights, at, rows, values, used, sums):  # type: ignore[no-untyped-def]
    """Add ``weights[at + rows[i] * width + j] * values[i]`` to ``sums[j]``, for `used` rows of all `width` sums."""
    width, place = len(sums), 0
    while place + 4 <= used:  # four at a time, so that the sums are read and written a quarter as often
        first, second = at + rows[place] * width, at + rows[place + 1] * width
        third, fourth = at + rows[place + 2] * width, at + rows[place + 3] * width
        a, b, c, d = values[place], values[place + 1], values[place + 2], values[place + 3]
        for index in range(width):
            sums[index] += (
                weights[first + index] * a + weights[second + index] * b
                + weights[third + index] * c + weights[fourth + index] * d
            )  # fmt: skip
        place += 4
    while place < used:
        first, a = at + rows[place] * width, values[place]
        for index in range(width):
            sums[index] += weights[first + index] * a
        place += 1


@njit(cache=True, nogil=True, fastmath=True)
def step_at(weights, row, indices, values, count, scale):  # type: ignore[no-untyped-def]
    """Take ``scale * values[i]`` from ``weights[row + indices[i]]``; the indices differ."""
    for place in range(count):
        weights[row + indices[place]] -= scale * values[place]


@njit(cache=True, nogil=True)
def centre(sums, centres, learns):  # type: ignore[no-untyped-def]
    """Take the running mean from projections; returns the products of bringing it up to date."""
    for place in range(len(sums)):
        offset = sums[place] - centres[place]
        if learns:
            centres[place] += np.float32(_STEER) * offset
        sums[place] = offset
    return len(sums) if learns else 0


@njit(cache=True, nogil=True)
def smallest(values, count, place):  # type: ignore[no-untyped-def]
    """The number that stands at `place` of the first `count` values once they are sorted.

    Same as numpy's partition, which takes numba five seconds to compile.

    Source: Algorithm 65: FIND (Hoare, 1961).
    """
    rest, left, right = values[:count].copy(), 0, count - 1
    while left < right:
        pivot, low, high = rest[place], left, right
        while low <= high:
            while rest[low] < pivot:
                low += 1
            while pivot < rest[high]:
                high -= 1
            if low <= high:
                rest[low], rest[high] = rest[high], rest[low]
                low += 1
                high -= 1
        if high < place:
            left = low
        if place < low:
            right = high
    return rest[place]


@njit(cache=True, nogil=True)
def keep_top(indices, values, count, want):  # type: ignore[no-untyped-def]
    """Move the `want` greatest of `count` values to the front, in their order; returns `want`. Of equals the first."""
    least = smallest(values, count, count - want)
    greater = 0
    for place in range(count):
        greater += values[place] > least
    equal, kept = want - greater, 0
    for place in range(count):
        value = values[place]
        if value > least or (value == least and equal > 0):
            equal -= value == least
            indices[kept], values[kept] = indices[place], value
            kept += 1
    return want


@njit(cache=True, nogil=True)
def keep_likely(indices, values, count, offset, expect, state):  # type: ignore[no-untyped-def]
    """Move to the front what chance keeps of positive results, z with probability ``logistic(z + offset)``.

    Returns how many. With `expect` all are kept and multiplied by their probability instead.

    Source: Adaptive dropout for training deep neural networks (Ba & Frey, 2013), with the neuron's own weights.
    """
    kept = 0
    for place in range(count):
        probability = 1 / (1 + math.exp(-values[place] - offset))
        if expect:
            values[place] *= probability
            kept += 1
        elif np.float64(next_random(state) >> np.uint64(11)) * 2.0**-53 < probability:
            indices[kept], values[kept] = indices[place], values[place]
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def draw(neurons, want, found, state, active):  # type: ignore[no-untyped-def]
    """Write `want` of the neurons into `active`, each as likely as any other; `found` is scratch."""
    for neuron in range(neurons):
        found[neuron] = neuron
    for place in range(want):
        other = place + np.int64(next_random(state) % np.uint64(neurons - place))
        found[place], found[other] = found[other], found[place]
        active[place] = found[place]
    return want


@njit(cache=True, nogil=True)
def ascend(neurons, count, marks):  # type: ignore[no-untyped-def]
    """Sort the first `count` neurons, all different, so that weights are read as they lie.

    marks : one for every neuron, zeros before and after.
    """
    for place in range(count):
        marks[neurons[place]] = 1
    kept = neuron = 0
    while kept < count:
        if marks[neuron]:
            marks[neuron] = 0
            neurons[kept] = neuron
            kept += 1
        neuron += 1


@njit(cache=True, nogil=True)
def train_samples(  # type: ignore[no-untyped-def]
    inputs, labels, order, sizes, weights, weight_at, biases, bias_at, starts, which, sign, bucket_starts, members,
    per_code, probes, want, candidates, way, centres, offsets, rate, state, touched, counts, results,
    indices, used,
):  # fmt: skip
    """Train on the samples of `order`, one after the other; with a rate below zero only run them.

    Parameters
    ----------
    inputs, labels : float32 (n, sizes[0]), int64 (n,).
    order : int64: which samples.
    sizes : int64 (layers + 1,): of the input, hidden layers with ReLU, and the output with softmax, all of it active.
    weights, weight_at, biases, bias_at : float32 flat, and where each layer begins in them. The weights of an input lie
        beside each other, one for each neuron of the layer: few inputs are not zero, and only their rows are read.
    starts, which, sign : int32 (hidden, ·), int32 (hidden, ·), float32 (hidden, ·): `projections.Projections`.
    bucket_starts, members : int32 (hidden, tables, ·): see `tables.lay_out`.
    want : int64 (hidden,): most active neurons.
    candidates : int64 (hidden,): most neurons that the tables are asked for, of which the `want` greatest are active.
    centres : float32 (hidden, projections): running mean of the inputs' projections, which is taken from them: what
        all inputs have in common does not decide which neurons are active.
    way : one of `HASH`, `RANDOM`, `ADAPTIVE`, `TOP`.
    offsets : float64 (hidden,): of adaptive dropout, moved until `want` neurons are kept on average.
    touched : uint8 (hidden, ·): set for neurons whose weights change.
    counts : int64 (len(COUNTS),): multiplications are added here. An active neuron with a result of zero passes
        nothing on and takes no part in what follows.
    results : float64 (2,): loss and wrong answers are added here.
    indices, used : int32 (layers + 1, widest), int64 (layers + 1,): scratch, which at the end holds the neurons of the
        last sample that passed something on, by layer, inputs first.
    """
    layers, learns, centred = len(sizes) - 1, rate >= 0, centres.shape[1] > 0
    most = 0
    for layer in range(layers + 1):
        most = max(most, sizes[layer])
    tables = bucket_starts.shape[1]
    sums = np.zeros(tables * per_code, np.float32)
    hits, found = np.zeros(most, np.int16), np.zeros(most, np.int32)
    levels = np.zeros(tables * probes + 2, np.int32)
    values = np.zeros((layers + 1, most), np.float32)
    errors, below = np.zeros(most, np.float32), np.zeros(most, np.float32)
    active, results_of = np.zeros(most, np.int32), np.zeros(most, np.float32)
    for sample in order:
        count = 0
        for index in range(sizes[0]):
            if inputs[sample, index] != 0:
                indices[0, count] = index
                values[0, count] = inputs[sample, index]
                count += 1
        used[0] = count
        for layer in range(layers):
            n, last = used[layer], layer == layers - 1
            if last:
                chosen = sizes[layer + 1]
                for neuron in range(chosen):
                    active[neuron] = neuron
            elif way == RANDOM and learns:
                chosen = draw(sizes[layer + 1], want[layer], found, state, active)
                ascend(active, chosen, hits)
            elif way != HASH:  # every neuron; what is not active is found by its result
                chosen = sizes[layer + 1]
                for neuron in range(chosen):
                    active[neuron] = neuron
            else:
                counts[QUERY] += project(
                    starts[layer], which[layer], sign[layer], indices[layer], values[layer], n, sums
                )
                if centred:
                    counts[QUERY] += centre(sums, centres[layer], learns)
                chosen = retrieve(
                    sums, bucket_starts[layer], members[layer], per_code, probes, candidates[layer], hits, found,
                    levels, state, active,
                )  # fmt: skip
                ascend(active, chosen, hits)
            at, width = weight_at[layer], sizes[layer + 1]
            if chosen == width:  # in their order
                for neuron in range(width):
                    results_of[neuron] = biases[bias_at[layer] + neuron]
                add_rows(weights, at, indices[layer], values[layer], n, results_of[:width])
            else:
                for place in range(chosen):
                    results_of[place] = biases[bias_at[layer] + active[place]]
                for place in range(n):
                    row = at + indices[layer, place] * width
                    add_at(weights, row, active, chosen, values[layer, place], results_of)
            kept = np.int64(0)  # not a literal, for which numba would compile what is called a second time
            for place in range(chosen):
                result = results_of[place]
                if last or result > 0:
                    indices[layer + 1, kept] = active[place]
                    values[layer + 1, kept] = result
                    kept += 1
            counts[FORWARD] += chosen * n
            if not last and (way == TOP or way == HASH) and kept > want[layer]:
                kept = keep_top(indices[layer + 1], values[layer + 1], kept, want[layer])
            elif not last and way == ADAPTIVE:
                counts[FORWARD] += kept
                kept = keep_likely(indices[layer + 1], values[layer + 1], kept, offsets[layer], not learns, state)
                if learns:
                    offsets[layer] += _STEER * (want[layer] - kept) / want[layer]
            elif not last and way == RANDOM and not learns:  # what training saw on average
                for place in range(kept):
                    values[layer + 1, place] *= want[layer] / chosen
            used[layer + 1] = kept
        top, best = values[layers], 0
        for neuron in range(sizes[layers]):
            if top[neuron] > top[best]:
                best = neuron
        total, greatest = 0.0, top[best]
        for neuron in range(sizes[layers]):
            total += math.exp(top[neuron] - greatest)
        results[0] += math.log(total) + greatest - top[labels[sample]]
        results[1] += best != labels[sample]
        if not learns:
            continue
        for neuron in range(sizes[layers]):
            errors[neuron] = math.exp(top[neuron] - greatest) / total
        errors[labels[sample]] -= 1
        for layer in range(layers - 1, -1, -1):
            n, width, above = used[layer], sizes[layer + 1], used[layer + 1]
            for place in range(n):
                row = weight_at[layer] + indices[layer, place] * width
                if layer:
                    below[place] = dot_at(weights, row, indices[layer + 1], errors, above)
                step_at(weights, row, indices[layer + 1], errors, above, np.float32(rate) * values[layer, place])
            for place in range(above):
                neuron = indices[layer + 1, place]
                biases[bias_at[layer] + neuron] -= np.float32(rate) * errors[place]
                if layer < layers - 1:
                    touched[layer, neuron] = 1
            if layer:
                counts[BACKWARD] += above * n
            counts[UPDATE] += above * (n + 1)
            for place in range(n):  # numba compiles an assignment of slices for two seconds
                errors[place] = below[place]
