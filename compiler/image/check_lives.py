"""What must hold when an image runs: nothing is read that is not written, or that another map lies on by then."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.image.image import Image, MapInfo
from compiler.image.order import reads_of, writes_of
from compiler.image.steps import executions

__all__ = ["check_lives"]

Int = NDArray[np.int64]

_FREE = -1


def _require(good: bool, message: str) -> None:
    if not good:
        raise ImageError(message)


def check_lives(image: Image) -> None:
    """Run through the program with the number of the map that each line of the frame holds.

    A layer may write where the one before read: that one has sent all its reads before the first tile is written. An
    operation may write the lines that it reads.
    """
    owner = np.full(image.frame, _FREE, np.int64)
    groups = image.params.groups
    lines_of = cache(lambda number: map_lines(image.maps[number], groups))
    for number in image.inputs:
        mine = image.maps[number]
        here = owner[mine.base : mine.base + mine.lines]
        _require(bool((here == _FREE).all()), f"map {mine.name} lies on the lines of another input")
        here[:] = number
    layer_of = {first: number for number, first in enumerate(image.numbers)}
    reads = [reads_of(image, n) for n in range(len(image.layers))]
    writes = [writes_of(image, n) for n in range(len(image.layers))]
    for first, offset in executions(image.program):
        number = layer_of[first]
        layer, operation = image.layers[number], image.operations.get(number)
        begin, end = writes[number].at(offset)
        _require(0 <= begin <= end <= image.frame, f"{layer.name}: it writes lines {begin} to {end}")
        for place, each in enumerate(reads[number]):
            low, high = each.at(offset)
            _require(0 <= low <= high <= image.frame, f"{layer.name}: it reads lines {low} to {high}")
            streamed = operation is None and bool(image.steps[number][place].refill)
            source = owner_of(image, number, place)
            whole = operation is None and not each.moves and not streamed
            lines = lines_of(source) if whole else np.arange(low, high)
            _check_read(image, layer.name, source, owner[lines])
            apart = high <= begin or end <= low
            names = f"{image.maps[source].name} and {image.maps[layer.result].name}"
            _require(
                apart or (operation is not None and low == begin),
                f"{layer.name}: maps {names} lie on the same lines at the same time",
            )
        owner[begin:end] = layer.result
    for number in image.outputs:
        found = owner[lines_of(number)]
        _check_read(image, "an output", number, found)


def owner_of(image: Image, number: int, place: int) -> int:
    """The map that descriptor or operand `place` of a layer reads in the first round."""
    layer = image.layers[number]
    return layer.sources[place if number in image.operations else layer.parts[place]]


def map_lines(info: MapInfo, groups: int) -> Int:
    """The lines of the frame that hold vectors of a map."""
    return np.unique(info.addresses(groups) // groups)


def _check_read(image: Image, who: str, source: int, owners: Int) -> None:
    """What is read must be the map that is meant, or, where a state is carried on, one that is laid out like it."""
    mine = image.maps[source]
    _require(bool((owners != _FREE).all()), f"{who}: it reads {mine.name} before all of it is written")
    for other in np.unique(owners[owners != source]).tolist():
        theirs = image.maps[other]
        alike = (theirs.channels, theirs.vectors) == (mine.channels, mine.vectors) and np.array_equal(
            image.map_orders[other], image.map_orders[source]
        )
        _require(alike, f"{who}: maps {mine.name} and {theirs.name} lie on the same lines at the same time")
