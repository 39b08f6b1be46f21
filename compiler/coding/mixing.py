"""Probabilities of bits, mixed from several predictors: integers only, so that every machine gets the same ones.

Each predictor is a table of adaptive probabilities, of which a context picks one. What they say is added up on the
logistic scale, with weights that learn which of them to believe. Sources: the context mixing of PAQ (Mahoney, 2005,
"Adaptive weighing of context models for lossless data compression") and the literature on it; written from the
description. Fixed point: docs/decisions/0030-integer-probabilities.md.

Bits are coded in blocks. All bits of a block are predicted from what lies before the block, coded by one call of the
entropy coder, and then learned one after the other, each predicted anew first: a block in which every bit corrected
the same mistake would correct it many times over.

What is compiled stands in `compiler.coding.kernels`; here are the tables that it works on.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LIMIT", "ONE", "RATES", "SPENT", "SQUASH", "STRETCH", "Mix", "fresh", "probability"]

Int = NDArray[np.int64]
Small = NDArray[np.int32]

ONE = 1 << 16
"""A probability of 1 as the coder sees it: bits have probabilities from 1 to ONE − 1, all exact as floats."""

LIMIT = 2900
"""Largest logarithm of odds, with eight bits behind the point: beyond, the probability is 1 / ONE or less."""

_FRACTION = 8
_DEEP = 22  # bits of a probability in a table
_WEIGHT_ONE = 1 << 16
_COUNTS = 1024


def _squash_table() -> Small:
    """Probability, of ONE, for log odds −LIMIT … LIMIT; by decimals, whose exp is exact to the last digit."""
    with localcontext() as context:
        context.prec = 30
        exact = [ONE / (1 + (-Decimal(x) / (1 << _FRACTION)).exp()) for x in range(-LIMIT, LIMIT + 1)]
        return np.array([min(max(int(p + Decimal("0.5")), 1), ONE - 1) for p in exact], np.int32)


SQUASH = _squash_table()
# Log odds of each probability 0 … ONE − 1: the least that squashes to it or more.
STRETCH = (np.minimum(np.searchsorted(SQUASH, np.arange(ONE)), 2 * LIMIT) - LIMIT).astype(np.int16)
# How far a probability moves towards a bit after n bits in its context, of 2**16: 1 / (n + 1.6).
RATES = ((65536 * 10) // (10 * np.arange(_COUNTS, dtype=np.int64) + 16)).astype(np.int32)
# What an ideal coder spends on a bit of this probability, for reports of sizes only.
SPENT = -np.log2(np.arange(ONE).clip(1) / ONE)


class Mix(NamedTuple):
    """Predictors of one kind of bit, and room for what they say of a block.

    tables, counts : probabilities (of 2**22) and bits seen, all predictors' contexts one behind the other.
    starts : (predictors,), where each predictor's contexts begin.
    weights : (sets, predictors + 1), of 2**16; the last is for a constant.
    contexts : (block, predictors), what each predictor sees. odds : (predictors,), what it says of one bit.
    chosen : (block, mixers), set of weights. opinions : (mixers,), the probability that each gives to one bit.
    found : (block,), probability of a 1, of ONE. spent : (1,), information coded so far, in bits.
    """

    tables: Small
    counts: Small
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
        tables=np.full(sum(sizes), expected << (_DEEP - 16), np.int32),
        counts=np.zeros(sum(sizes), np.int32),
        starts=np.cumsum([0, *sizes[:-1]]).astype(np.int64),
        weights=weights,
        contexts=np.zeros((block, predictors), np.int64),
        odds=np.zeros(predictors, np.int64),
        chosen=np.zeros((block, mixers), np.int64),
        opinions=np.zeros(mixers, np.int64),
        found=np.zeros(block, np.int64),
        spent=np.zeros(1),
    )


def probability(part: int, whole: int) -> int:
    """`part` of `whole`, of ONE, within 1 … ONE − 1."""
    return min(max(part * ONE // max(whole, 1), 1), ONE - 1)
