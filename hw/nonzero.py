"""Leading-nonzero detection: one octet of activations in, its nonzero ones out, one a cycle."""

from __future__ import annotations

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import ACT_BITS
from hw.params import LANES, Params
from hw.streams import broadcast

__all__ = ["LeadingNonzero", "octet"]


def octet(params: Params) -> data.StructLayout:
    """Eight activations of successive columns, the pointer block that describes them, and the bank in use."""
    return data.StructLayout({
        "acts": data.ArrayLayout(ACT_BITS, LANES), "block": broadcast(params)["block"].width, "bank": 1, "last": 1,
    })  # fmt: skip


class LeadingNonzero(wiring.Component):
    """Send the nonzero activations of an octet in order of their column.

    Timing: the first is valid 1 cycle after the octet is taken; one a cycle; an octet without any costs
    one cycle. The next octet is taken in the cycle in which the last one leaves.

    Members
    -------
    i : octets.
    o : nonzero columns.
    finished : the octet marked `last` is used up in this cycle.
    skipped : zero activations of the octet taken in this cycle.

    Source: EIE section IV, "Distributed Leading Non-Zero Detection"; one central detector here.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__({
            "i": In(stream.Signature(octet(params))),
            "o": Out(stream.Signature(broadcast(params))),
            "finished": Out(1),
            "skipped": Out(range(LANES + 1)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        valid = Signal()
        held = Signal(octet(self.params))
        remaining = Signal(LANES)
        lowest = Signal(LANES)
        used_up = Signal()
        arriving = Cat(act.any() for act in (self.i.p.acts[n] for n in range(LANES)))

        m.d.comb += [
            lowest.eq(remaining & -remaining),
            self.o.valid.eq(valid & remaining.any()),
            self.o.p.block.eq(held.block), self.o.p.bank.eq(held.bank),
            used_up.eq(valid & (~remaining.any() | (self.o.ready & (remaining == lowest)))),
            self.finished.eq(used_up & held.last),
            self.i.ready.eq(~valid | used_up),
        ]  # fmt: skip
        for lane in range(LANES):
            with m.If(lowest[lane]):
                m.d.comb += [self.o.p.lane.eq(lane), self.o.p.act.eq(held.acts[lane])]

        with m.If(self.o.ready):
            m.d.sync += remaining.eq(remaining & ~lowest)
        with m.If(self.i.ready):
            m.d.sync += [valid.eq(self.i.valid), held.eq(self.i.payload), remaining.eq(arriving)]
            with m.If(self.i.valid):
                m.d.comb += self.skipped.eq(sum(((arriving[lane] == 0) for lane in range(LANES)), start=0))
        return m
