"""Window: walks the positions of a segment's window over its map, one activation vector a cycle."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.params import Params
from hw.streams import VECTOR_ADDRESS_BITS, scan_request, tag

__all__ = ["POINTER_WALK_BITS", "Window"]

POINTER_WALK_BITS = 21
"""One more than the `pointers` field of a descriptor: a walk past the end of pointer memory does not wrap into it."""


def _below(coordinate: Value, size: Value) -> Value:
    """Whether a coordinate is of the map: a negative one is large without its sign."""
    return coordinate.as_unsigned() < size


class Window(wiring.Component):
    """Rows of positions of activation vectors, in this order, and what each of them is.

    A position outside the map is one step, whatever number of activation vectors it would have; it has no address, and
    its pointer blocks are passed over. In a ring of rows, the row after the last one is the first. In a `uniform`
    window all positions have the pointer blocks of the first one.

    Timing: the first activation vector shows 1 cycle after ``start``, the next one 1 cycle after each ``go``. The
    request ends with the ``go`` of its last one; another may start 1 cycle after it.

    Members
    -------
    start, request : begin a window (only while not ``valid``).
    valid, go : there is an activation vector to read; it is read in this cycle (only while ``valid``).
    address, inside, pointers, last : of this vector; ``inside``: of a pixel of the map, `address` counts only then.
    dense, closes, tag : of the request.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__({
            "start": In(1), "request": In(scan_request(params)),
            "valid": Out(1), "go": In(1),
            "address": Out(VECTOR_ADDRESS_BITS), "inside": Out(1), "pointers": Out(POINTER_WALK_BITS), "last": Out(1),
            "dense": Out(1), "closes": Out(1), "tag": Out(tag(params)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        held = Signal(scan_request(self.params))  # address: of the first position of the row
        y = Signal(signed(17))
        x = Signal(signed(17))
        # Whether they are of the map, and the column with which each row begins: as they change, not behind them.
        inside_y = Signal()
        inside_x = Signal()
        begins_inside = Signal()
        next_y, next_x = Signal(signed(17)), Signal(signed(17))
        position = Signal(VECTOR_ADDRESS_BITS)  # address of the first vector of the position
        # Counted from 1, so that nothing is added before the comparison.
        vector = Signal(16)
        column = Signal(16)
        row = Signal(16)
        position_ends, row_ends, window_ends = Signal(), Signal(), Signal()
        next_position, next_row = Signal(VECTOR_ADDRESS_BITS), Signal(VECTOR_ADDRESS_BITS)

        m.d.comb += [
            self.inside.eq(inside_y & inside_x), next_y.eq(y + held.dy), next_x.eq(x + held.dx),
            position_ends.eq(~self.inside | (vector == held.vectors)),
            row_ends.eq(column == held.wx), window_ends.eq(row == held.wy),
            next_position.eq(position + held.position_pitch), next_row.eq(held.address + held.window_pitch),
            self.last.eq(position_ends & row_ends & window_ends),
            self.dense.eq(held.dense), self.closes.eq(held.closes), self.tag.eq(held.tag),
        ]  # fmt: skip

        if self.params.streams:
            wraps = Signal()
            m.d.comb += wraps.eq(held.ring & (held.place >= held.edge))
            with m.If(wraps):
                m.d.comb += next_row.eq(held.address + held.wrap_pitch)
            with m.If(self.go & position_ends & row_ends):
                m.d.sync += held.place.eq(Mux(wraps, held.place - held.edge, held.place + held.dy))
        with m.If(self.go):
            m.d.sync += [
                self.pointers.eq(
                    Mux(position_ends & held.uniform, held.pointers, self.pointers + Mux(self.inside, 1, held.vectors))
                ),
                self.valid.eq(~self.last),
            ]  # fmt: skip
            with m.If(~position_ends):
                m.d.sync += [vector.eq(vector + 1), self.address.eq(self.address + 1)]
            with m.Elif(~row_ends):
                m.d.sync += [
                    vector.eq(1), column.eq(column + 1), x.eq(next_x), inside_x.eq(_below(next_x, held.width)),
                    position.eq(next_position), self.address.eq(next_position),
                ]  # fmt: skip
            with m.Else():
                m.d.sync += [
                    vector.eq(1), column.eq(1), row.eq(row + 1), x.eq(held.x), y.eq(next_y),
                    inside_x.eq(begins_inside), inside_y.eq(_below(next_y, held.height)),
                    held.address.eq(next_row), position.eq(next_row), self.address.eq(next_row),
                ]  # fmt: skip
        # A request is taken in every cycle in which it could begin, so that `start` leads to one register.
        with m.If(self.start):
            m.d.sync += self.valid.eq(1)
        with m.If(~self.valid):
            m.d.sync += [
                inside_y.eq(_below(self.request.y, self.request.height)),
                inside_x.eq(_below(self.request.x, self.request.width)),
                begins_inside.eq(_below(self.request.x, self.request.width)),
                held.eq(self.request), y.eq(self.request.y), x.eq(self.request.x),
                vector.eq(1), column.eq(1), row.eq(1), position.eq(self.request.address),
                self.address.eq(self.request.address), self.pointers.eq(self.request.pointers),
            ]  # fmt: skip
        return m
