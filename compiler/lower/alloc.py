"""Lines of activation memory for maps: those of a map are used again once its last reader has run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.lower.program import Program

__all__ = ["Life", "allocate", "lives", "program_lives"]


@dataclass(frozen=True)
class Life:
    """When a map lives: from the layer that writes it to the last one that reads it, both included."""

    first: int
    last: int

    def meets(self, other: Life) -> bool:
        """Whether both live at some time."""
        return self.first <= other.last and other.first <= self.last


def lives(writers: Sequence[int | None], readers: Sequence[Sequence[int]], kept: set[int], layers: int) -> list[Life]:
    """The life of each map.

    A layer may write where the source of the layer before lies: that one has read all of it before the first tile of
    the next is written. Maps of the host live during the whole run.

    Parameters
    ----------
    writers : the first layer that writes each map, None for inputs. readers : the layers that read it.
    kept : maps that the host writes or reads.
    layers : how many there are.
    """
    found = []
    for number, (writer, read) in enumerate(zip(writers, readers, strict=True)):
        begin = 0 if writer is None or number in kept else writer
        # What is written is whole only when the next layer begins.
        end = layers if number in kept else max([begin, *read])
        found.append(Life(0 if number in kept else begin, end))
    return found


def program_lives(program: Program) -> list[Life]:
    """The life of each map of a program, in layers of the program."""
    writers: list[int | None] = [None] * len(program.maps)
    readers: list[list[int]] = [[] for _ in program.maps]
    for number, layer in enumerate(program.layers):
        writers[layer.result] = number
        for segment in layer.segments:
            readers[segment.source].append(number)
    return lives(writers, readers, {*program.inputs, *program.outputs}, len(program.layers))


def allocate(sizes: Sequence[int], when: Sequence[Life]) -> tuple[list[int], int]:
    """First line of each map, and the lines that all take: the first place that fits, in order of first use.

    Parameters
    ----------
    sizes : lines of each map. when : its life.
    """
    bases = [0] * len(sizes)
    placed: list[int] = []
    for number in sorted(range(len(sizes)), key=lambda n: (when[n].first, n)):
        taken = sorted((bases[n], bases[n] + sizes[n]) for n in placed if when[n].meets(when[number]))
        line = 0
        for begin, end in taken:
            if line + sizes[number] <= begin:
                break
            line = max(line, end)
        bases[number] = line
        placed.append(number)
    return bases, max((base + size for base, size in zip(bases, sizes, strict=True)), default=0)
