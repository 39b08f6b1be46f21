"""Lines of activation memory for maps: those of a map are used again once its last reader has run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.lower.program import Program

__all__ = ["Life", "allocate", "program_lives"]


@dataclass(frozen=True)
class Life:
    """When a map lives: from the layer that writes it to the last one that reads it, both included."""

    first: int
    last: int

    def meets(self, other: Life) -> bool:
        """Whether both live at some time."""
        return self.first <= other.last and other.first <= self.last


def program_lives(program: Program) -> list[Life]:
    """The life of each map of a program, in layers of the program.

    A layer may write where the source of the layer before lies: that one has read all of it before the first tile of
    the next is written. What the host writes keeps its lines during the whole run, what it reads from then on.
    """
    end = len(program.layers)
    first, last = [0] * len(program.maps), [0] * len(program.maps)
    for number, layer in enumerate(program.layers):
        first[layer.result] = last[layer.result] = number
        for segment in layer.segments:
            last[segment.source] = number
    for number in (*program.inputs, *program.outputs):
        last[number] = end
    return [Life(*pair) for pair in zip(first, last, strict=True)]


def allocate(sizes: Sequence[int], when: Sequence[Life]) -> tuple[list[int], int]:
    """First line of each map, and the lines that all take.

    First fit, in three ways, of which the one with the fewest lines is taken: by first use, by falling size, and by
    first use from both ends of the lines in turn, which takes no more than the two largest neighbours of a chain.

    Parameters
    ----------
    sizes : lines of each map. when : its life.
    """
    numbers = range(len(sizes))
    by_use = sorted(numbers, key=lambda n: (when[n].first, n))
    by_size = sorted(numbers, key=lambda n: (-sizes[n], n))
    # Less is impossible: the lines of all maps that live at one time.
    least = max((sum(sizes[n] for n in numbers if when[n].first <= t <= when[n].last)
                 for t in {life.first for life in when}), default=0)  # fmt: skip
    tried = [_place(order, sizes, when, None) for order in (by_use, by_size)]
    tried.append(_place(by_use, sizes, when, least))
    return min(tried, key=lambda found: found[1])


def _place(order: Sequence[int], sizes: Sequence[int], when: Sequence[Life], ends: int | None) -> tuple[list[int], int]:
    """First fit; with `ends`, every other map goes to the last place that fits below that line."""
    bases = [0] * len(sizes)
    placed: list[int] = []
    for place, number in enumerate(order):
        size = sizes[number]
        taken = sorted((bases[n], bases[n] + sizes[n]) for n in placed if when[n].meets(when[number]))
        bases[number] = _fit(taken, size)
        if ends is not None and place % 2:
            down = _fit(sorted((ends - end, ends - begin) for begin, end in taken), size)
            bases[number] = ends - down - size if down + size <= ends else bases[number]
        placed.append(number)
    return bases, max((base + size for base, size in zip(bases, sizes, strict=True)), default=0)


def _fit(taken: Sequence[tuple[int, int]], size: int) -> int:
    """The first line at which `size` lines are free; `taken` ascends."""
    line = 0
    for begin, end in taken:
        if line + size <= begin:
            break
        line = max(line, end)
    return line
