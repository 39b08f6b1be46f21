"""Leading-nonzero detection: one activation vector in, its nonzero columns out, one a cycle."""

from __future__ import annotations

from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.params import LANES, Params
from hw.population import ones
from hw.streams import act_vector, broadcast

__all__ = ["LeadingNonzero"]


class LeadingNonzero(wiring.Component):
    """Send the columns of an activation vector that have a nonzero activation, in order.

    Timing: the first is valid 1 cycle after the activation vector is taken; one a cycle; an activation vector without
    any costs one cycle. The next activation vector is taken in the cycle in which the last one leaves.

    Members
    -------
    i : activation vectors.
    o : nonzero columns.
    finished : the activation vector marked `last` is used up in this cycle.
    skipped : columns without a nonzero activation in the activation vector taken in this cycle.

    Source: EIE section IV, "Distributed Leading Non-Zero Detection"; one central detector here.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__({
            "i": In(stream.Signature(act_vector(params))),
            "o": Out(stream.Signature(broadcast(params))),
            "finished": Out(1),
            "skipped": Out(range(LANES + 1)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        valid = Signal()
        held = Signal(act_vector(self.params))
        remaining = Signal(LANES)
        lowest = Signal(LANES)
        used_up = Signal()
        nonzero = Cat(act.any() for act in (self.i.p.acts[n] for n in range(LANES)))
        arriving = Signal(LANES)
        columns = Signal(range(LANES + 1))
        m.d.comb += [arriving.eq(nonzero), columns.eq(LANES)]

        # Held in the order of columns: of a folded activation vector the even activations, then the odd ones.
        sorted_acts = Signal(self.i.p.acts.shape())
        m.d.comb += sorted_acts.eq(self.i.p.acts)
        if self.params.fold > 1:
            with m.If(self.i.p.fold):
                pairs = range(LANES // 2)
                m.d.comb += [arriving.eq(Cat(nonzero[2 * n : 2 * n + 2].any() for n in pairs)), columns.eq(LANES // 2)]
                m.d.comb += [sorted_acts[n].eq(self.i.p.acts[2 * n]) for n in pairs]
                m.d.comb += [sorted_acts[n + LANES // 2].eq(self.i.p.acts[2 * n + 1]) for n in pairs]

        m.d.comb += [
            lowest.eq(remaining & -remaining),
            self.o.valid.eq(valid & remaining.any()),
            self.o.p.block.eq(held.block), self.o.p.tag.eq(held.tag),
            used_up.eq(valid & (~remaining.any() | (self.o.ready & (remaining == lowest)))),
            self.finished.eq(used_up & held.last),
            self.i.ready.eq(~valid | used_up),
        ]  # fmt: skip
        for lane in range(LANES):
            with m.If(lowest[lane]):
                m.d.comb += [self.o.p.lane.eq(lane), self.o.p.acts[0].eq(held.acts[lane])]
                if self.params.fold > 1 and lane < LANES // 2:
                    m.d.comb += self.o.p.acts[1].eq(held.acts[lane + LANES // 2])
                    with m.If(held.fold & held.half):
                        m.d.comb += self.o.p.lane.eq(lane + LANES // 2)

        with m.If(self.o.ready):
            m.d.sync += remaining.eq(remaining & ~lowest)
        with m.If(self.i.ready):
            m.d.sync += [valid.eq(self.i.valid), held.eq(self.i.payload), remaining.eq(arriving)]
            m.d.sync += held.acts.eq(sorted_acts)
            with m.If(self.i.valid):
                m.d.comb += self.skipped.eq(columns - ones(arriving))
        return m
