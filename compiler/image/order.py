"""Which segments must wait for what is not written yet: a program run through once, line by line."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.image.image import Image
from compiler.image.steps import ElementwiseStep, executions

__all__ = ["Lines", "flags", "reads_of", "writes_of"]


@dataclass(frozen=True)
class Lines:
    """Lines of the frame, none of a map off chip; with ``moves`` they move with the loop."""

    first: int
    count: int
    moves: bool

    def at(self, offset: int) -> tuple[int, int]:
        """First line and the line behind the last one, in a round with this loop offset."""
        first = self.first + offset * self.moves
        return first, first + self.count


def reads_of(image: Image, layer: int) -> list[Lines]:
    """What each segment or operand of a layer reads."""
    operation, groups = image.operations.get(layer), image.params.groups
    if operation is not None:
        return [
            Lines(getattr(operation, name), operation.lines, bool(getattr(operation, f"moves_{name}")))
            for name in "abce" if name == "a" or getattr(operation, f"has_{name}")
        ]  # fmt: skip
    found = []
    for place, step in enumerate(image.steps[layer]):
        if step.ring:
            found.append(Lines(0, 0, False))
        elif step.moves_source or step.refill:
            last = step.source + step.vectors - 1
            found.append(Lines(step.source // groups, last // groups - step.source // groups + 1,
                               bool(step.moves_source)))  # fmt: skip
        else:
            info = image.layers[layer]
            source = image.maps[info.sources[info.parts[place]]]
            found.append(Lines(source.base, source.lines, False))
    return found


def writes_of(image: Image, layer: int) -> Lines:
    """What a layer or an operation writes."""
    operation = image.operations.get(layer)
    if operation is not None:
        return Lines(operation.result, operation.lines, bool(operation.moves_result))
    step = image.steps[layer][0]
    if step.stream_out:
        return Lines(0, 0, False)
    if step.moves_result:
        return Lines(step.destination, step.row_lines, True)
    result = image.maps[image.layers[layer].result]
    return Lines(result.base, result.lines, False)


def flags(image: Image) -> tuple[set[int], set[int]]:
    """Numbers of the descriptors that must be `chained`, and of those that must have a `barrier`.

    Tiles and operations are written in the order of the program, while the scan runs ahead. When a layer begins, what
    comes before the layer in front of the last one is written, with that: the bank of its last tile is free. What the
    layer right in front writes may be read as it is written (`chained`). All else waits until the operations are done.
    """
    chained: set[int] = set()
    barrier: set[int] = set()
    layer_of = {first: number for number, first in enumerate(image.numbers)}
    reads = [reads_of(image, n) for n in range(len(image.layers))]
    writes = [writes_of(image, n) for n in range(len(image.layers))]
    done = 0  # so many of the units are written
    units: list[tuple[int, int]] = []  # lines that were written, in order
    layers: list[int] = []  # numbers of the last two layers among the units
    operated = 0  # the units up to the last operation
    for first, offset in executions(image.program):
        number = layer_of[first]
        if isinstance(image.program[first], ElementwiseStep):
            units.append(writes[number].at(offset))
            operated = len(units)
            continue
        done = max(done, layers[-2] + 1 if len(layers) > 1 else 0)
        for place, each in enumerate(reads[number]):
            if first + place in barrier:
                done = max(done, operated)
            lines = each.at(offset)
            waits = [n for n in range(done, len(units)) if units[n][0] < lines[1] and lines[0] < units[n][1]]
            if waits and waits[0] < operated:
                barrier.add(first + place)
                done = max(done, operated)
            if waits and waits[-1] >= operated:
                chained.add(first + place)
        layers = [*layers[-1:], len(units)]
        units.append(writes[number].at(offset))
    return chained, barrier
