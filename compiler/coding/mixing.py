"""Probabilities of bits, mixed from several predictors: integers only, so that every machine gets the same ones.

Each predictor is a table of adaptive probabilities, of which a context picks one. What they say is added up on the
logistic scale, with weights that learn which of them to believe. Sources: the context mixing of PAQ (Mahoney, 2005,
"Adaptive weighing of context models for lossless data compression") and the literature on it; written from the
description. Fixed point: docs/decisions/0030-integer-probabilities.md.

The compiled functions of a file call none of another file: numba's cache would not notice that the other one changed.

Bits are coded in blocks. All bits of a block are predicted from what lies before the block, coded by one call of the
entropy coder, and then learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["ONE", "STRETCH", "Mix", "fresh", "learn", "predict", "probability"]

Int = NDArray[np.int64]

ONE = 1 << 16
"""A probability of 1 as the coder sees it: bits have probabilities from 1 to ONE − 1, all exact as floats."""

_FRACTION = 8  # bits behind the point of a logarithm of odds
_LIMIT = 2900  # of it: beyond, the probability is 1 / ONE or less
_DEEP = 22  # bits of a probability in a table
_WEIGHT_ONE = 1 << 16
_COUNTS = 1024


def _squash_table() -> Int:
    """Probability, of ONE, for log odds −_LIMIT … _LIMIT; by decimals, whose exp is exact to the last digit."""
    with localcontext() as context:
        context.prec = 30
        exact = [ONE / (1 + (-Decimal(x) / (1 << _FRACTION)).exp()) for x in range(-_LIMIT, _LIMIT + 1)]
        return np.array([min(max(int(p + Decimal("0.5")), 1), ONE - 1) for p in exact], np.int64)


SQUASH = _squash_table()
# Log odds of each probability 0 … ONE − 1: the least that squashes to it or more.
STRETCH = np.minimum(np.searchsorted(SQUASH, np.arange(ONE)), 2 * _LIMIT).astype(np.int64) - _LIMIT
# How far a probability moves towards a bit after n bits in its context, of 2**16: 1 / (n + 1.6).
RATES = (65536 * 10) // (10 * np.arange(_COUNTS, dtype=np.int64) + 16)
# What an ideal coder spends on a bit of this probability, for reports of sizes only.
SPENT = -np.log2(np.arange(ONE).clip(1) / ONE)


class Mix(NamedTuple):
    """Predictors of one kind of bit, and room for what they say of a block.

    tables, counts : probabilities (of 2**22) and bits seen, all predictors' contexts one behind the other.
    starts : (predictors,), where each predictor's contexts begin.
    weights : (sets, predictors + 1), of 2**16; the last is for a constant.
    contexts, odds : (block, predictors), what each predictor sees, and says.
    chosen, opinions : (block, mixers), set of weights, and the probability that it gives.
    found : (block,), probability of a 1, of ONE. spent : (1,), information coded so far, in bits.
    """

    tables: Int
    counts: Int
    starts: Int
    weights: Int
    contexts: Int
    odds: Int
    chosen: Int
    opinions: Int
    found: Int
    spent: NDArray[np.float64]


def fresh(
    sizes: Sequence[int], sets: int, block: int, expected: int, mixers: int = 1, trust: Sequence[int] | None = None
) -> Mix:
    """Predictors that have seen nothing.

    sizes : contexts of each predictor. sets : of weights. block : most bits at a time. expected : probability, of ONE.
    mixers : sets of weights that judge each bit, whose opinions are averaged. trust : first weights, in percent.
    """
    predictors = len(sizes)
    weights = np.full((sets, predictors + 1), _WEIGHT_ONE // predictors, np.int64)
    weights[:, predictors] = 0
    if trust is not None:
        weights[:, :predictors] = np.array(trust, np.int64) * _WEIGHT_ONE // 100
    return Mix(
        tables=np.full(sum(sizes), expected << (_DEEP - 16), np.int64),
        counts=np.zeros(sum(sizes), np.int64),
        starts=np.cumsum([0, *sizes[:-1]]).astype(np.int64),
        weights=weights,
        contexts=np.zeros((block, predictors), np.int64),
        odds=np.zeros((block, predictors), np.int64),
        chosen=np.zeros((block, mixers), np.int64),
        opinions=np.zeros((block, mixers), np.int64),
        found=np.zeros(block, np.int64),
        spent=np.zeros(1),
    )


def probability(part: int, whole: int) -> int:
    """`part` of `whole`, of ONE, within 1 … ONE − 1."""
    return min(max(part * ONE // max(whole, 1), 1), ONE - 1)


@njit(cache=True)
def predict(mix: Mix, count: int) -> None:
    """Fill in `odds`, `opinions` and `found` of the first `count` bits; `contexts` and `chosen` are known."""
    predictors = len(mix.starts)
    mixers = mix.chosen.shape[1]
    for n in range(count):
        for k in range(predictors):
            mix.odds[n, k] = STRETCH[mix.tables[mix.starts[k] + mix.contexts[n, k]] >> 6]
        together = 0
        for m in range(mixers):
            chosen = mix.chosen[n, m]
            total = mix.weights[chosen, predictors] * 256
            for k in range(predictors):
                total += mix.weights[chosen, k] * mix.odds[n, k]
            place = min(max((total + 32768) >> 16, -2900), 2900)
            together += place
            mix.opinions[n, m] = SQUASH[place + 2900]
        mix.found[n] = SQUASH[together // mixers + 2900]


@njit(cache=True)
def learn(mix: Mix, bits: Int, count: int, speed: int) -> None:
    """Move probabilities and weights towards what the bits of the block were."""
    predictors = len(mix.starts)
    for n in range(count):
        mix.spent[0] += SPENT[mix.found[n] if bits[n] else 65536 - mix.found[n]]
        for m in range(mix.chosen.shape[1]):
            chosen = mix.chosen[n, m]
            error = (bits[n] * 65536 - mix.opinions[n, m]) * speed
            for k in range(predictors):
                mix.weights[chosen, k] += (mix.odds[n, k] * error + (1 << 19)) >> 20
            mix.weights[chosen, predictors] += (256 * error + (1 << 19)) >> 20
        for k in range(predictors):
            at = mix.starts[k] + mix.contexts[n, k]
            seen = mix.counts[at]
            mix.tables[at] += ((bits[n] * 4194303 - mix.tables[at]) * RATES[seen]) >> 16
            if seen < 1023:
                mix.counts[at] = seen + 1
