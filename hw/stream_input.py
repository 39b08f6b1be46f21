"""Stream input: an AXI4-Stream port in front of the core, in step with the packets of its source."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.streams import beat

__all__ = ["StreamInput", "axi_stream"]


def axi_stream(bits: int) -> wiring.Signature:
    """AXI4-Stream with packets and without strobes, as the transmitter sees it."""
    return wiring.Signature({"tdata": Out(bits), "tlast": Out(1), "tvalid": Out(1), "tready": In(1)})


class StreamInput(wiring.Component):
    """Two beats between the pins and the core, so that no path leads from input pins to ``tready``.

    It knows whether the source is inside a packet. After ``restart`` what is held is forgotten, and the rest of a
    packet that has begun is taken and dropped: what the core sees next is the first beat of a packet.

    Timing: a beat is handed out 1 cycle after it is taken at the earliest, one a cycle. It takes two beats ahead.

    Members
    -------
    pins : AXI4-Stream.
    o : beats in the same order.
    restart : forget what is held. fresh : with it, the source begins anew as well: the next beat begins a packet.
    inside : the last beat that was taken did not end its packet.
    """

    def __init__(self, bits: int) -> None:
        super().__init__({
            "pins": In(axi_stream(bits)), "o": Out(stream.Signature(beat(bits))),
            "restart": In(1), "fresh": In(1), "inside": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pins = self.pins
        awake = Signal()  # nothing is taken in reset
        valid, shape = Signal(2), self.o.payload.shape()
        first, second = Signal(shape, reset_less=True), Signal(shape, reset_less=True)
        given = Signal(shape)
        self.dropping = dropping = Signal()
        taken, goes_on = Signal(), Signal()
        pushed, popped = Signal(), Signal()
        m.d.comb += [
            pins.tready.eq(awake & (~valid[1] | dropping)), taken.eq(pins.tvalid & pins.tready),
            goes_on.eq(Mux(taken, ~pins.tlast, self.inside)),
            given.data.eq(pins.tdata), given.last.eq(pins.tlast),
            pushed.eq(taken & ~dropping), popped.eq(valid[0] & self.o.ready),
            self.o.valid.eq(valid[0]), self.o.payload.eq(first),
        ]  # fmt: skip
        m.d.sync += [awake.eq(1), self.inside.eq(goes_on), dropping.eq(dropping & goes_on)]
        with m.If(popped | ~valid[0]):
            m.d.sync += [first.eq(Mux(valid[1], second.as_value(), given.as_value())), valid.eq(valid[1] | pushed)]
        with m.Elif(pushed):
            m.d.sync += [second.eq(given), valid[1].eq(1)]
        with m.If(self.restart):
            m.d.sync += [valid.eq(0), dropping.eq(goes_on & ~self.fresh), self.inside.eq(goes_on & ~self.fresh)]
        return m
