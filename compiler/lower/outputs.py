"""The output table of a layer: which accumulators write-back reads, and what becomes of them.

All groups take their words in lockstep: a vector is written in the same word of each, so a group with fewer words than
another for a line has dummies at its end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.lower.program import ProgramLayer
from compiler.lower.rows import Assignment
from compiler.lower.tile_rows import Rows
from hw.layouts import Join
from hw.params import LANES, Params

__all__ = ["OutputWords", "output_words"]

Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OutputWords:
    """Words of a tile, int64 (groups, words) each; the fields of `hw.layouts.output_word`."""

    bias: Int
    shift: Int
    slot: Int
    pe: Int
    lane: Int
    join: Int
    last: Int
    flush: Int

    @property
    def words(self) -> int:
        """Words of a tile."""
        return int(self.bias.shape[1])


def output_words(layer: ProgramLayer, rows: Rows, assignment: Assignment, lines: int, params: Params) -> OutputWords:
    """The words of a tile that writes `lines` lines."""
    row, pe, slot, part = _reads(rows, assignment)
    # Of each result the split row comes first: ADD adds to what is there, MAX takes the larger.
    whole = np.ones(len(rows.channel), np.int64)
    whole[list(assignment.parts)] = 0
    line, output = rows.vector[row] // params.groups, rows.vector[row] * LANES + rows.lane[row]
    by_word = np.lexsort((part, rows.sub[row], whole[row], output, line, rows.group[row]))
    row, pe, slot, part = row[by_word], pe[by_word], slot[by_word], part[by_word]
    line, output, group = line[by_word], output[by_word], rows.group[row]

    key = group * lines + line
    counts = np.bincount(key, minlength=params.groups * lines).reshape(params.groups, lines)
    most = np.maximum(counts.max(axis=0), 1)
    begins = np.cumsum(most) - most
    at = begins[line] + np.arange(len(row)) - (np.cumsum(counts.reshape(-1)) - counts.reshape(-1))[key]
    starts = np.diff(output, prepend=-1) != 0
    values = {name: np.zeros((params.groups, int(most.sum())), np.int64) for name in _FIELDS}
    channel = rows.channel[row]
    where = (group, at)
    values["bias"][where] = np.where(part == 0, layer.bias[channel], 0)
    values["shift"][where] = layer.shift[channel]
    values["slot"][where], values["pe"][where], values["lane"][where] = slot, pe, rows.lane[row]
    values["join"][where] = np.where(starts, Join.START.value, np.where(part > 0, Join.ADD.value, Join.MAX.value))
    values["last"][where] = np.diff(output, append=-1) != 0
    values["flush"][:, begins + most - 1] = 1
    _dummies(values, where, params, layer.name)
    return OutputWords(**values)


_FIELDS = ("bias", "shift", "slot", "pe", "lane", "join", "last", "flush")


def _reads(rows: Rows, assignment: Assignment) -> tuple[Int, Int, Int, Int]:
    """Row, PE, slot and number of the part of every accumulator that is used."""
    row, pe, slot = np.arange(len(rows.channel)), assignment.pe, assignment.slot
    part = np.zeros(len(row), np.int64)
    more = [(number, of.pe[n], of.slot[n], n) for number, of in assignment.parts.items() for n in range(1, len(of.pe))]
    if not more:
        return row, pe, slot, part
    added = np.array(more, np.int64).T
    return tuple(np.concatenate(pair) for pair in zip((row, pe, slot, part), added, strict=True))  # type: ignore[return-value]


def _dummies(values: dict[str, Int], used: tuple[Int, Int], params: Params, name: str) -> None:
    """Let dummies read, and clear, what was read before them, or what no row has."""
    real = np.zeros(values["bias"].shape, np.bool_)
    real[used] = True
    for group, of_group in enumerate(real):
        if of_group.all():
            continue
        latest = np.maximum.accumulate(np.where(of_group, np.arange(len(of_group)), -1))
        dummies = np.flatnonzero(~of_group)
        for field in ("pe", "slot"):
            values[field][group, dummies] = values[field][group, latest[dummies]]
        early = dummies[latest[dummies] < 0]
        if len(early):
            free = np.zeros(params.group, np.int64)  # in each PE: slots ascend without a gap
            np.maximum.at(free, values["pe"][group][of_group], values["slot"][group][of_group] + 1)
            pe = int(free.argmin())
            if free[pe] == params.rows:
                raise ImageError(
                    f"{name}: a tile takes all {params.rows} accumulators of PEs; one is needed to keep write-back "
                    "groups in step: raise rows"
                )
            values["pe"][group, early], values["slot"][group, early] = pe, free[pe]
