"""A matrix of codes by the context coder: flags, positions, values, all through one stream of the range coder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.coding.bits import BitDecoder, BitRecorder
from compiler.coding.grid import Grid
from compiler.coding.mixing import probability
from compiler.coding.plan import Plan
from compiler.coding.positions import code_flags, code_positions
from compiler.coding.ranks import ranked
from compiler.coding.values import code_values
from compiler.errors import CodingError

__all__ = ["Neurons", "code_matrix"]

Int = NDArray[np.int64]


@dataclass
class Neurons:
    """How many nonzeros the neurons had in the matrix before; the next one may begin where they end.

    counts : (rows,) of the matrix before, empty at first.
    """

    counts: Int

    def hints(self, rows: int, columns: int) -> tuple[Int, Int]:
        """For each row and each column of a matrix, 1 … 15 as its neuron was full, 0 if it is not known.

        Columns are the neurons of the matrix before (several columns a neuron behind a convolution); a vector such
        as a bias has the same rows as it.
        """
        row_hints, column_hints = np.zeros(rows, np.int64), np.zeros(columns, np.int64)
        known = len(self.counts)
        if known and columns > 1 and columns % known == 0:
            column_hints = np.repeat(self._scaled(), columns // known)
        elif known and known == rows:
            row_hints = self._scaled()
        return row_hints, column_hints

    def see(self, codes: NDArray[np.uint8]) -> None:
        """Take note of a matrix that is known on both sides."""
        if codes.shape[1] > 1:
            self.counts = np.count_nonzero(codes, axis=1).astype(np.int64)

    def _scaled(self) -> Int:
        """1 for none, then 2 … 15 by the logarithm."""
        return np.array([min(1 + 2 * int(n).bit_length() - (int(n) > 0), 15) for n in self.counts], np.int64)


def code_matrix(
    coder: BitRecorder | BitDecoder,
    shape: tuple[int, int],
    nonzeros: int,
    codebook: NDArray[np.float32] | NDArray[np.int16],
    plan: Plan,
    neurons: Neurons,
    codes: NDArray[np.uint8] | None,
) -> tuple[NDArray[np.uint8], float, float]:
    """The codes, and the bits of positions and of values.

    Both sides run this; the encoder gives `codes` (uint8 of `shape`), the decoder None.

    Raises
    ------
    CodingError
        The stream holds what no encoder writes.
    """
    row_hints, column_hints = neurons.hints(*shape)
    known = None if codes is None else np.ascontiguousarray(codes if plan.turned else codes.T)
    lines, rows = shape if plan.turned else shape[::-1]
    line_hints, cross_hints = (row_hints, column_hints) if plan.turned else (column_hints, row_hints)
    occupied = None if known is None else (known != 0).view(np.uint8)
    lags, none = np.array(plan.lags, np.int64), np.zeros(0, np.int64)
    live_lines, live_rows, bits = np.arange(lines), np.arange(rows), 0.0
    if plan.flagged:
        here = None if occupied is None else occupied.any(axis=1)
        live_lines, spent = code_flags(coder, lines, lags, line_hints, here)
        across = None if occupied is None else occupied.any(axis=0)
        live_rows, more = code_flags(coder, rows, none, cross_hints, across)
        bits = spent + more
    grid = Grid(
        seen=np.zeros((lines, rows), np.uint8),
        totals=np.zeros(lines, np.int64),
        filled=np.zeros(rows, np.int64),
        last=np.full(rows, -1, np.int64),
        lags=lags,
        live=live_rows,
        line_hints=line_hints,
        row_hints=cross_hints,
        expected=probability(nonzeros, max(len(live_lines) * len(live_rows), 1)),
        pattern=np.zeros(rows, np.int64),
        neighbours=np.zeros(rows, np.int64),
        fullness=np.zeros(rows, np.int64),
        pause=np.zeros(rows, np.int64),
        beside=np.zeros(1, np.int64),
    )
    bits += code_positions(coder, grid, live_lines, plan.block, occupied)
    if int(grid.totals.sum()) != nonzeros:
        raise CodingError(f"the coded stream holds {int(grid.totals.sum())} nonzeros; expected {nonzeros}")
    found, value_bits = code_values(coder, grid.seen, lags, ranked(codebook), plan.block, known)
    return np.ascontiguousarray(found if plan.turned else found.T), bits, value_bits
