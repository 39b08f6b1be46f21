"""Lines of activation memory for maps: those of a map are used again once its last reader has run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.lower.program import Program, touched

__all__ = ["Blocks", "Life", "allocate", "program_blocks"]


@dataclass(frozen=True)
class Life:
    """When maps live: from the step that writes them to the last one that reads them, both included."""

    first: int
    last: int

    def meets(self, other: Life) -> bool:
        """Whether both live at some time."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Blocks:
    """Maps that lie together in activation memory.

    Attributes
    ----------
    of : for each map its block. offset : lines from the block's first one to the map. sizes : lines of each block.
    lives : of each block, in steps of the program.
    """

    of: tuple[int, ...]
    offset: tuple[int, ...]
    sizes: tuple[int, ...]
    lives: tuple[Life, ...]


def program_blocks(program: Program, lines: Sequence[int], keep_inputs: bool = True) -> Blocks:
    """The blocks of a program; `lines` of each map, 0 for those off chip.

    A layer may write where the source of the layer before lies: that one has read all of it before the first tile of
    the next is written. Operations are written in order with the tiles. What the host writes keeps its lines during the
    whole run, or with `keep_inputs` false up to its last reader; what it reads from then on. What a loop carries from
    round to round, or has from outside, lives as long as the loop.
    """
    number: dict[int, int] = {}  # block of the program → its number here
    of: list[int] = []
    sizes: list[int] = []
    offset = [form.at * program.pitch for form in program.maps]
    for n, form in enumerate(program.maps):
        if form.block < 0 or form.block not in number:
            number[form.block] = len(sizes)
            sizes.append(0)
        of.append(len(sizes) - 1 if form.block < 0 else number[form.block])
        sizes[of[n]] = max(sizes[of[n]], offset[n] + lines[n])
    uses: list[list[tuple[int, bool]]] = [[] for _ in sizes]  # steps, and whether they write
    moving: set[int] = set()
    for place, step in enumerate(program.steps):
        reads, made = touched(step)
        moving |= {of[each.map] for each in (*reads, made) if each.moves}
        for each in reads:
            uses[of[each.map]].append((place, False))
        uses[of[made.map]].append((place, True))
    end = len(program.steps)
    ends = {of[n] for n in (*(program.inputs if keep_inputs else ()), *program.outputs)}
    begins = {of[n] for n in program.inputs}
    lives = []
    for block, found in enumerate(uses):
        first = 0 if block in begins else min(place for place, _ in found)
        last = end if block in ends else max((place for place, _ in found), default=0)
        for loop in program.loops:
            inside = [use for use in found if loop.first <= use[0] <= loop.last]
            carried = bool(inside) and (block in moving or not inside[0][1])
            if inside and (carried or first < loop.first or last > loop.last):
                first, last = min(first, loop.first), max(last, loop.last)
        lives.append(Life(first, last))
    return Blocks(tuple(of), tuple(offset), tuple(sizes), tuple(lives))


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
