"""Streamed maps of a random program: what goes through the ports, and what is left in the rings, by plain numpy.

A map off chip lies in lines of `now` as if it were in a frame that is large enough; windows and tiles are computed
there. This module gives a layer its rings, and follows what the array must write into them, row after row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.params import LANES
from tests.hw.program_words import Segment

__all__ = ["RINGS", "Rings", "lay_rings"]

RINGS = 512
"""Lines that may be rings."""

Map = Any  # of tests.hw.program_draw


@dataclass
class Rings:
    """What lies off chip, in the rings, and what has gone through the ports.

    lines : int16 (groups, RINGS, 8), the lines of the rings. used : how many of them are.
    stored : of each map off chip int16 (batch, rows, vectors of a row, 8), by its first line in `now`.
    taken, sent : beats, and of those sent whether they are the last of a layer.
    """

    lines: NDArray[np.int16]
    used: int
    stored: dict[int, NDArray[np.int16]]
    taken: list[int]
    sent: list[tuple[int, int]]

    def bring(self, sources: list[Map], step: dict[str, int]) -> None:
        """All rows of a layer come in."""
        groups = len(self.lines)
        parts = [self.stored[source.base][:, : source.height] for source in sources]
        rows = np.concatenate(parts, axis=2).reshape(-1, step["ring_row"], LANES)
        for v, row in enumerate(rows):
            first = step["ring_base"] * groups + v % step["ring_rows"] * step["ring_row"]
            at = np.arange(first, first + step["ring_row"])
            self.lines[at % groups, at // groups] = row
        self.taken += _beats(rows)

    def send(self, now: NDArray[np.int16], result: Map, step: dict[str, int]) -> None:
        """All rows of tiles of a layer are written and sent. now : (batch, groups, lines, 8), the result is there."""
        batch, groups = now.shape[:2]
        rows = []
        for k in range(batch * step["tiles_y"]):
            b, ty = divmod(k, step["tiles_y"])
            first = step["destination"] + k % step["out_rows"] * step["tile_lines"]
            from_ = result.base + ty * step["tile_lines"]
            for tx in range(step["tiles_x"]):
                for y in range(step["tile_lines"] // step["row_pitch"]):
                    at = tx * step["column_lines"] + y * step["row_pitch"]
                    part = slice(from_ + at, from_ + at + step["row_lines"])
                    self.lines[:, first + at : first + at + step["row_lines"]] = now[b, :, part]
            rows.append(self.lines[:, first : first + step["tile_lines"]].transpose(1, 0, 2).copy())
        sent = np.array(rows)
        self.stored[result.base] = sent.reshape(batch, -1, step["row_pitch"] * groups, LANES)
        beats = _beats(sent)
        self.sent += [(beat, int(n == len(beats) - 1)) for n, beat in enumerate(beats)]


def _beats(vectors: NDArray[np.int16]) -> list[int]:
    return [int.from_bytes(each.astype("<i2").tobytes(), "little") for each in vectors.reshape(-1, LANES)]


def lay_rings(rng: np.random.Generator, segments: list[Segment], sources: list[Map], result: Map, groups: int) -> int:
    """Descriptor fields of a layer's rings. sources : of each segment. Returns how many lines the rings take.

    What `whole` keeps of a step is what it says of maps that lie in a frame as a whole.
    """
    layer: dict[str, int] = {"stream_in": 0, "stream_out": 0}
    line = int(rng.integers(3))
    ringed = [(segment, source) for segment, source in zip(segments, sources, strict=True) if source.off_chip]
    if ringed:
        maps = {source.base: source for _, source in ringed}
        places = dict(zip(maps, np.cumsum([0, *(each.row_vectors for each in maps.values())])[:-1], strict=True))
        row = sum(each.row_vectors for each in maps.values())
        top = ringed[0][0].step["y0"]
        rows = 1
        for segment, _ in ringed:
            step = segment.step
            step["reach"] = (step["wy"] - 1) * step["dy"] + 1
            rows = max(rows, step["y0"] - top + step["reach"], abs(step["y0"]), step["dy"], step["step_y"])
        rows += int(rng.choice([0, 0, 1, 2, 5]))
        height = ringed[0][1].height
        layer |= {
            "stream_in": 1, "ring_base": line, "ring_rows": rows, "ring_row": row, "ring_size": rows * row,
            "ring_skip": height % rows, "ring_skip_size": height % rows * row,
        }  # fmt: skip
        for segment, source in ringed:
            step = segment.step
            whole_row = source.row_lines * groups
            inside = (step["source"] - source.base * groups - step["y0"] * whole_row) % (1 << 24)
            segment.whole = {name: step[name] for name in ("source", "window_pitch", "tile_pitch_y")}
            step |= {
                "ring": 1, "chained": 0,
                "source": (line * groups + step["y0"] % rows * row + int(places[source.base]) + inside) % (1 << 24),
                "window_pitch": step["dy"] * row, "tile_pitch_y": step["step_y"] * row,
            }  # fmt: skip
        line += -(-rows * row // groups) + int(rng.integers(2))
    if result.off_chip:
        out_rows = int(rng.choice([1, 1, 2, 3]))
        layer |= {"stream_out": 1, "out_rows": out_rows}
        for segment in segments:
            segment.whole["destination"] = segment.step["destination"]
        layer["destination"] = line
        line += out_rows * segments[0].step["tile_lines"]
    for segment in segments:
        segment.step |= layer
    assert line <= RINGS
    return line
