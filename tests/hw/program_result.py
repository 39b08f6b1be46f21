"""What a random program computes, by plain numpy from the design: windows, sums, maxima, outputs."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from hw.layouts import ACT_BITS, Join
from hw.params import LANES, Params
from hw.streams import VECTOR_ADDRESS_BITS
from tests.hw.program_operators import look_up
from tests.hw.program_table import Output
from tests.hw.program_words import Segment

__all__ = ["HIGH", "LOW", "WRAP", "masks_of", "tile_totals", "write_tiles"]

WRAP = 1 << VECTOR_ADDRESS_BITS
LOW, HIGH = -(1 << (ACT_BITS - 1)), (1 << (ACT_BITS - 1)) - 1

Int = NDArray[np.int64]


def _tiles(now: NDArray[np.int16], step: dict[str, int]) -> list[tuple[int, int, int]]:
    """Sample, row and column of each tile."""
    return list(product(range(len(now)), range(step["tiles_y"]), range(step["tiles_x"])))


def _window(now: NDArray[np.int16], step: dict[str, int], ty: int, tx: int) -> tuple[Int, NDArray[np.bool_]]:
    """Activations of all columns of a window, and which of them are of pixels of the map. now : of the sample."""
    groups = len(now)
    acts, inside = [], []
    for i, j in product(range(step["wy"]), range(step["wx"])):
        y = step["y0"] + ty * step["step_y"] + i * step["dy"]
        x = step["x0"] + tx * step["step_x"] + j * step["dx"]
        there = 0 <= y < step["height"] and 0 <= x < step["width"]
        first = step["source"] + ty * step["tile_pitch_y"] + tx * step["tile_pitch_x"]
        first += i * step["window_pitch"] + j * step["position_pitch"]
        for v in range(step["vectors"]):
            line, group = divmod((first + v) % WRAP, groups)
            acts.append(now[group, line] if there else np.zeros(LANES, np.int16))
            inside.append(np.full(LANES, there))
    return np.concatenate(acts).astype(np.int64), np.concatenate(inside)


def tile_totals(
    params: Params, books: Int, now: NDArray[np.int16], segments: list[Segment], outputs: list[Output]
) -> Int:
    """(tiles of all samples, outputs) what is joined for each output, bias included, before the shift.

    Sums wrap. books : (codebooks, codes). now : (batch, groups, lines, 8) activation memory before the layer.
    """
    totals = []
    for b, ty, tx in _tiles(now, segments[0].step):
        sums = np.zeros(len(segments[0].codes), np.int64)
        for segment in segments:
            acts, inside = _window(now[b], segment.logical, ty, tx)
            if segment.step["maximum"]:
                shown = np.where((segment.codes > 0) & inside, acts + 32768, 0)
                sums = np.maximum(sums, shown.max(axis=1, initial=0))
            else:
                sums += books[segment.step["codebook"]][segment.codes] @ acts
        totals.append([_joined(out, sums, params.acc_bits) for out in outputs])
    return np.array(totals, np.int64)


def _joined(out: Output, sums: Int, bits: int) -> int:
    def wrap(value: int) -> int:
        return (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)

    total = 0
    for join, accumulator, bias in out.parts:
        raw = int(sums[accumulator])
        total = {
            Join.START: wrap(raw + bias), Join.ADD: wrap(total + raw), Join.MAX: max(total, wrap(raw + bias)),
        }[join]  # fmt: skip
    return total


def masks_of(now: NDArray[np.int16], step: dict[str, int]) -> NDArray[np.uint8]:
    """(batch, height, width, vectors): bit n of a vector of the segment's map says that lane n is not zero."""
    groups = now.shape[1]
    row, pixel = step["window_pitch"] // step["dy"], step["position_pitch"] // step["dx"]
    origin = (step["source"] - step["y0"] * row - step["x0"] * pixel) % WRAP
    y, x, v = np.ogrid[: step["height"], : step["width"], : step["vectors"]]
    address = origin + y * row + x * pixel + v
    return np.packbits(now[:, address % groups, address // groups] != 0, axis=-1, bitorder="little")[..., 0]


def write_tiles(now: NDArray[np.int16], step: dict[str, int], outputs: list[Output], totals: Int, tables: Int) -> int:
    """Write the result of a layer. Returns how many outputs were saturated."""
    shifts = np.array([out.shift for out in outputs])
    q = totals + np.where(shifts > 0, 1 << np.maximum(shifts - 1, 0), 0) >> shifts
    values = np.clip(np.clip(q, LOW, HIGH), step["low"], step["high"])
    if step["functions"]:
        for k, out in enumerate(outputs):
            if out.function:
                values[:, k] = look_up(tables, step, out.function, values[:, k])
    rows = max(out.flush for out in outputs) // step["row_lines"] + 1
    for n, (b, ty, tx) in enumerate(_tiles(now, step)):
        first = step["destination"] + ty * step["tile_lines"] + tx * step["column_lines"]
        for y in range(rows):
            begin = first + y * step["row_pitch"]
            now[b, :, begin : begin + step["row_lines"]] = 0
        for k, out in enumerate(outputs):
            y, line = divmod(out.flush, step["row_lines"])
            now[b, out.group, first + y * step["row_pitch"] + line, out.lane] = values[n, k]
    return int((q > HIGH).sum() + (q < LOW).sum() * (step["low"] < 0))
