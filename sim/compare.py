"""Compare two runs of one image: every output of every layer, and every layer record."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.run import Result

__all__ = ["Comparison", "Difference", "RecordDifference", "compare"]


@dataclass(frozen=True)
class Difference:
    """The first value that differs: lowest layer, then sample, then neuron. `bit` is the lowest that differs."""

    layer: str
    sample: int
    neuron: int
    bit: int
    values: tuple[int, int]


@dataclass(frozen=True)
class RecordDifference:
    """The first time or counter that differs: lowest sample, then layer, then field."""

    sample: int
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
                f"sample {first.sample}, neuron {first.neuron}, bit {first.bit}: "
                f"{self.engines[0]} {left}, {self.engines[1]} {right}"
            )
        if (record := self.first_record) is not None:
            lines.append(
                f"cycles: {self.records_different:,} of {self.records:,} times and counters differ; the first in "
                f"sample {record.sample}, layer {record.layer}, {record.field}: "
                f"{self.engines[0]} {record.values[0]}, {self.engines[1]} {record.values[1]}"
            )
        return lines


def compare(a: Result, b: Result) -> Comparison:
    """Compare two results of the same image and batch."""
    names = [layer.name for layer in a.layers]
    different, first = 0, None
    for name, left, right in zip(names, a.layer_raw, b.layer_raw, strict=True):
        where: NDArray[np.int64] = np.argwhere(left != right)
        different += len(where)
        if len(where) and first is None:
            sample, neuron = (int(n) for n in where[0])
            values = int(left[sample, neuron]), int(right[sample, neuron])
            changed = values[0] ^ values[1]
            first = Difference(name, sample, neuron, (changed & -changed).bit_length() - 1, values)
    records, records_different, first_record = _compare_records(names, a, b)
    return Comparison(
        (a.engine, b.engine),
        sum(raw.size for raw in a.layer_raw),
        different,
        first,
        records,
        records_different,
        first_record,
    )


def _compare_records(names: list[str], a: Result, b: Result) -> tuple[int, int, RecordDifference | None]:
    if not a.records or not b.records:
        return 0, 0, None
    count, different, first = 0, 0, None
    for sample, (left, right) in enumerate(zip(a.records, b.records, strict=True)):
        for name, one, other in zip(names, left, right, strict=True):
            for field in one.keys() | other.keys():
                count += 1
                if one.get(field) != other.get(field):
                    different += 1
            if first is None:
                wrong = [field for field in one if one[field] != other.get(field)]
                if wrong:
                    first = RecordDifference(sample, name, wrong[0], (one[wrong[0]], other.get(wrong[0], -1)))
    return count, different, first
