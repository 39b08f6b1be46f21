"""Tile loop: which descriptor comes next, where its window begins, and where its tile goes."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import Op, descriptor, loop
from hw.params import SEGMENTS, Params
from hw.streams import LINE_BITS, VECTOR_ADDRESS_BITS, window_origin

__all__ = ["TileLoop"]


class TileLoop(wiring.Component):
    """Samples, of these the rows of tiles, of these the tiles, of these the segments of a layer; then the next layer.

    The other descriptors stand between layers. At a LOOP the program goes back to the body's first descriptor, with the
    loop offset moved on, until the body has run as often as it shall; then the offset is 0 again.

    The place of each segment's window moves on from tile to tile. It is kept for `SEGMENTS` segments, or as many as
    there are descriptors: a layer of several tiles has no more. The first tile of each sample begins at the
    descriptor's own place, so that a layer of one tile may have any number.

    In a ring of rows, windows move on modulo its rows. Rows of tiles that stream out take its places in turn, counted
    on over the samples.

    Timing: what belongs to a descriptor is there 1 cycle after ``prepare``, until the cycle of ``accept``; with
    ``ring`` it is 2 cycles, and ``accept`` comes 4 cycles after ``prepare`` at the earliest.

    Members
    -------
    start, first, batch : a run begins at descriptor `first`, over `batch` samples.
    layer : the descriptor `index`.
    prepare : it has just arrived. accept, advance : it is accepted, a segment or another one: go on to `following`.
    index, following : number of the descriptor, and of the one after it (with ``start`` the first one).
    segment : its number in the layer, SEGMENTS if it is that or more.
    address, y, x : where its window begins: activation vector and pixel of the map.
    destination : first line that its tile writes.
    opens : it is the first of its tile. row_begins, row_ends : this tile is the first, the last of its row of tiles.
    starts : with ``prepare``, it is the first of its layer.
    sample_ends : it is the last of its sample. begins, ends : it is the first, the last of its layer.
    floor : the first descriptor that a loop may go back to: the first one of the run, or the one behind the loop
        before. So a body holds no other loop.
    offset : lines by which addresses move in this round of the loop. again : it is not the first round.
    skip, skip_size : see `Ring`. place, edge, wrap_pitch : see `scan_request` (all only with ``params.streams``).
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self.origin = window_origin(params)
        ring = {
            "skip": In(16), "skip_size": In(VECTOR_ADDRESS_BITS), "place": Out(16), "edge": Out(16),
            "wrap_pitch": Out(VECTOR_ADDRESS_BITS),
        } if params.streams else {}  # fmt: skip
        super().__init__({
            "start": In(1), "first": In(16), "batch": In(16),
            "layer": In(descriptor(params)), "prepare": In(1), "accept": In(1), "advance": In(1),
            "index": Out(16), "following": Out(16), "segment": Out(range(SEGMENTS + 1)),
            "address": Out(VECTOR_ADDRESS_BITS), "y": Out(signed(17)), "x": Out(signed(17)),
            "destination": Out(LINE_BITS), "opens": Out(1, init=1), "starts": Out(1), "begins": Out(1), "ends": Out(1),
            "row_begins": Out(1), "row_ends": Out(1), "sample_ends": Out(1),
            "floor": Out(16), "offset": Out(signed(LINE_BITS)), "again": Out(1), **ring,
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layer = self.layer
        ending = data.View(loop(self.params), layer.as_value())
        op = Value.cast(layer.op)
        group_bits = (self.params.groups - 1).bit_length()
        m.submodules.memory = origins = memory.Memory(shape=self.origin, depth=self.params.places, init=[])
        kept, moved = origins.read_port(domain="comb"), origins.write_port()
        head = Signal(16)  # the first descriptor of the layer
        sample = Signal(16)
        ty = Signal(16)
        tx = Signal(16)
        sample_lines = Signal(LINE_BITS)  # of the samples before
        row = Signal(LINE_BITS)  # first line of the row of tiles
        last_sample = Signal()
        last_row = Signal()
        last_column = Signal()
        fresh = Signal()  # the first tile of a sample
        at = Signal(self.origin)
        next_line = Signal(LINE_BITS)
        round_ = Signal(16)
        repeats = Signal()
        # What the descriptor ends, and what it is if it is no segment. An accept leads to all of the loop, so it meets
        # a single condition on its way.
        row_closes = Signal()
        sample_closes = Signal()
        layer_closes = Signal()
        is_loop = Signal()
        goes_on = Signal()
        next_column, next_row, next_sample = Signal(), Signal(), Signal()  # are the last of their kind
        repeated = Signal()  # the layer goes on: its first descriptor comes next

        m.d.comb += [
            self.row_begins.eq(tx == 0), self.row_ends.eq(last_column), self.sample_ends.eq(last_column & last_row),
            fresh.eq((ty == 0) & (tx == 0)), self.starts.eq(fresh & (sample == 0)),
            self.ends.eq(last_column & last_row & last_sample),
            repeats.eq((op == Op.LOOP.value) & (round_ + 1 != ending.count)), self.again.eq(round_ != 0),
            self.address.eq(at.address), self.y.eq(at.y), self.x.eq(at.x),
            kept.addr.eq(self.segment), moved.addr.eq(self.segment),
        ]  # fmt: skip

        # A descriptor has arrived: where are its window and its tile, and what comes behind it?
        m.d.comb += [
            next_column.eq(tx + 1 == layer.tiles_x), next_row.eq(ty + 1 == layer.tiles_y),
            next_sample.eq(sample + 1 == self.batch),
            repeated.eq((op == Op.SEGMENT.value) & layer.last & ~(next_column & next_row & next_sample)),
        ]  # fmt: skip
        with m.If(fresh):
            m.d.comb += next_line.eq(layer.destination + sample_lines + Mux(layer.moves_result, self.offset, 0))
        with m.Elif(tx == 0):
            m.d.comb += next_line.eq(row + layer.tile_lines)
        with m.Else():
            m.d.comb += next_line.eq(self.destination + layer.column_lines)
        if self.params.streams:
            self._place_of_row(m, tx == 0, last_column, row, next_line)
        with m.If(self.prepare):
            m.d.sync += [
                at.eq(kept.data), last_column.eq(next_column), last_row.eq(next_row), last_sample.eq(next_sample),
                self.following.eq(Mux(repeated, head, Mux(repeats, ending.first, self.index + 1))),
                self.begins.eq(self.starts), is_loop.eq(op == Op.LOOP.value), goes_on.eq(repeats),
                row_closes.eq(layer.last & next_column), sample_closes.eq(layer.last & next_column & next_row),
                layer_closes.eq(layer.last & next_column & next_row & next_sample),
            ]  # fmt: skip
            with m.If(fresh):
                lines = Mux(layer.moves_source, sample_lines + self.offset, sample_lines)
                source = layer.source + (lines << group_bits)
                m.d.sync += [at.row.eq(source), at.address.eq(source), at.y.eq(layer.y0), at.x.eq(layer.x0)]
            with m.If(self.opens):
                m.d.sync += self.destination.eq(next_line)
                with m.If(tx == 0):
                    m.d.sync += row.eq(next_line)

        # It is accepted: its window in the next tile, and what comes next.
        m.d.comb += [moved.en.eq(self.accept), moved.data.eq(at)]
        with m.If(last_column):
            m.d.comb += [
                moved.data.row.eq(at.row + layer.tile_pitch_y), moved.data.address.eq(at.row + layer.tile_pitch_y),
                moved.data.y.eq(at.y + layer.step_y), moved.data.x.eq(layer.x0),
            ]  # fmt: skip
        with m.Else():
            m.d.comb += [moved.data.address.eq(at.address + layer.tile_pitch_x), moved.data.x.eq(at.x + layer.step_x)]
        if self.params.streams:
            self._ring(m, at, moved.data, fresh, last_column)
        with m.If(self.advance):
            m.d.sync += [self.index.eq(self.following), head.eq(self.following)]
        with m.If(self.advance & is_loop):
            m.d.sync += [round_.eq(round_ + 1), self.offset.eq(self.offset + ending.pitch)]
        with m.If(self.advance & is_loop & ~goes_on):
            m.d.sync += [round_.eq(0), self.offset.eq(0), self.floor.eq(self.following)]
        with m.If(self.accept):
            m.d.sync += [
                self.index.eq(self.following), self.segment.eq(self.segment + (self.segment != SEGMENTS)),
                self.opens.eq(layer.last),
            ]  # fmt: skip
        with m.If(self.accept & layer.last):
            m.d.sync += [self.segment.eq(0), tx.eq(tx + 1)]
        with m.If(self.accept & row_closes):
            m.d.sync += [tx.eq(0), ty.eq(ty + 1)]
        with m.If(self.accept & sample_closes):
            m.d.sync += [ty.eq(0), sample.eq(sample + 1), sample_lines.eq(sample_lines + layer.frame)]
        with m.If(self.accept & layer_closes):
            m.d.sync += [sample.eq(0), sample_lines.eq(0), head.eq(self.index + 1)]
        with m.If(self.start):
            m.d.sync += [
                self.index.eq(self.first), self.following.eq(self.first), head.eq(self.first),
                self.floor.eq(self.first), self.segment.eq(0), self.opens.eq(1),
                sample.eq(0), ty.eq(0), tx.eq(0), sample_lines.eq(0), round_.eq(0), self.offset.eq(0),
            ]  # fmt: skip
        return m

    def _ring(self, m: Module, at: Any, moved: Any, fresh: Value, last_column: Value) -> None:
        """The place of a window in a ring of rows: of the first tile of a sample, and of the next row of tiles."""
        layer, rows = self.layer, self.layer.ring_rows
        settle = Signal()
        # Of a move by the place of the sample, and of one to the next row of tiles: from which place on it leads over
        # the end of the ring, and how many vectors it goes then. So no sum waits for another one.
        first_edge, first_back = Signal(16), Signal(VECTOR_ADDRESS_BITS)
        lower_edge, lower_back = Signal(16), Signal(VECTOR_ADDRESS_BITS)
        lower_place, lower_row = Signal(16), Signal(VECTOR_ADDRESS_BITS)
        wraps, lower_wraps = Signal(), Signal()
        m.d.comb += [
            wraps.eq(at.place >= first_edge), lower_wraps.eq(at.place >= lower_edge),
            self.place.eq(at.place), moved.place.eq(at.place),
        ]  # fmt: skip
        m.d.sync += [
            settle.eq(self.prepare & layer.ring & fresh), self.edge.eq(rows - layer.dy),
            self.wrap_pitch.eq(layer.window_pitch - layer.ring_size),
            first_edge.eq(rows - self.skip), first_back.eq(self.skip_size - layer.ring_size),
            lower_edge.eq(rows - layer.step_y), lower_back.eq(layer.tile_pitch_y - layer.ring_size),
            lower_place.eq(Mux(lower_wraps, at.place - lower_edge, at.place + layer.step_y)),
            lower_row.eq(Mux(lower_wraps, at.row + lower_back, at.row + layer.tile_pitch_y)),
        ]  # fmt: skip
        with m.If(self.prepare & fresh):
            m.d.sync += at.place.eq(Mux(layer.y0 < 0, layer.y0 + rows, Mux(layer.y0 == rows, 0, layer.y0)))
            with m.If(layer.ring):
                m.d.sync += [at.row.eq(layer.source), at.address.eq(layer.source)]
        with m.If(settle):
            start = Mux(wraps, at.address + first_back, at.address + self.skip_size)
            m.d.sync += [
                at.place.eq(Mux(wraps, at.place - first_edge, at.place + self.skip)), at.row.eq(start),
                at.address.eq(start),
            ]  # fmt: skip
        with m.If(layer.ring & last_column):
            m.d.comb += [moved.row.eq(lower_row), moved.address.eq(lower_row), moved.place.eq(lower_place)]

    def _place_of_row(self, m: Module, begins: Value, ends: Value, row: Value, next_line: Value) -> None:
        """The first line of a row of tiles that streams out: behind the row before, or that of the ring."""
        layer = self.layer
        place = Signal(16)  # row of the ring
        with m.If(layer.stream_out & begins):
            m.d.comb += next_line.eq(Mux(place == 0, layer.destination, row + layer.tile_lines))
        with m.If(self.accept & layer.last & layer.stream_out & ends):
            m.d.sync += place.eq(place + 1)
            with m.If((place + 1 == layer.out_rows) | self.ends):
                m.d.sync += place.eq(0)
        with m.If(self.start):
            m.d.sync += place.eq(0)
