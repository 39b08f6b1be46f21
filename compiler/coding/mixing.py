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

__all__ = ["INPUTS", "LIMIT", "MIXERS", "ONE", "RATES", "SPENT", "SQUASH", "STRETCH", "Mix", "fresh", "probability"]

Int = NDArray[np.int64]

ONE = 1 << 16
"""A probability of 1 as the coder sees it: bits have probabilities from 1 to ONE − 1, all exact as floats."""

LIMIT = 2900
"""Largest logarithm of odds, with eight bits behind the point: beyond, the probability is 1 / ONE or less."""

INPUTS = 12
"""What is mixed: eleven predictors and a constant; of every kind of bit as many, so that loops have a fixed length."""

MIXERS = 3
"""Sets of weights that judge each bit; their opinions are averaged."""

_FRACTION = 8
_WEIGHT_ONE = 1 << 16
_COUNTS = 1024


def _squash_table() -> NDArray[np.int32]:
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
SPENT = (-np.log2(np.arange(ONE).clip(1) / ONE)).astype(np.float32)


class Mix(NamedTuple):
    """Predictors of one kind of bit, and room for what they say of a block.

    tables : uint32, all predictors' contexts one behind the other: a probability, 22 bits, and below it how many bits
        it has seen, 10 bits.
    starts : (INPUTS − 1,), where each predictor's contexts begin.
    weights : (sets, INPUTS), of 2**16; the last is for a constant.
    contexts : (block, INPUTS − 1 + MIXERS), what each predictor sees, then the sets of weights.
    room : (INPUTS + MIXERS,), what each predictor says of one bit, then each mixer.
    found, chances : (block,), probability of a 1, of ONE and of 1. spent : (1,), information coded so far, in bits.
    """

    tables: NDArray[np.uint32]
    starts: Int
    weights: Int
    contexts: Int
    room: Int
    found: Int
    chances: NDArray[np.float64]
    spent: NDArray[np.float64]


def fresh(
    sizes: Sequence[int],
    sets: int,
    block: int,
    expected: int,
    trust: Sequence[int] | None = None,
    belief: int = 0,
) -> Mix:
    """Predictors that have seen nothing.

    sizes : contexts of each predictor. sets : of weights. block : most bits at a time. expected : probability, of ONE.
    trust : first weights, in percent. belief : how many bits `expected` is worth, beyond the first 1.6.
    """
    predictors = INPUTS - 1
    sizes = [*sizes, *[1] * (predictors - len(sizes))]
    weights = np.full((sets, INPUTS), _WEIGHT_ONE // predictors, np.int64)
    if trust is not None:
        weights[:, : len(trust)] = np.array(trust, np.int64) * _WEIGHT_ONE // 100
        weights[:, len(trust) :] = 0
    weights[:, predictors] = 0
    room = np.zeros(INPUTS + MIXERS, np.int64)
    room[predictors] = 1 << _FRACTION
    return Mix(
        tables=np.full(sum(sizes), expected << 16 | belief, np.uint32),
        starts=np.cumsum([0, *sizes[:-1]]).astype(np.int64),
        weights=weights,
        contexts=np.zeros((block, predictors + MIXERS), np.int64),
        room=room,
        found=np.zeros(block, np.int64),
        chances=np.zeros(block),
        spent=np.zeros(1),
    )


def probability(part: int, whole: int) -> int:
    """`part` of `whole`, of ONE, within 1 … ONE − 1."""
    return min(max(part * ONE // max(whole, 1), 1), ONE - 1)
