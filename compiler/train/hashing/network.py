"""A network of Linear and ReLU that is trained by its active neurons alone, on one or more threads without locks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compiler.errors import InputError
from compiler.train.hashing.kernels import COUNTS, REHASH, WAYS, train_samples
from compiler.train.hashing.projections import Projections
from compiler.train.hashing.tables import lay_out, rehash_columns
from compiler.train.models import mlp

__all__ = ["HashSettings", "HashedNetwork"]

_LARGEST_CODE = 16


@dataclass(frozen=True)
class HashSettings:
    """What decides the active neurons.

    Attributes
    ----------
    share : most neurons of a hidden layer that are active, of all.
    pool : so many times as many neurons are asked for, and of these those with the greatest results are active.
    centred : hash inputs without the mean of all inputs.
    bits : of a code; a table has ``2 ** bits`` buckets.
    tables : of each layer.
    probes : most buckets of a table that are looked into, 1 to ``1 + bits``.
    density : share of a projection's entries that are not zero.
    period : samples between two times that neurons are hashed again.
    way : one of `WAYS`; only "hash" hashes. At evaluation "random" and "adaptive" run every neuron, with the result
        that they have on average in training.
    """

    share: float
    pool: float = 1.0
    centred: bool = True
    bits: int = 6
    tables: int = 5
    probes: int = 7
    density: float = 1 / 3
    period: int = 2000
    way: str = "hash"

    def __post_init__(self) -> None:
        legal = {
            "share": 0 < self.share <= 1,
            "pool": self.pool >= 1,
            "bits": 1 <= self.bits <= _LARGEST_CODE,
            "tables": 1 <= self.tables <= 1024,
            "probes": 1 <= self.probes <= 1 + self.bits,
            "density": 0 < self.density <= 1,
            "period": self.period >= 1,
            "way": self.way in WAYS,
        }
        wrong = [f"{name} = {getattr(self, name)!r}" for name, right in legal.items() if not right]
        if wrong:
            raise InputError(
                f"hashing with {', '.join(wrong)}; expected share and density above 0 up to 1, pool at least 1, bits 1 "
                f"to {_LARGEST_CODE}, tables 1 to 1024, probes 1 to 1 + bits, a period from 1, and one of the ways "
                f"{', '.join(WAYS)}"
            )


class HashedNetwork:
    """Weights, and hash tables of the neurons of every hidden layer.

    Parameters
    ----------
    sizes : of the input, the hidden layers and the output.
    settings : see there.
    seed : of weights, projections and draws; one thread gives the same bits for the same seed.

    Attributes
    ----------
    weights, biases : float32, all layers one after the other, each layer's weights by input as in
        `kernels.train_samples`; `module` shows them as Linear layers.
    counts : multiplications so far, by `COUNTS`; adding a signed number in a projection counts as one.
    """

    def __init__(self, sizes: Sequence[int], settings: HashSettings, seed: int) -> None:
        if len(sizes) < 3 or min(sizes) < 1:
            raise InputError(f"sizes are {list(sizes)}; expected input, at least one hidden layer, and output")
        self.settings, self.seed = settings, seed
        self.sizes = np.array(sizes, np.int64)
        hidden, widest = len(sizes) - 2, max(sizes[1:-1])
        self.weight_at = np.concatenate([[0], np.cumsum(self.sizes[:-1] * self.sizes[1:])]).astype(np.int64)
        self.bias_at = np.concatenate([[0], np.cumsum(self.sizes[1:])]).astype(np.int64)
        self.want = np.maximum(1, np.round(self.sizes[1:-1] * settings.share)).astype(np.int64)
        self.candidates = np.minimum(self.sizes[1:-1], np.round(self.want * settings.pool)).astype(np.int64)
        self.centres = np.zeros((hidden, settings.bits * settings.tables if settings.centred else 0), np.float32)
        random = np.random.Generator(np.random.PCG64([seed, 1]))
        # As by He et al. (2015), but the squares that a neuron sums up are those of the active neurons below it.
        terms = [float(sizes[0]), *(_square_of_active(settings, size) for size in sizes[1:-1])]
        self.weights = np.concatenate(
            [
                random.normal(0, math.sqrt((2 if layer < hidden else 1) / terms[layer]), inputs * outputs)
                for layer, (inputs, outputs) in enumerate(pairwise(sizes))
            ]
        ).astype(np.float32)
        self.biases = np.zeros(self.bias_at[-1], np.float32)
        bits = settings.bits * settings.tables
        drawn = [Projections.draw(sizes[layer], bits, settings.density, seed + layer) for layer in range(hidden)]
        entries = max(len(one.which) for one in drawn)
        self.starts = np.zeros((hidden, max(sizes[:-1]) + 1), np.int32)
        self.which = np.zeros((hidden, entries), np.int32)
        self.sign = np.zeros((hidden, entries), np.float32)
        for layer, one in enumerate(drawn):
            self.starts[layer, : len(one.starts)] = one.starts
            self.which[layer, : len(one.which)] = one.which
            self.sign[layer, : len(one.sign)] = one.sign
        self.codes = np.zeros((hidden, settings.tables, widest), np.int32)
        self.members = np.zeros_like(self.codes)
        self.bucket_starts = np.zeros((hidden, settings.tables, (1 << settings.bits) + 1), np.int32)
        self.touched = np.ones((hidden, widest), np.uint8)
        self.counts = np.zeros(len(COUNTS), np.int64)
        self.offsets = np.full(hidden, -3.0)
        self._intervals = 0
        self.hash_again()

    @property
    def hidden(self) -> int:
        """Hidden layers."""
        return len(self.sizes) - 2

    def hash_again(self, threads: int = 1) -> None:
        """Bring the tables up to date: hash the neurons whose weights have changed, and lay out the buckets.

        Threads take a part of every layer's neurons each; the tables are the same for any number of them.
        """
        with ThreadPoolExecutor(threads) as pool:
            self._hash_again(pool, threads)

    def _hash_again(self, pool: ThreadPoolExecutor, threads: int) -> None:
        if self.settings.way != "hash":
            return

        def codes(layer: int, first: int, last: int) -> int:
            inputs, neurons = int(self.sizes[layer]), int(self.sizes[layer + 1])
            done = rehash_columns(
                self.weights, self.weight_at[layer], inputs, neurons, first, last, self.starts[layer],
                self.which[layer], self.sign[layer], self.settings.bits, self.touched[layer], self.codes[layer],
            )  # fmt: skip
            return int(done)

        jobs = []
        for layer in range(self.hidden):
            cuts = np.linspace(0, self.sizes[layer + 1], threads + 1).astype(np.int64)
            jobs += [pool.submit(codes, layer, int(first), int(last)) for first, last in pairwise(cuts)]
        self.counts[REHASH] += sum(job.result() for job in jobs)
        for layer in range(self.hidden):
            self.lay_out(layer)

    def lay_out(self, layer: int) -> None:
        """Fill a layer's buckets by its codes."""
        lay_out(self.codes[layer], self.sizes[layer + 1], self.bucket_starts[layer], self.members[layer])

    def train(
        self,
        inputs: NDArray[np.float32],
        labels: NDArray[np.int64],
        order: NDArray[np.int64],
        rate: float,
        threads: int = 1,
    ) -> float:
        """Train on the samples of `order`, with the weights hashed again after every period; returns the mean loss.

        Parameters
        ----------
        inputs, labels : float32 (n, sizes[0]) and int64 (n,).
        rate : of plain stochastic gradient descent, a step for each sample.
        threads : share each period's samples; with more than one the result depends on their timing.
        """
        return self._run(inputs, labels, order, rate, threads)[0]

    def evaluate(self, inputs: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
        """Percent that the active neurons alone get wrong. Its multiplications are not counted."""
        return 100 * self._run(inputs, labels, np.arange(len(labels)), -1.0, 1)[1]

    def active(self, sample: NDArray[np.float32]) -> list[NDArray[np.int32]]:
        """Neurons of every layer, nonzero inputs first, that pass something on for one sample, float32 (inputs,)."""
        return self._share(sample[None], np.zeros(1, np.int64), np.zeros(1, np.int64), -1.0, 0)[2]

    def _run(
        self, inputs: NDArray[np.float32], labels: NDArray[np.int64], order: NDArray[np.int64], rate: float,
        threads: int,
    ) -> tuple[float, float]:  # fmt: skip
        if not len(order):
            raise InputError("no samples are given; expected at least one")
        period = self.settings.period
        losses = np.zeros(2)
        with ThreadPoolExecutor(threads) as pool:
            for first in range(0, len(order), period):
                part = order[first : first + period]
                self._intervals += 1
                jobs = [
                    pool.submit(self._share, inputs, labels, share, rate, thread)
                    for thread, share in enumerate(np.array_split(part, threads))
                ]
                for job in jobs:
                    counts, results, _ = job.result()
                    losses += results
                    if rate >= 0:
                        self.counts += counts
                if rate >= 0:
                    self._hash_again(pool, threads)
        return float(losses[0] / len(order)), float(losses[1] / len(order))

    def _share(
        self, inputs: NDArray[np.float32], labels: NDArray[np.int64], order: NDArray[np.int64], rate: float, thread: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], list[NDArray[np.int32]]]:
        """What one thread does of a period: its counts, sums of losses and wrong answers, and the last active sets."""
        state = np.random.SeedSequence([self.seed, self._intervals, thread]).generate_state(1, np.uint64) | np.uint64(1)
        counts, results = np.zeros(len(COUNTS), np.int64), np.zeros(2)
        settings = self.settings
        indices = np.zeros((len(self.sizes), int(self.sizes.max())), np.int32)
        used = np.zeros(len(self.sizes), np.int64)
        train_samples(
            inputs, labels, order, self.sizes, self.weights, self.weight_at, self.biases, self.bias_at, self.starts,
            self.which, self.sign, self.bucket_starts, self.members, settings.bits, settings.probes, self.want,
            self.candidates, WAYS.index(settings.way), self.centres, self.offsets, rate, state, self.touched, counts,
            results, indices, used,
        )  # fmt: skip
        return counts, results, [row[:count].copy() for row, count in zip(indices, used, strict=True)]

    def module(self) -> nn.Sequential:
        """Linear and ReLU with the same memory: pruning, sharing and compiling go on from it.

        All neurons are active in it. After a change of its parameters in place call `weights_changed`.
        """
        network = mlp(int(self.sizes[0]), [int(size) for size in self.sizes[1:-1]], int(self.sizes[-1]))
        linear = [layer for layer in network if isinstance(layer, nn.Linear)]
        for layer, one in enumerate(linear):
            weights = self.weights[self.weight_at[layer] : self.weight_at[layer + 1]]
            one.weight.data = torch.from_numpy(weights).view(one.weight.shape[::-1]).t()
            one.bias.data = torch.from_numpy(self.biases[self.bias_at[layer] : self.bias_at[layer + 1]])
        return network

    def weights_changed(self) -> None:
        """Hash every neuron again."""
        self.touched[:] = 1
        self.hash_again()


def _square_of_active(settings: HashSettings, size: int) -> float:
    """Twice the sum of the squares of a layer's active neurons, if its results are drawn from a normal distribution.

    For ReLU alone half of the neurons have half of the squares, which gives He's `size`. Of few active neurons, which
    are the greatest, the squares are those of the distribution's tail; only chance takes them as they come.
    """
    if settings.way == "random":
        return max(1.0, settings.share * size)
    share = max(min(settings.share, 0.5), 0.5 / size)
    normal = NormalDist()
    least = normal.inv_cdf(1 - share)
    return 2 * size * (share + least * normal.pdf(least))
