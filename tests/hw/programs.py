"""Random programs at the level of the hardware, and what an array must make of them.

`random_program(seed)` draws an array and a chain of layers for it: the words of every memory, the beats of the refill
stream, and by plain numpy the contents of the activation memory after the run and the saturated outputs of each layer.
It shares nothing with the compiler: weights are arbitrary matrices from the columns of a window to the accumulators of
a tile, so convolutions, pooling and fully connected layers are special cases of what it draws.

How to use it
-------------
``program.memories[Memory.X][unit]`` are the words of a memory from address 0 on; load them, set the batch to
``program.batch``, offer ``program.beats`` at the refill stream (in order, during the run), start at descriptor 0. After
the run the activation memory of bank g must hold ``program.final[g]`` in every line: results, overhang of tiles, and
everything that no layer may touch. Record ``program.first[n]`` is that of layer n; ``program.saturated[n]`` is its
counter. ``program.layers[n][k]`` is a segment: its descriptor fields, and its entries as the cycle model wants them.

Sizes are small on purpose (a few hundred to a few thousand cycles). The same seed gives the same program. Arguments of
`random_program` fix what a test wants fixed: fields of `Params`, the batch, `kind` of all layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.layouts import Join, Memory, Op, descriptor
from hw.params import LANES, Params
from tests.hw.program_result import HIGH, LOW, WRAP, tile_totals, write_tiles
from tests.hw.program_table import Output, table
from tests.hw.program_words import Segment, encode, lay_out, packed

__all__ = ["KINDS", "Program", "random_program"]

KINDS = ("window", "pool", "full", "stream")
"""Kinds of layers: sums over a window, maxima over a window, fully connected, fully connected with streamed weights."""


@dataclass
class Map:
    """A value in activation memory; `lines` from `base` on are its own, overhang included."""

    base: int
    height: int
    width: int
    vectors: int
    pitch: int
    row_lines: int
    lines: int
    layer: int  # the layer that writes it, or -1


@dataclass
class Program:
    """A program, its memories, and what must come of it; see the module's text."""

    seed: int
    params: Params
    batch: int
    layers: list[list[Segment]]
    first: list[int]
    memories: dict[Memory, list[list[int]]]
    beats: list[int]
    final: NDArray[np.int16]  # (groups, act_lines, 8)
    saturated: list[int]

    @property
    def initial(self) -> NDArray[np.int16]:
        """(groups, act_lines, 8) activation memory before the run."""
        raw = b"".join(
            word.to_bytes(2 * LANES, "little") for bank in self.memories[Memory.ACTIVATIONS] for word in bank
        )
        return np.frombuffer(raw, "<i2").reshape(self.final.shape)

    def masks(self, segment: Segment) -> NDArray[np.uint8]:
        """(batch, height, width, vectors): bit n of a vector of the segment's map says that lane n is not zero."""
        step, groups = segment.step, self.params.groups
        row, pixel = step["window_pitch"] // step["dy"], step["position_pitch"] // step["dx"]
        origin = (step["source"] - step["y0"] * row - step["x0"] * pixel) % WRAP
        b, y, x, v = np.ogrid[: self.batch, : step["height"], : step["width"], : step["vectors"]]
        address = origin + b * step["frame"] * groups + y * row + x * pixel + v
        lanes = self.final[address % groups, address // groups] != 0
        return np.packbits(lanes, axis=-1, bitorder="little")[..., 0]


class _Draw:
    """The state of one drawing."""

    def __init__(self, seed: int, kind: str | None, batch: int | None, changes: dict[str, Any]) -> None:
        self.rng = rng = np.random.default_rng([seed, 77])
        self.kind = kind
        refill = bool(rng.integers(2)) if kind != "stream" else True
        self.params = Params(
            pes=1 << int(rng.integers(5)), index_bits=self.pick(4, 8), code_bits=self.pick(2, 5),
            rows=self.pick(8, 64), queue_depth=self.pick(6, 16), acc_bits=self.pick(40, 48), codebooks=self.pick(1, 5),
            refill=refill, weight_words=2, pointer_blocks=2, act_lines=2, output_words=2, descriptors=2,
        ).replace(**changes)  # fmt: skip
        self.batch = self.pick(1, 3) if batch is None else batch
        self.maps: list[Map] = []
        self.frame = 0
        scale = 1 << rng.integers(3, 16, (self.params.codebooks, 1))
        self.books = rng.integers(-scale, scale, (self.params.codebooks, 1 << self.params.code_bits))
        self.books[:, 0] = 0
        # Lines of each sample, with rubbish where nothing is written.
        self.now = rng.integers(LOW, HIGH + 1, (self.batch, self.params.groups, 4096, LANES)).astype(np.int16)
        self.layers: list[list[Segment]] = []
        self.tables: list[list[int]] = [[] for _ in range(self.params.groups)]
        self.saturated: list[int] = []
        for _ in range(self.pick(1, 2)):
            self.draw_input()
        self.before = self.now.copy()

    def pick(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, of: float) -> bool:
        return bool(self.rng.random() < of)

    def draw_input(self) -> None:
        """A map that the host writes, with as many zeros as chance gives."""
        groups, rng = self.params.groups, self.rng
        shape = self.pick(1, 7), self.pick(1, 7), self.pick(1, 3)
        if self.chance(0.2):
            shape = 1, 1, self.pick(1, 12)
        each = self.place(*shape, 1, 1, -1)
        limit = 1 << self.pick(1, 15)
        values = rng.integers(-limit, limit, (self.batch, groups, each.lines, LANES))
        values *= rng.random(values.shape) < rng.choice([0.05, 0.3, 0.7, 1.0])
        values *= rng.random((*values.shape[:3], 1)) < rng.choice([0.3, 1.0])
        self.now[:, :, each.base : each.base + each.lines] = values

    def place(self, height: int, width: int, vectors: int, fy: int, fx: int, layer: int) -> Map:
        """A map for a result in tiles of fy x fx pixels, behind all others in the frame."""
        groups = self.params.groups
        pitch = vectors + (self.pick(0, 2) if self.chance(0.3) else 0)
        while fx * pitch % groups:
            pitch += 1
        tiles_y, tiles_x = -(-height // fy), -(-width // fx)
        row_lines = tiles_x * (fx * pitch // groups) + (self.pick(0, 2) if self.chance(0.3) else 0)
        base = self.frame + (self.pick(1, 2) if self.chance(0.3) else 0)
        lines = tiles_y * fy * row_lines
        self.frame = base + lines
        self.maps.append(Map(base, height, width, vectors, pitch, row_lines, lines, layer))
        return self.maps[-1]

    def draw_layer(self) -> None:
        """One more layer: its tiles and map, its accumulators and segments; what it computes decides about shifts."""
        params, n = self.params, len(self.layers)
        kind = self.kind or KINDS[int(self.rng.choice(4, p=[0.5, 0.2, 0.15, 0.15]))]
        if kind == "stream" and not params.refill:
            kind = "full"
        small = kind in ("full", "stream")
        # A maximum has no padding entries, so an index must reach all of its accumulators.
        slots = min(params.rows, 1 << params.index_bits) if kind == "pool" else params.rows
        most = params.group * slots
        fy, fx = (1, 1) if small else (self.pick(1, 3), self.pick(1, 3))
        tiles_y, tiles_x = (1, 1) if small or self.chance(0.2) else (self.pick(1, 3), self.pick(1, 4))
        while fy * fx > most:
            fy, fx = max(1, fy - 1), max(1, fx - 1)
        height, width = tiles_y * fy - self.pick(0, fy - 1), tiles_x * fx - self.pick(0, fx - 1)
        channels = self.pick(1, max(1, min(40 if small else 17, most * params.groups // (2 * fy * fx))))
        while self.busiest(fy, fx, channels) > most:
            channels -= 1
        sources = self.draw_sources(kind)
        result = self.place(height, width, -(-channels // LANES), fy, fx, n)
        row_lines = fx * result.pitch // params.groups
        outputs, owners = self.draw_outputs(kind, fy, fx, channels, result.pitch, slots)
        layer = {
            "tiles_y": tiles_y, "tiles_x": tiles_x, "destination": result.base, "row_lines": row_lines,
            "row_pitch": result.row_lines, "tile_lines": fy * result.row_lines, "column_lines": row_lines,
            "maximum": int(kind == "pool"), "low": 0 if self.chance(0.5) else self.pick(LOW, -1),
            "high": HIGH if self.chance(0.6) else self.pick(1, HIGH),
        }  # fmt: skip
        if self.chance(0.3):
            layer |= {"low": LOW, "high": HIGH}
        segments = [self.draw_segment(n, kind, source, layer, len(owners)) for source in sources]
        for segment in segments:
            encode(self.rng, params, segment, owners)
        self.saturated.append(self.compute(segments, outputs, result))
        words = table(self.rng, params, outputs, owners, fy * row_lines)
        for k, segment in enumerate(segments):
            segment.step |= {
                "outputs": len(self.tables[0]), "words": len(words[0]), "first": int(k == 0),
                "last": int(k == len(segments) - 1),
            }  # fmt: skip
        for own, so_far in zip(words, self.tables, strict=True):
            so_far += own
        self.layers.append(segments)

    def compute(self, segments: list[Segment], outputs: list[Output], result: Map) -> int:
        """Write the result of a layer; the outputs get their shifts on the way. Returns how many were saturated."""
        totals = tile_totals(self.params, self.books, self.now, segments, outputs)
        shift = max(0, int(np.abs(totals).max()).bit_length() - self.pick(12, 17))
        for out in outputs:
            out.shift = min(31, max(0, shift + self.pick(-1, 1)))
        return write_tiles(self.now, segments[0].step, result.base, outputs, totals)

    def busiest(self, fy: int, fx: int, channels: int) -> int:
        """Outputs of the fullest group at the narrowest pitch that is possible."""
        groups = self.params.groups
        pitch = -(-channels // LANES)
        most = 0
        for wide in range(pitch, pitch + 3 + groups):  # whatever `place` draws
            number = np.zeros(groups, int)
            for q in range(fx * wide):
                number[q % groups] += max(0, min(LANES, channels - q % wide * LANES))
            most = max(most, int(number.max()) * fy)
        return most

    def draw_sources(self, kind: str) -> list[Map]:
        """The maps that the segments of a layer read: often the youngest."""
        number = 1 if kind == "pool" else self.pick(1, 4) if kind == "stream" else self.pick(1, 3)
        weights = np.array([4.0 if n == len(self.maps) - 1 else 1.0 for n in range(len(self.maps))])
        picks = self.rng.choice(len(self.maps), number, p=weights / weights.sum())
        return [self.maps[n] for n in picks]

    # Accumulators and the output table.

    def draw_outputs(
        self, kind: str, fy: int, fx: int, channels: int, pitch: int, slots: int
    ) -> tuple[list[Output], list[tuple[int, int]]]:
        """The outputs of a tile, and PE and slot of each of its accumulators."""
        params = self.params
        free = [[(g * params.group + pe, slot) for pe in range(params.group) for slot in range(slots)]
                for g in range(params.groups)]  # fmt: skip
        for own in free:
            self.rng.shuffle(own)
        places = []
        for y in range(fy):
            for q in range(fx * pitch):
                for lane in range(max(0, min(LANES, channels - q % pitch * LANES))):
                    places.append((q % params.groups, y * (fx * pitch // params.groups) + q // params.groups, lane))
        spare = [len(own) - sum(group == g for group, _, _ in places) for g, own in enumerate(free)]
        outputs: list[Output] = []
        owners: list[tuple[int, int]] = []
        split = self.pick(2, 4) if self.chance(0.5) else 1
        scale = 1 << self.pick(1, 24)
        for group, flush, lane in places:
            parts = []
            for n in range(1 + min(spare[group], self.pick(0, split - 1))):
                bias = self.pick(-scale, scale)
                if kind == "pool":
                    bias = -32768 + (self.pick(0, 3) if self.chance(0.1) else 0)
                join = Join.START if n == 0 else Join.MAX if kind == "pool" or self.chance(0.3) else Join.ADD
                parts.append((join, len(owners), bias))
                owners.append(free[group].pop())
                spare[group] -= n > 0
            outputs.append(Output(group, flush, lane, parts))
        return outputs, owners

    # Segments and their entries.

    def draw_segment(self, n: int, kind: str, source: Map, layer: dict[str, int], rows: int) -> Segment:
        """A window on a map, and codes of the weights from its columns to `rows` accumulators."""
        params, groups = self.params, self.params.groups
        tiled = layer["tiles_y"] * layer["tiles_x"] > 1
        budget = self.pick(1, 6 if tiled else 14)  # vectors of a window
        first = self.pick(0, source.vectors - 1) if self.chance(0.2) else 0
        vectors = source.vectors - first
        if self.chance(0.2):
            vectors = self.pick(1, vectors)
        vectors = min(vectors, 12)
        wy = wx = 1
        if kind != "stream":
            wy = self.pick(1, max(1, min(source.height + 1, budget // vectors)))
            wx = self.pick(1, max(1, min(source.width + 2, budget // vectors // wy)))
        dy, dx = (self.pick(1, 3) if self.chance(0.3) else 1 for _ in range(2))
        step_y, step_x = self.pick(1, 3), self.pick(1, 3)
        y0, x0 = self.pick(-2, 1), self.pick(-2, 1)
        if kind in ("full", "stream") and self.chance(0.8):
            y0, x0 = self.pick(0, source.height - 1), self.pick(0, source.width - 1)
        row = source.row_lines * groups
        step = {
            "op": Op.SEGMENT.value, "chained": int(source.layer == n - 1 and n > 0),
            "dense": int(kind == "pool" or self.chance(0.1)), "refill": int(kind == "stream" and self.chance(0.8)),
            "buffer": 0, "codebook": self.pick(0, params.codebooks - 1),
            "source": (source.base * groups + first + y0 * row + x0 * source.pitch) % WRAP,
            "vectors": vectors, "dy": dy, "dx": dx, "wy": wy, "wx": wx, "height": source.height,
            "width": source.width, "y0": y0, "x0": x0, "step_y": step_y, "step_x": step_x,
            "position_pitch": dx * source.pitch, "window_pitch": dy * row, "tile_pitch_x": step_x * source.pitch,
            "tile_pitch_y": step_y * row, **layer,
        }  # fmt: skip
        columns = wy * wx * vectors * LANES
        density = float(self.rng.choice([0.02, 0.1, 0.3, 0.9]))
        codes = self.rng.integers(1, 1 << params.code_bits, (rows, columns))
        codes *= self.rng.random((rows, columns)) < density
        if self.chance(0.5):  # whole vectors without entries
            empty = np.repeat(self.rng.random(columns // LANES) < 0.3, LANES)
            codes[:, empty] = 0
        return Segment(step, np.asarray(codes, np.int64))


def random_program(
    seed: int, *, kind: str | None = None, batch: int | None = None, layers: int | None = None, **changes: Any
) -> Program:
    """The program of a seed. `kind` of all layers (`KINDS`), `batch`, number of `layers`, fields of `Params` to fix."""
    draw = _Draw(seed, kind, batch, changes)
    for _ in range(draw.pick(1, 4) if layers is None else layers):
        draw.draw_layer()
    frame = draw.frame + draw.pick(0, 2)
    for segment in (segment for layer in draw.layers for segment in layer):
        segment.step["frame"] = frame
    params = draw.params.replace(
        act_lines=max(2, draw.batch * frame), output_words=max(2, len(draw.tables[0])),
        descriptors=sum(len(layer) for layer in draw.layers) + 1,
    )  # fmt: skip
    first = [sum(len(layer) for layer in draw.layers[:n]) for n in range(len(draw.layers))]
    words = lay_out(draw.rng, params, draw.batch, draw.layers)

    def whole(lines: NDArray[np.int16]) -> NDArray[np.int16]:
        each = lines[:, :, :frame].transpose(1, 0, 2, 3).reshape(params.groups, draw.batch * frame, LANES)
        return np.concatenate([each, np.zeros((params.groups, params.act_lines - each.shape[1], LANES), np.int16)], 1)

    def raw(lines: NDArray[np.int16]) -> list[int]:
        return [int.from_bytes(line.astype("<i2").tobytes(), "little") for line in lines]

    return Program(
        seed, words.params, draw.batch, draw.layers, first,
        {
            Memory.WEIGHTS: words.weights, Memory.POINTERS: words.pointers,
            Memory.CODEBOOK: [[int(value) & 0xFFFF for value in draw.books.reshape(-1)]],
            Memory.ACTIVATIONS: [raw(lines) for lines in whole(draw.before)], Memory.OUTPUTS: draw.tables,
            Memory.DESCRIPTORS: [[*words.descriptors, packed(descriptor(params), op=Op.END.value)]],
        },
        words.beats, whole(draw.now), draw.saturated,
    )  # fmt: skip
