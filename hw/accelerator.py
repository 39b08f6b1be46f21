"""The top of the design: core and host port."""

from __future__ import annotations

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.core import Core
from hw.host import Host, axi_lite, axi_stream
from hw.layouts import ACT_BITS, REFILL_BITS
from hw.params import LANES, Params

__all__ = ["TOP_MODULE", "Accelerator"]

TOP_MODULE = "eie_accelerator"


class Accelerator(wiring.Component):
    """One array with its AXI4-Lite host port and interrupt.

    Members
    -------
    bus : AXI4-Lite, see docs/registers.md (`hw.registers`).
    irq : level interrupt, high while STATUS.DONE and INTERRUPT.ENABLE.
    refill : AXI4-Stream with the tiles of layers that are larger than the memories, taken during a run (only with
        ``params.refill``; see `hw.refill`).
    act_in, act_out : AXI4-Stream with the rows of maps that lie off chip, an activation vector a beat (only with
        ``params.streams``; see `hw.stream_in` and `hw.stream_out`). ``tlast`` is the last beat of a map.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        refill = {"refill": In(axi_stream(REFILL_BITS))} if params.refill else {}
        beats = axi_stream(ACT_BITS * LANES)
        streams = {"act_in": In(beats), "act_out": Out(wiring.Signature({**beats.members, "tlast": Out(1)}))}
        super().__init__({"bus": In(axi_lite()), "irq": Out(1), **refill, **(streams if params.streams else {})})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.host = host = Host(self.params)
        m.submodules.core = core = self.core = Core(self.params)
        connect(m, flipped(self.bus), host.bus)
        connect(m, host.write, core.write)
        connect(m, host.read, core.read)
        m.d.comb += [
            self.irq.eq(host.irq),
            core.restart.eq(host.restart),
            core.start.eq(host.start), core.first.eq(host.first), core.batch.eq(host.batch),
            host.busy.eq(core.busy), host.done.eq(core.done), host.error.eq(core.error), host.index.eq(core.index),
            host.now.eq(core.now), host.read_data.eq(core.read_data),
        ]  # fmt: skip
        if self.params.refill:
            m.d.comb += [
                core.tiles.valid.eq(self.refill.tvalid), core.tiles.payload.eq(self.refill.tdata),
                self.refill.tready.eq(core.tiles.ready),
            ]  # fmt: skip
        if self.params.streams:
            m.d.comb += [
                core.acts_in.valid.eq(self.act_in.tvalid), core.acts_in.payload.eq(self.act_in.tdata),
                self.act_in.tready.eq(core.acts_in.ready),
                self.act_out.tvalid.eq(core.acts_out.valid), self.act_out.tdata.eq(core.acts_out.p.data),
                self.act_out.tlast.eq(core.acts_out.p.last), core.acts_out.ready.eq(self.act_out.tready),
            ]  # fmt: skip
        return m
