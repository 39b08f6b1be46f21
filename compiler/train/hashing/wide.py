"""A wide output: of tens of thousands of words only those that hash tables name, the right one, and a few by chance.

The network is that of SLIDE: an input of few nonzeros (one word at each place of a context), one dense hidden layer, a
softmax over all words. The words drawn by chance stand for all that the tables did not name, each for as many as there
are of them; so the sum under the softmax is right on average, whatever the tables find.

Sources: SLIDE (Chen et al., MLSys 2020); the estimate of the sum: A New Unbiased and Efficient Class of LSH-Based
Samplers and Estimators for Partition Function Computation in Log-Linear Models (Spring & Shrivastava, 2017), here with
a uniform sample of the rest. Steps by rows: AdaGrad (Duchi et al., 2011) with one sum for all weights of a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.jit import njit
from compiler.train.hashing.kernels import BACKWARD, COUNTS, FORWARD, QUERY, REHASH, UPDATE
from compiler.train.hashing.projections import Projections, project
from compiler.train.hashing.retrieve import next_random, retrieve
from compiler.train.hashing.tables import lay_out, rehash

__all__ = ["EPSILON", "WideNetwork", "WideSettings", "first_weights"]

EPSILON = 1e-8
"""Added under the root of a row's sum of squares."""


@dataclass(frozen=True)
class WideSettings:
    """What decides the active words.

    Attributes
    ----------
    want : most words that the tables name; 0 for none, which leaves a uniform sample.
    drawn : words by chance for the rest.
    bits, tables, probes, density : see `network.HashSettings`.
    period : samples between two times that words are hashed again.
    """

    want: int = 200
    drawn: int = 100
    bits: int = 9
    tables: int = 12
    probes: int = 2
    density: float = 1 / 3
    period: int = 6400

    def __post_init__(self) -> None:
        if not (
            self.want >= 0 and self.drawn >= 1 and 1 <= self.bits <= 16 and 1 <= self.tables <= 1024
            and 1 <= self.probes <= 1 + self.bits and 0 < self.density <= 1 and self.period >= 1
        ):  # fmt: skip
            raise InputError(
                f"hashing of words with {self}; expected want from 0, drawn and period from 1, bits 1 to 16, tables 1 "
                "to 1024, probes 1 to 1 + bits, and density above 0 up to 1"
            )


def first_weights(
    words: int, context: int, hidden: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings (context * words, hidden), hidden biases, output weights (words, hidden), output biases."""
    random = np.random.Generator(np.random.PCG64([seed, 2]))
    return (
        random.normal(0, 1 / math.sqrt(context), (context * words, hidden)).astype(np.float32),
        np.zeros(hidden, np.float32),
        random.normal(0, 0.05, (words, hidden)).astype(np.float32),
        np.zeros(words, np.float32),
    )


@njit(cache=True, nogil=True, fastmath=True)
def dot(rows, row, values):  # type: ignore[no-untyped-def]
    """Product of a row of a matrix with a vector."""
    total = np.float32(0)
    for index in range(len(values)):
        total += rows[row, index] * values[index]
    return total


@njit(cache=True, nogil=True, fastmath=True)
def back_and_step(rows, row, values, delta, scale, below):  # type: ignore[no-untyped-def]
    """Add ``delta`` times a row to `below`, then take ``scale * values`` from it."""
    for index in range(len(values)):
        below[index] += rows[row, index] * delta
        rows[row, index] -= scale * values[index]


@njit(cache=True, nogil=True)
def train_words(  # type: ignore[no-untyped-def]
    contexts, targets, order, embeddings, embedding_sums, hidden_biases, weights, biases, row_sums, starts, which, sign,
    bucket_starts, members, per_code, probes, want, drawn, rate, state, touched, counts,
):  # fmt: skip
    """Train on the samples of `order`, one after the other; returns the sum of their estimated losses.

    Parameters
    ----------
    contexts, targets : int32 (n, context), rows of the embeddings; int64 (n,).
    embedding_sums, row_sums : float32: sums of mean squares of the gradients so far, by row.
    counts : int64 (len(COUNTS),). Looking up an embedding takes no multiplication.
    """
    words, width = weights.shape
    hidden, below = np.zeros(width, np.float32), np.zeros(width, np.float32)
    everywhere = np.zeros(width, np.int32)
    for index in range(width):
        everywhere[index] = index
    sums = np.zeros(bucket_starts.shape[0] * per_code, np.float32)
    hits, found = np.zeros(words, np.int16), np.zeros(words, np.int32)
    levels = np.zeros(bucket_starts.shape[0] * probes + 2, np.int32)
    active = np.zeros(want + drawn + 1, np.int32)
    marked = np.zeros(words, np.uint8)
    logits = np.zeros(want + drawn + 1, np.float64)
    losses = 0.0
    for sample in order:
        for index in range(width):
            hidden[index] = hidden_biases[index]
        for place in range(contexts.shape[1]):
            for index in range(width):
                hidden[index] += embeddings[contexts[sample, place], index]
        square = 0.0
        for index in range(width):
            hidden[index] = max(hidden[index], np.float32(0))
            square += hidden[index] * hidden[index]
        square = square / width + 1 / width
        counts[FORWARD] += width
        chosen = 0
        if want:
            counts[QUERY] += project(starts, which, sign, everywhere, hidden, width, sums)
            chosen = retrieve(
                sums, bucket_starts, members, per_code, probes, want, hits, found, levels, state, active
            )  # fmt: skip
        for place in range(chosen):
            marked[active[place]] = 1
        target, at = targets[sample], -1
        if marked[target]:
            for place in range(chosen):
                if active[place] == target:
                    at = place
        else:
            at = chosen
            active[chosen] = target
            marked[target] = 1
            chosen += 1
        named = chosen
        # Drawn with replacement from all words but those named.
        while chosen < named + drawn:
            word = np.int64(next_random(state) % np.uint64(words))
            if not marked[word]:
                active[chosen] = word
                chosen += 1
        for place in range(named):
            marked[active[place]] = 0
        stands_for = math.log((words - named) / drawn)
        greatest = -1e30
        for place in range(chosen):
            logits[place] = biases[active[place]] + dot(weights, active[place], hidden)
            if place >= named:
                logits[place] += stands_for
            greatest = max(greatest, logits[place])
        total = 0.0
        for place in range(chosen):
            total += math.exp(logits[place] - greatest)
        losses += math.log(total) + greatest - logits[at]
        below[:] = 0
        for place in range(chosen):
            word = active[place]
            delta = math.exp(logits[place] - greatest) / total - (place == at)
            row_sums[word] += np.float32(delta * delta * square)
            scale = rate * delta / math.sqrt(row_sums[word] + EPSILON)
            back_and_step(weights, word, hidden, np.float32(delta), np.float32(scale), below)
            biases[word] -= np.float32(scale)
            touched[word] = 1
        square = 0.0
        for index in range(width):
            if hidden[index] == 0:
                below[index] = 0
            square += below[index] * below[index]
        square /= width
        for place in range(contexts.shape[1]):
            row = contexts[sample, place]
            embedding_sums[row] += np.float32(square)
            scale = np.float32(rate / math.sqrt(embedding_sums[row] + EPSILON))
            for index in range(width):
                embeddings[row, index] -= scale * below[index]
        embedding_sums[len(embedding_sums) - 1] += np.float32(square)
        scale = np.float32(rate / math.sqrt(embedding_sums[len(embedding_sums) - 1] + EPSILON))
        for index in range(width):
            hidden_biases[index] -= scale * below[index]
        counts[FORWARD] += chosen * width
        counts[BACKWARD] += chosen * width + width
        counts[UPDATE] += chosen * (width + 4) + (contexts.shape[1] + 1) * width
    return losses


class WideNetwork:
    """Weights and hash tables of the output, trained by one thread.

    Parameters
    ----------
    words, context, hidden : size of the vocabulary, words before the one that is to be said, width.
    settings : see there.
    seed : of weights, projections and draws.

    Raises
    ------
    InputError
        The tables could name all words, and none would be left to draw.
    """

    def __init__(self, words: int, context: int, hidden: int, settings: WideSettings, seed: int) -> None:
        if settings.want + 1 >= words:
            raise InputError(
                f"the tables name up to {settings.want} of {words} words; expected at least two fewer, so that chance "
                "has words to draw: ask for fewer, or take a larger vocabulary"
            )
        self.settings, self.seed = settings, seed
        self.embeddings, self.hidden_biases, self.weights, self.biases = first_weights(words, context, hidden, seed)
        self.embedding_sums = np.zeros(len(self.embeddings) + 1, np.float32)  # the last one is that of the biases
        self.row_sums = np.zeros(words, np.float32)
        self.projections = Projections.draw(hidden, settings.bits * settings.tables, settings.density, seed)
        self.codes = np.zeros((settings.tables, words), np.int32)
        self.members = np.zeros_like(self.codes)
        self.bucket_starts = np.zeros((settings.tables, (1 << settings.bits) + 1), np.int32)
        self.touched = np.ones(words, np.uint8)
        self.counts = np.zeros(len(COUNTS), np.int64)
        self._intervals = 0
        self.hash_again()

    def hash_again(self) -> None:
        """Bring the tables up to date: hash the words whose weights have changed, and lay out the buckets."""
        if not self.settings.want:
            return
        words, hidden = self.weights.shape
        one, settings = self.projections, self.settings
        self.counts[REHASH] += rehash(
            self.weights.reshape(-1), 0, hidden, words, one.starts, one.which, one.sign, settings.bits, self.touched,
            self.codes, np.zeros(settings.bits * settings.tables, np.float32),
        )  # fmt: skip
        lay_out(self.codes, words, self.bucket_starts, self.members)

    def train(
        self, contexts: NDArray[np.int32], targets: NDArray[np.int64], order: NDArray[np.int64], rate: float
    ) -> float:
        """Train on the samples of `order`; returns the mean of the losses as they were estimated."""
        losses, settings, one = 0.0, self.settings, self.projections
        for first in range(0, len(order), settings.period):
            self._intervals += 1
            state = np.random.SeedSequence([self.seed, self._intervals]).generate_state(1, np.uint64) | np.uint64(1)
            losses += train_words(
                contexts, targets, order[first : first + settings.period], self.embeddings, self.embedding_sums,
                self.hidden_biases, self.weights, self.biases, self.row_sums, one.starts, one.which, one.sign,
                self.bucket_starts, self.members, settings.bits, settings.probes, settings.want, settings.drawn, rate,
                state, self.touched, self.counts,
            )  # fmt: skip
            self.hash_again()
        return losses / len(order)
