"""Compare two runs of one network or image: every value that was computed, and every layer record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError
from sim.network import NetworkResult
from sim.run import Result

__all__ = ["MISSING", "Comparison", "Difference", "RecordDifference", "compare", "compare_networks"]

AXES = {"C": "channel", "H": "row", "W": "column", "T": "step"}
"""Names of the axes of a value, by the letters of its layout."""

MISSING = -1
"""Stands for a field of a record that one engine does not have."""


@dataclass(frozen=True)
class Difference:
    """The first value that differs: lowest layer, then sample, then neuron. `bit` is the lowest that differs.

    neuron : in row-major order. place : for values of several axes, the name of each and the place along it.
    """

    layer: str
    sample: int
    neuron: int
    bit: int
    values: tuple[int, int]
    place: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class RecordDifference:
    """The first time or counter that differs: lowest run, then layer, then field.

    run : of the array; it takes as many samples as fit on chip.
    """

    run: int
    layer: str
    field: str
    values: tuple[int, int]


@dataclass(frozen=True)
class Comparison:
    """What was compared, how much of it differs, and where first.

    values : outputs compared, over all layers and samples. records : times and counters compared (0 if one
    of the engines has none); their names are the fields of a layer record.
    """

    engines: tuple[str, str]
    values: int
    values_different: int
    first: Difference | None
    records: int
    records_different: int
    first_record: RecordDifference | None

    @property
    def equal(self) -> bool:
        """No bit and no cycle differs."""
        return self.first is None and self.first_record is None

    def asdict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "equal": self.equal}

    def explain(self) -> list[str]:
        """A line for people about each kind of difference; empty if all is equal."""
        lines = []
        if (first := self.first) is not None:
            left, right = (f"{value} (0x{value & 0xFFFF:04x})" for value in first.values)
            lines.append(
                f"values: {self.values_different:,} of {self.values:,} differ; the first in layer {first.layer}, "
                f"sample {first.sample}, {_place(first)}, bit {first.bit}: "
                f"{self.engines[0]} {left}, {self.engines[1]} {right}"
            )
        if (record := self.first_record) is not None:
            lines.append(
                f"cycles: {self.records_different:,} of {self.records:,} times and counters differ; the first in "
                f"run {record.run}, layer {record.layer}, {record.field}: "
                f"{self.engines[0]} {record.values[0]}, {self.engines[1]} {record.values[1]}"
            )
        return lines


def _place(difference: Difference) -> str:
    if not difference.place:
        return f"neuron {difference.neuron}"
    return ", ".join(f"{axis} {number}" for axis, number in difference.place)


def compare(a: Result, b: Result) -> Comparison:
    """Compare two results of the same image and batch: of a board, what it has.

    Raises
    ------
    InputError
        They are not: one has maps that the other lacks, or of another shape.
    """
    names = [layer.name for layer in a.layers]
    values = _compare_values(_pairs(a, b), {})
    return Comparison((a.engine, b.engine), *values, *_compare_records([(names, a, b)]))


def compare_networks(a: NetworkResult, b: NetworkResult) -> Comparison:
    """Compare two results of the same network and batch: every value of the graph, in order of computation.

    A board has those that leave an image of the array, and these are compared.

    Raises
    ------
    InputError
        They are not: one has values that the other lacks, or of another shape.
    """
    pairs = _pairs(a, b)
    layouts = {name: kind.layout for name, kind in a.types.items()}
    runs = [([layer.name for layer in one.layers], one, other) for one, other in zip(a.runs, b.runs, strict=True)]
    return Comparison((a.engine, b.engine), *_compare_values(pairs, layouts), *_compare_records(runs))


def _pairs(a: Result | NetworkResult, b: Result | NetworkResult) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """The values of both, by name; a result that is not whole may lack some."""
    kept = [
        {name: raw for name, raw in one.values.items() if other.whole or name in other.values}
        for one, other in ((a, b), (b, a))
    ]
    shapes = [{name: raw.shape for name, raw in values.items()} for values in kept]
    if shapes[0] != shapes[1]:
        names = ", ".join(sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()}))
        raise InputError(f"results of different networks or batches: {names} are not in both, or of other shapes")
    return {name: (raw, kept[1][name]) for name, raw in kept[0].items()}


def _compare_values(
    pairs: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], layouts: Mapping[str, str]
) -> tuple[int, int, Difference | None]:
    """Values compared, how many differ, and the first; `layouts` names the axes of values with several."""
    different, first = 0, None
    for name, (left, right) in pairs.items():
        where = np.argwhere(left != right)
        different += len(where)
        if len(where) and first is None:
            sample, *place = (int(n) for n in where[0])
            values = int(left[tuple(where[0])]), int(right[tuple(where[0])])
            changed = values[0] ^ values[1]
            neuron = int(np.ravel_multi_index(place, left.shape[1:])) if place else 0
            axes = [AXES.get(letter, "place") for letter in layouts.get(name, "")]
            named = tuple(zip(axes, place, strict=True)) if len(place) > 1 and len(axes) == len(place) else ()
            first = Difference(name, sample, neuron, (changed & -changed).bit_length() - 1, values, named)
    return sum(left.size for left, _ in pairs.values()), different, first


def _compare_records(runs: Sequence[tuple[list[str], Result, Result]]) -> tuple[int, int, RecordDifference | None]:
    """The same for layer records; `runs`: the layers of each image, and what both engines say of it."""
    count, different, first = 0, 0, None
    for names, a, b in runs:
        if not a.records or not b.records:
            continue
        for number, (left, right) in enumerate(zip(a.records, b.records, strict=True)):
            for name, one, other in zip(names, left, right, strict=True):
                for field in [*one, *(field for field in other if field not in one)]:
                    count += 1
                    if one.get(field) != other.get(field):
                        different += 1
                        first = first or RecordDifference(
                            number, name, field, (one.get(field, MISSING), other.get(field, MISSING))
                        )
    return count, different, first
