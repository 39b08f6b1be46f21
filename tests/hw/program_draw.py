"""The drawing of a random program's maps and layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.layouts import Join, Op
from hw.params import LANES, Params
from tests.hw.program_operators import FUNCTIONS, Loop, Operation, draw_function, draw_tables, operate
from tests.hw.program_result import HIGH, LOW, WRAP, masks_of, tile_totals, write_tiles
from tests.hw.program_streams import RINGS, Rings, lay_rings
from tests.hw.program_table import Output, table
from tests.hw.program_words import Segment, encode

__all__ = ["KINDS", "Draw", "Item", "Map"]

OFF_CHIP = 2048
"""First line of maps off chip."""

KINDS = ("window", "pool", "full", "stream")
"""Kinds of layers: sums over a window, maxima over a window, fully connected, fully connected with streamed weights."""

PES = (1, 1, 2, 2, 2, 4, 4, 4, 8, 16)
"""Sizes of arrays, as often as they are drawn: those of two write-back groups take a simulator ten times as long."""


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
    moves: bool = False  # there is one for each round of the loop that is drawn
    operated: bool = False  # an operation writes it
    off_chip: bool = False
    row_vectors: int = 0  # of a map off chip, that go through a port


Item = list[Segment] | Operation | Loop


class Draw:
    """The state of one drawing."""

    def __init__(
        self, seed: int, kind: str | None, batch: int | None, operators: bool, streams: bool, changes: dict[str, Any]
    ) -> None:
        self.rng = rng = np.random.default_rng([seed, 77])
        self.kind, self.operators = kind, operators
        refill = bool(rng.integers(2)) if kind != "stream" else True
        hops = 0 if "queue_depth" in changes else int(np.random.default_rng([seed, 78]).integers(3))
        self.params = Params(
            pes=PES[rng.integers(len(PES))], index_bits=self.pick(4, 8), code_bits=self.pick(2, 5),
            rows=self.pick(8, 64), queue_depth=self.pick(6, 16) + 2 * hops, acc_bits=self.pick(40, 48),
            codebooks=self.pick(1, 5), refill=refill, weight_words=2, pointer_blocks=2, act_lines=2, output_words=2,
            descriptors=2,
            tables=self.pick(0, 4) if operators else 0, elementwise=operators, streams=streams, hops=hops,
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
        self.outputs: list[list[Output]] = []
        self.words: list[list[int]] = [[] for _ in range(self.params.groups)]
        self.tables = draw_tables(rng, self.params.tables)
        self.items: list[Item] = []
        self.saturated: list[int] = []  # of each item
        self.order: list[int] = []  # layers as they run
        self.masks: list[NDArray[np.uint8]] = []
        self.sources: list[tuple[Segment, Map]] = []
        self.stride = self.rounds = 0  # of the loop that is drawn: lines from round to round, how many
        self.pitch = 0
        self.before = self.now.copy()
        self.streams = streams
        self.off_chip: list[Map] = []
        self.far = OFF_CHIP
        ring_lines = rng.integers(LOW, HIGH + 1, (self.params.groups, RINGS, LANES)) if streams else self.now[0]
        self.rings = Rings(ring_lines.astype(np.int16), 0, {}, [], [])
        self.rings_before = self.rings.lines.copy()
        self.ringed: dict[int, tuple[list[Map], Map]] = {}  # number of a layer → maps of its ring, its result
        for _ in range(self.pick(1, 2)):
            self.draw_input()

    def pick(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, of: float) -> bool:
        return bool(self.rng.random() < of)

    def draw_input(self) -> None:
        """A map that the host writes, with as many zeros as chance gives."""
        groups, rng = self.params.groups, self.rng
        most = 3 if self.stride else 7
        shape = self.pick(1, most), self.pick(1, most), self.pick(1, 3)
        if self.chance(0.2):
            shape = 1, 1, self.pick(1, 12)
        each = self.place(*shape, 1, 1, -1)
        if self.stride:
            self.spread(each)
        first, lines = each.base, each.lines
        if each.moves:
            first, lines = min(first, first + self.pitch * (self.rounds - 1)), self.stride * self.rounds
        limit = 1 << self.pick(1, 15)
        values = rng.integers(-limit, limit, (self.batch, groups, lines, LANES))
        values *= rng.random(values.shape) < rng.choice([0.05, 0.3, 0.7, 1.0])
        values *= rng.random((*values.shape[:3], 1)) < rng.choice([0.3, 1.0])
        self.now[:, :, first : first + lines] = self.before[:, :, first : first + lines] = values

    def spread(self, each: Map) -> None:
        """The map that was placed last gets one of its kind for each round of the loop."""
        if each.lines <= self.stride:
            each.moves = True
            self.frame = each.base + self.stride * self.rounds
            each.base -= min(0, self.pitch * (self.rounds - 1))

    def place(self, height: int, width: int, vectors: int, fy: int, fx: int, layer: int, off_chip: bool = False) -> Map:
        """A map for a result in tiles of fy x fx pixels, behind all others in the frame, or off chip."""
        groups = self.params.groups
        pitch = vectors + (self.pick(0, 2) if self.chance(0.3) else 0)
        while fx * pitch % groups:
            pitch += 1
        tiles_y, tiles_x = -(-height // fy), -(-width // fx)
        row_lines = tiles_x * (fx * pitch // groups) + (self.pick(0, 2) if self.chance(0.3) else 0)
        lines = tiles_y * fy * row_lines
        if off_chip:
            row = row_lines * groups
            self.off_chip.append(
                Map(self.far, height, width, vectors, pitch, row_lines, lines, layer, off_chip=True, row_vectors=row)
            )
            self.far += lines
            assert self.far <= self.now.shape[2]
            return self.off_chip[-1]
        base = self.frame + (self.pick(1, 2) if self.chance(0.3) else 0)
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
        streams = self.streams and not self.stride and kind != "stream"
        sources = self.draw_streamed(kind) if streams and self.chance(0.7) else self.draw_sources(kind)
        result = self.place(height, width, -(-channels // LANES), fy, fx, n, streams and self.chance(0.6))
        if self.stride and self.chance(0.5):
            self.spread(result)
        elif self.stride and small and self.chance(0.7):
            sources.append(result)  # as the round before left it
        row_lines = fx * result.pitch // params.groups
        outputs, owners = self.draw_outputs(kind, fy, fx, channels, result.pitch, slots)
        functions = int(params.tables > 0 and self.operators and self.chance(0.5))
        layer = {
            "moves_result": int(result.moves), "functions": functions,
            **(self.draw_functions(outputs) if functions else dict.fromkeys(FUNCTIONS, 0)),
            "tiles_y": tiles_y, "tiles_x": tiles_x, "destination": result.base, "row_lines": row_lines,
            "row_pitch": result.row_lines, "tile_lines": fy * result.row_lines, "column_lines": row_lines,
            "maximum": int(kind == "pool"), "low": 0 if self.chance(0.5) else self.pick(LOW, -1),
            "high": HIGH if self.chance(0.6) else self.pick(1, HIGH),
        }  # fmt: skip
        if self.chance(0.3):
            layer |= {"low": LOW, "high": HIGH}
        segments: list[Segment] = []
        for source in sources:
            above = segments[0].step if source.off_chip and segments else None
            segments.append(self.draw_segment(n, kind, source, layer, len(owners), above))
        if self.streams:
            lines = lay_rings(self.rng, segments, sources, result, params.groups)
            self.rings.used = max(self.rings.used, lines)
            maps = {source.base: source for source in sources if source.off_chip}
            self.ringed[n] = list(maps.values()), result
        for segment in segments:
            encode(self.rng, params, segment, owners)
        self.layers.append(segments)
        self.outputs.append(outputs)
        self.items.append(segments)
        self.saturated.append(0)
        self.draw_shifts(segments, outputs)
        self.run(len(self.items) - 1, 0)
        words = table(self.rng, params, outputs, owners, fy * row_lines)
        for k, segment in enumerate(segments):
            segment.step |= {
                "outputs": len(self.words[0]), "words": len(words[0]), "first": int(k == 0),
                "last": int(k == len(segments) - 1),
            }  # fmt: skip
        for own, so_far in zip(words, self.words, strict=True):
            so_far += own

    def draw_shifts(self, segments: list[Segment], outputs: list[Output]) -> None:
        """Shifts that suit what the layer computes when it is run the first time."""
        totals = tile_totals(self.params, self.books, self.now, segments, outputs)
        shift = max(0, int(np.abs(totals).max()).bit_length() - self.pick(12, 17))
        for out in outputs:
            out.shift = min(31, max(0, shift + self.pick(-1, 1)))

    def draw_functions(self, outputs: list[Output]) -> dict[str, int]:
        """Two functions; each output has one of them, or none."""
        for out in outputs:
            out.function = self.pick(0, 2)
        return draw_function(self.rng, self.params, 1) | draw_function(self.rng, self.params, 2)

    def run(self, number: int, offset: int) -> None:
        """Compute an item in the round of a loop with this offset."""
        item = self.items[number]
        if isinstance(item, Operation):
            self.saturated[number] += operate(self.now, item.step, offset, self.params, self.tables)
        elif not isinstance(item, Loop):
            layer = next(n for n, each in enumerate(self.layers) if each is item)
            self.order.append(layer)
            moved = []
            for segment in item:
                step = segment.logical
                step["source"] = (step["source"] + offset * self.params.groups * step["moves_source"]) % WRAP
                step["destination"] += offset * step["moves_result"]
                moved.append(replace(segment, step=step, whole={}))
                self.masks.append(masks_of(self.now, step))
            totals = tile_totals(self.params, self.books, self.now, moved, self.outputs[layer])
            self.saturated[number] += write_tiles(self.now, moved[0].step, self.outputs[layer], totals, self.tables)
            if item[0].step.get("stream_in"):
                self.rings.bring(self.ringed[layer][0], item[0].step)
            if item[0].step.get("stream_out"):
                self.rings.send(self.now, self.ringed[layer][1], item[0].step)

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
        weights = [4.0 if n == len(self.maps) - 1 else 3.0 if each.moves else 1.0 for n, each in enumerate(self.maps)]
        picks = self.rng.choice(len(self.maps), number, p=np.array(weights) / sum(weights))
        return [self.maps[n] for n in picks]

    def draw_streamed(self, kind: str) -> list[Map]:
        """The maps that the segments of a layer read, the first of them off chip."""
        if not self.off_chip or self.chance(0.3):
            self.draw_rows()
        first = self.off_chip[-1 if self.chance(0.7) else self.pick(0, len(self.off_chip) - 1)]
        if kind == "pool":
            return [first]
        sources = [first]
        for each in self.off_chip:
            if each.height == first.height and self.chance(0.4) and len(sources) < 3:
                sources.append(each)
        if self.chance(0.3):
            sources += self.draw_sources(kind)[:1]
        return sources

    def draw_rows(self) -> None:
        """A map off chip that the host has."""
        groups, rng = self.params.groups, self.rng
        each = self.place(self.pick(1, 9), self.pick(1, 4), self.pick(1, 2), 1, 1, -1, True)
        if self.chance(0.5):
            each.row_vectors = each.width * each.pitch
        limit = 1 << self.pick(1, 15)
        values = rng.integers(-limit, limit, (self.batch, groups, each.lines, LANES))
        values *= rng.random(values.shape) < rng.choice([0.1, 0.5, 1.0])
        self.now[:, :, each.base : each.base + each.lines] = values
        vectors = self.now[:, :, each.base : each.base + each.lines].transpose(0, 2, 1, 3)
        rows = vectors.reshape(self.batch, each.height, each.row_lines * groups, LANES)
        self.rings.stored[each.base] = rows[:, :, : each.row_vectors].copy()

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

    def draw_segment(
        self, n: int, kind: str, source: Map, layer: dict[str, int], rows: int, above: dict[str, int] | None = None
    ) -> Segment:
        """A window on a map, and codes of the weights from its columns to `rows` accumulators.

        above : another segment of the same ring, that must not begin further down.
        """
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
        if above:
            y0, step_y = above["y0"] + self.pick(0, 1), above["step_y"]
        row = source.row_lines * groups
        step = {
            "op": Op.SEGMENT.value, "chained": int(source.layer in (n - 1, n) and n > 0), "barrier": 0,
            "moves_source": int(source.moves),
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
        segment = Segment(step, np.asarray(codes, np.int64))
        self.sources.append((segment, source))
        return segment
