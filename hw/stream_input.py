"""Stream input: an AXI4-Stream port in front of the core, in step with the packets of its source."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.skid import Skid
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
        self.dropping = dropping = Signal()  # what is held was forgotten, so all is taken
        taken, goes_on = Signal(), Signal()
        skid = Skid(self.o.payload.shape().size)
        m.submodules.skid = ResetInserter(self.restart)(skid)
        m.d.comb += [
            skid.enable.eq(awake), pins.tready.eq(skid.i.ready), taken.eq(pins.tvalid & pins.tready),
            goes_on.eq(Mux(taken, ~pins.tlast, self.inside)),
            skid.i.valid.eq(pins.tvalid & ~dropping), skid.i.payload.eq(Cat(pins.tdata, pins.tlast)),
            self.o.valid.eq(skid.o.valid), self.o.payload.as_value().eq(skid.o.payload), skid.o.ready.eq(self.o.ready),
        ]  # fmt: skip
        m.d.sync += [awake.eq(1), self.inside.eq(goes_on), dropping.eq(dropping & goes_on)]
        with m.If(self.restart):
            m.d.sync += [dropping.eq(goes_on & ~self.fresh), self.inside.eq(goes_on & ~self.fresh)]
        return m
