"""Ring: which rows of its ring a segment waits for, and which ones nobody reads any more."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import descriptor
from hw.params import Params
from hw.streams import ROW_BITS, VECTOR_ADDRESS_BITS

__all__ = ["Ring"]


class Ring(wiring.Component):
    """Rows count on over the samples of a layer: row y of sample b is row ``b * height + y``.

    The window of a segment begins at row `y` of its map and ends before row y + ``reach``; of these, the rows of the
    map must have come. When it is the first one of a row of tiles, the rows before y are let go: ``rows`` of the ring
    behind y may come then.

    Timing: ``there`` and ``limit`` are those of the descriptor prepared last from `SETTLES` cycles after ``prepare``
    on, which ``settled`` says, and so is ``never``; ``there`` then follows ``received`` by 1 cycle. `skip` and
    `skip_size` follow ``sample_ends`` and ``layer_ends`` by 1 cycle.

    Members
    -------
    layer, y, prepare : the descriptor, the row at which its window begins; it has just arrived.
    sample_ends, layer_ends : the last segment of a sample, and of these the last one of the layer, is accepted.
    enable, received : rows that the in-stream has brought, if it has begun.
    settled, there, limit : all rows of the window are there; the first row for which there is no place.
    move, never : `limit` holds from now on; the window ends behind the one that held last, so its rows cannot all come.
    skip, skip_size : place of row 0 of the sample in the ring, in rows and in activation vectors.
    """

    SETTLES = 4

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__({
            "layer": In(descriptor(params)), "y": In(signed(17)), "prepare": In(1),
            "sample_ends": In(1), "layer_ends": In(1), "enable": In(1), "received": In(ROW_BITS), "move": In(1),
            "settled": Out(1), "there": Out(1), "limit": Out(ROW_BITS), "never": Out(1),
            "skip": Out(16), "skip_size": Out(VECTOR_ADDRESS_BITS),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layer = self.layer
        age = Signal(range(self.SETTLES))
        above = Signal(ROW_BITS)  # rows of the samples before
        height = Signal(16)  # rows of each
        next_above, next_skip, next_size = Signal(ROW_BITS), Signal(16), Signal(VECTOR_ADDRESS_BITS)
        end = Signal(signed(18))  # row behind the window
        begin = Signal(16)  # rows of the map before the window
        need, keep = Signal(ROW_BITS), Signal(ROW_BITS)
        held = Signal(ROW_BITS)  # the limit that holds
        # From place `edge` on the next sample's row 0 lies behind the end of the ring, `back` vectors from here.
        edge, back, wraps = Signal(16), Signal(VECTOR_ADDRESS_BITS), Signal()
        m.d.comb += [self.settled.eq(age == self.SETTLES - 1), wraps.eq(self.skip >= edge)]
        # No sum of a stage waits for another one.
        m.d.sync += [
            edge.eq(layer.ring_rows - layer.ring_skip), back.eq(layer.ring_skip_size - layer.ring_size),
            next_skip.eq(Mux(wraps, self.skip - edge, self.skip + layer.ring_skip)),
            next_size.eq(Mux(wraps, self.skip_size + back, self.skip_size + layer.ring_skip_size)),
            next_above.eq(above + height),
            end.eq(self.y + layer.reach), begin.eq(Mux(self.y < 0, 0, Mux(self.y > height, height, self.y))),
            need.eq(Mux(end < 0, above, Mux(end > height, next_above, above + end))), keep.eq(above + begin),
            self.there.eq(self.enable & (self.received >= need)), self.limit.eq(keep + layer.ring_rows),
            self.never.eq(need > held),
        ]  # fmt: skip
        with m.If(self.move):
            m.d.sync += held.eq(self.limit)
        with m.If(self.prepare):
            m.d.sync += age.eq(0)
            with m.If(layer.ring):
                m.d.sync += height.eq(layer.height)
        with m.Elif(~self.settled):
            m.d.sync += age.eq(age + 1)
        with m.If(self.layer_ends):
            m.d.sync += [above.eq(0), self.skip.eq(0), self.skip_size.eq(0)]
        with m.Elif(self.sample_ends):
            m.d.sync += [above.eq(next_above), self.skip.eq(next_skip), self.skip_size.eq(next_size)]
        return m
