"""How a matrix is gone through by the context coder: what its encoder chooses, and what both sides know of it.

A matrix is scanned line by line. Lines are its columns (the inputs of a layer) or, turned, its rows: whichever
gives the smaller file. Lines and rows without a nonzero are flagged and left out. Lags say which lines before are
alike: for an image of 28 × 28 pixels as inputs these are 1, 28, 27, 29, …; they are found by counting, so that
nothing needs to know the shape of images or kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compiler.coding.wire import Reader, Writer
from compiler.errors import CodingError

__all__ = ["MAX_LAGS", "Plan", "best_plan", "read_plan", "write_plan"]

MAX_LAGS = 8
_MAX_LAG = 4095
_SAMPLED_ROWS = 1024
_SAMPLED_BYTES = 1 << 22  # of the lines that are looked at, a bit for each row, 4 bytes at least
_SMALL = 1 << 20  # elements up to which the encoder tries plans
_TINY = 1 << 16  # elements up to which it doubts that lags are alike

# Bits of a block: small ones follow the data closely, large ones cost less time.
_BLOCKS = ((1 << 19, 3), (1 << 22, 6), (1 << 62, 8))


@dataclass(frozen=True)
class Plan:
    """One way to go through a matrix.

    turned : lines are rows. flagged : empty lines and rows are flagged. block : bits at a time, a power of two.
    lags : distances to the lines before that are most alike, the most alike first.
    """

    turned: bool
    flagged: bool
    block: int
    lags: tuple[int, ...] = ()


def best_plan(codes: NDArray[np.uint8], cost: Callable[[Plan], float]) -> Plan:
    """The plan of the least `cost` for a matrix with nonzeros, of those that are worth trying.

    One property is decided after the other, and large matrices try nothing: every trial codes the whole matrix.
    """
    occupied = codes != 0
    block = next(1 << bits for size, bits in _BLOCKS if codes.size <= size)
    rows, columns = np.count_nonzero(occupied.any(axis=1)), np.count_nonzero(occupied.any(axis=0))
    within = int(rows) * int(columns)  # elements that flags leave
    small = codes.size <= _SMALL
    turns = (False, True) if small and min(codes.shape) > 1 else (False,)
    plans = [Plan(turned, within < codes.size, block, _alike(occupied if turned else occupied.T)) for turned in turns]
    if not small:
        return plans[0]
    costs = {plan: cost(plan) for plan in plans}
    best = min(plans, key=lambda plan: costs[plan])
    others = []
    if best.lags and codes.size <= _TINY:  # in larger ones what is found is no accident
        others.append(replace(best, lags=()))
    if best.flagged and 8 * within > 7 * codes.size:
        others.append(replace(best, flagged=False))
    costs.update({plan: cost(plan) for plan in others})
    return min(costs, key=lambda plan: costs[plan])


def _alike(lines: NDArray[np.bool_]) -> tuple[int, ...]:
    """Lags at which lines coincide more than by chance, by how much they do.

    Chance knows how full each row is: or else rows that are full everywhere would make all lines alike.
    """
    count, rows = lines.shape
    if count < 3:
        return ()
    lines = lines[:, :: -(-rows // _SAMPLED_ROWS)]
    width = -(-lines.shape[1] // 8)  # bytes of a line
    lines = lines[: _SAMPLED_BYTES // max(width, 4)]
    count, rows = lines.shape
    packed = np.packbits(lines, axis=1).reshape(-1)
    by_chance = float((lines.mean(axis=0) ** 2).sum())  # coincidences of two lines
    found = []
    for lag in range(1, min(count - 1, _MAX_LAG) + 1):
        pairs = (count - lag) * rows
        both = _coincidences(packed[lag * width :], packed[: -lag * width])
        chance = by_chance * (count - lag)
        # Half of all pairs of lines, or else a few would be judged by chance.
        if 2 * lag <= count and both > chance + 3 * chance**0.5 + 3:
            found.append((both / pairs, -lag))
    return tuple(-lag for _, lag in sorted(found, reverse=True)[:MAX_LAGS])


def _coincidences(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> int:
    """Bits that are set in both, counted by words of 64: by bytes it takes six times as long."""
    whole = len(first) // 8 * 8
    words = first[:whole].view(np.uint64) & second[:whole].view(np.uint64)
    rest = first[whole:] & second[whole:]
    return int(np.bitwise_count(words).sum()) + int(np.bitwise_count(rest).sum())


def write_plan(writer: Writer, plan: Plan) -> None:
    """Append a plan."""
    size = [bits for _, bits in _BLOCKS].index(plan.block.bit_length() - 1)
    writer.byte(plan.turned << 7 | plan.flagged << 6 | len(plan.lags) << 2 | size)
    for lag in plan.lags:
        writer.varint(lag - 1)


def read_plan(reader: Reader, what: str) -> Plan:
    """The plan that `write_plan` appended."""
    head = reader.byte(f"{what}: plan")
    lags = head >> 2 & 15
    if lags > MAX_LAGS or head & 3 >= len(_BLOCKS):
        raise CodingError(f"{what}: no such plan ({head})")
    return Plan(
        turned=bool(head >> 7),
        flagged=bool(head >> 6 & 1),
        block=1 << _BLOCKS[head & 3][1],
        lags=tuple(reader.varint(f"{what}: lag", _MAX_LAG - 1) + 1 for _ in range(lags)),
    )
