"""The host beside a running array: it holds the maps off chip, sends their rows, and takes what the array sends.

A map is held as `compiler.image.rings.off_chip` describes it, as the beats of its samples one behind the other. A row
that comes out of the array can be sent again in the next cycle.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.image.image import Image
from compiler.image.rings import off_chip
from hw.layouts import ACT_BITS
from hw.params import LANES
from sim.whole import whole_maps

__all__ = ["BEAT", "Outside", "Transfer", "given_maps", "map_words", "transfers"]

BEAT = LANES * ACT_BITS // 8
"""Bytes of a beat: an activation vector."""

Beats = NDArray[np.uint8]
Int = NDArray[np.int64]


@dataclass(frozen=True)
class Transfer:
    """What streams while a layer runs, in plain numbers.

    layer : its number in the image. height : rows of each map that is read. reads : (map, beats of a row) in the order
    of a row of the ring. writes : the map that comes out, or -1. beats : of a sample of it.
    """

    layer: int
    height: int
    reads: tuple[tuple[int, int], ...]
    writes: int
    beats: int

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Transfer:
        """The same from `asdict`, or from its JSON."""
        reads = tuple((int(number), int(row)) for number, row in plain["reads"])
        return cls(plain["layer"], plain["height"], reads, plain["writes"], plain["beats"])

    def asdict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @property
    def row(self) -> int:
        """Beats of a row of the ring."""
        return sum(row for _, row in self.reads)


def transfers(image: Image) -> list[Transfer]:
    """What streams, in the order of the program."""
    found = []
    for each in off_chip(image):
        reads = tuple((number, image.maps[number].row) for number in each.reads)
        height = image.maps[each.reads[0]].height if each.reads else 0
        beats = image.maps[each.writes].lines * image.params.groups if each.writes >= 0 else 0
        found.append(Transfer(each.layer, height, reads, each.writes, beats))
    return found


class Outside:
    """The maps off chip in a run of `count` samples.

    Parameters
    ----------
    given : uint8 (count, beats, 16) of each map that the host gives.
    """

    def __init__(self, plan: Sequence[Transfer], count: int, given: Mapping[int, Beats]) -> None:
        self._count = count
        self.maps = {number: np.ascontiguousarray(beats).reshape(-1, BEAT) for number, beats in given.items()}
        self._there = {number: len(beats) for number, beats in self.maps.items()}  # beats of each map so far
        self._size = {number: len(beats) // count for number, beats in self.maps.items()}
        for each in plan:
            if each.writes >= 0:
                self.maps[each.writes] = np.zeros((count * each.beats, BEAT), np.uint8)
                self._there[each.writes], self._size[each.writes] = 0, each.beats
        self._sends = [each for each in plan if each.reads]
        self._takes = [each.writes for each in plan if each.writes >= 0]
        self._order: list[tuple[int, int]] = []  # map and beat of what the present transfer sends
        self._at = 0

    def offer(self) -> bytes | None:
        """The next beat for the array; None if there is none, or if it has not come out of the array yet."""
        return next(self._ahead(), None)

    def offers(self, most: int) -> Beats:
        """The next beats for the array (beats, 16): at most so many, up to the first that has not come out of it."""
        return np.frombuffer(b"".join(itertools.islice(self._ahead(), most)), np.uint8).reshape(-1, BEAT)

    def _ahead(self) -> Iterator[bytes]:
        """Beats of the present transfer that are there."""
        if self._at == len(self._order) and self._sends:
            self._order, self._at = self._beats(self._sends.pop(0)), 0
        for n in range(self._at, len(self._order)):
            number, beat = self._order[n]
            if beat >= self._there[number]:
                return
            yield self.maps[number][beat].tobytes()

    def sent(self, count: int = 1) -> None:
        """The array has taken so many of what was offered."""
        self._at += count

    def take(self, beat: bytes) -> None:
        """A beat of the array. Raises `ValueError` if it sends more than its layers make."""
        while self._takes and self._there[self._takes[0]] == len(self.maps[self._takes[0]]):
            self._takes.pop(0)
        if not self._takes:
            raise ValueError("the array sends more activation vectors than its layers make")
        number = self._takes[0]
        self.maps[number][self._there[number]] = np.frombuffer(beat, np.uint8)
        self._there[number] += 1

    @property
    def left(self) -> tuple[int, int]:
        """Beats that were not sent yet, and beats that did not come."""
        sends = len(self._order) - self._at + sum(each.row * each.height * self._count for each in self._sends)
        return sends, sum(len(self.maps[number]) - self._there[number] for number in set(self._takes))

    def _beats(self, each: Transfer) -> list[tuple[int, int]]:
        found = []
        for sample in range(self._count):
            for row in range(each.height):
                for number, size in each.reads:
                    first = sample * self._size[number] + row * size
                    found += [(number, beat) for beat in range(first, first + size)]
        return found


def given_maps(image: Image, memory: NDArray[np.int16]) -> dict[int, Beats]:
    """The inputs off chip, uint8 (count, beats, 16) each, of samples as `sim.program.frames` has them."""
    found = {}
    for number in image.inputs:
        each = whole_maps(image)[number]
        if image.maps[number].off_chip:
            lines = np.ascontiguousarray(memory[:, each.base : each.base + each.lines], "<i2")
            found[number] = lines.view(np.uint8).reshape(len(lines), -1, BEAT)
    return found


def map_words(image: Image, number: int, beats: Beats, count: int) -> NDArray[np.int16]:
    """What came out of a map as int16 (count, lines, groups, 8)."""
    words = np.ascontiguousarray(beats).view("<i2").astype(np.int16)
    return words.reshape(count, image.maps[number].lines, image.params.groups, LANES)
