"""The output table of a random program: which accumulators become which outputs of a tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw.layouts import Join, output_word
from hw.params import Params
from tests.hw.program_words import packed

__all__ = ["Output", "table"]


@dataclass
class Output:
    """One output of a tile: its group, flush and lane, and what is joined for it (join, accumulator, bias)."""

    group: int
    flush: int
    lane: int
    parts: list[tuple[Join, int, int]]
    shift: int = 0
    function: int = 0


def table(
    rng: np.random.Generator, params: Params, outputs: list[Output], owners: list[tuple[int, int]], flushes: int
) -> list[list[int]]:
    """The words of each group: all of the same number, flushes at the same places."""
    words: list[list[int]] = []
    numbers = [
        max(1, *(sum(len(out.parts) for out in outputs if (out.group, out.flush) == (g, flush))
                 for g in range(params.groups)))
        + (int(rng.integers(1, 3)) if rng.random() < 0.1 else 0)
        for flush in range(flushes)
    ]  # fmt: skip
    for group in range(params.groups):
        pes = range(group * params.group, (group + 1) * params.group)
        taken = set(owners)
        spare = [(pe, slot) for pe in pes for slot in range(params.rows) if (pe, slot) not in taken]
        words.append([])
        for flush, number in enumerate(numbers):
            own = [out for out in outputs if (out.group, out.flush) == (group, flush)]
            rng.shuffle(own)
            dummies = number - sum(len(out.parts) for out in own)
            line: list[dict[str, int]] = []
            for out in [*own, None]:
                extra = dummies if out is None else int(rng.integers(dummies + 1)) if spare else 0
                for _ in range(extra):
                    pe, slot = spare[rng.integers(len(spare))]
                    line.append({"pe": pe, "slot": slot, "join": Join.START.value, "bias": int(rng.integers(-9, 10))})
                dummies -= extra
                for join, accumulator, bias in out.parts if out else []:
                    pe, slot = owners[accumulator]
                    line.append({"pe": pe, "slot": slot, "join": join.value})
                    line[-1]["bias"] = 0 if join is Join.ADD else bias
                    spare.append((pe, slot))  # read and cleared, so a dummy may read it again
                if out:
                    line[-1] |= {"lane": out.lane, "shift": out.shift, "function": out.function, "last": 1}
            line[-1]["flush"] = 1
            for word in line:
                words[group].append(packed(output_word(params), **{**word, "pe": word["pe"] % params.group}))
    return words
