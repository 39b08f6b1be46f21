"""The top of the design: core, host port and stream input."""

from __future__ import annotations

from amaranth import ClockDomain, ClockSignal, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.core import Core
from hw.host import Host, axi_lite
from hw.layouts import ACT_BITS, REFILL_BITS
from hw.params import LANES, Params
from hw.stream_input import StreamInput, axi_stream

__all__ = ["TOP_MODULE", "Accelerator"]

TOP_MODULE = "eie_accelerator"


class Accelerator(wiring.Component):
    """One array with its AXI4-Lite host port, its stream ports and interrupt.

    In Verilog the pins are named as a system-on-chip integrator expects them: ``s_axi_awvalid``,
    ``s_axis_weights_tdata``. No path leads from an input to an output within a cycle.

    Members
    -------
    aclk, aresetn : clock; reset, active low, sampled with the clock.
    s_axi : AXI4-Lite, see docs/registers.md (`hw.registers`).
    irq : level interrupt, high while a bit of STATUS is set that INTERRUPT enables.
    s_axis_weights : AXI4-Stream with the tiles of layers that are larger than the memories, taken during a run (and
        two beats ahead); TLAST ends a tile (only with ``params.refill``; see `hw.refill`).
    s_axis_acts, m_axis_acts : AXI4-Stream with the rows of maps that lie off chip, an activation vector a beat (only
        with ``params.streams``; see `hw.stream_in` and `hw.stream_out`). TLAST is not looked at on the way in, and is
        the last beat of a map on the way out.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        weights = {"s_axis_weights": In(axi_stream(REFILL_BITS))} if params.refill else {}
        beats = axi_stream(ACT_BITS * LANES)
        acts = {"s_axis_acts": In(beats), "m_axis_acts": Out(beats)} if params.streams else {}
        super().__init__({"aclk": In(1), "aresetn": In(1), "s_axi": In(axi_lite()), "irq": Out(1), **weights, **acts})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = ClockDomain()
        m.d.comb += [ClockSignal().eq(self.aclk), ResetSignal().eq(~self.aresetn)]
        m.submodules.host = host = Host(self.params)
        m.submodules.core = core = self.core = Core(self.params)
        connect(m, flipped(self.s_axi), host.bus)
        connect(m, host.write, core.write)
        connect(m, host.read, core.read)
        m.d.comb += [
            self.irq.eq(host.irq),
            core.restart.eq(host.restart),
            core.start.eq(host.start), core.first.eq(host.first), core.batch.eq(host.batch),
            host.busy.eq(core.busy), host.running.eq(core.running), host.done.eq(core.done),
            host.error.eq(core.error), host.index.eq(core.index), host.now.eq(core.now),
            host.read_data.eq(core.read_data), host.settling.eq(core.settling),
        ]  # fmt: skip
        if self.params.parity:
            m.d.comb += host.wrong.eq(core.wrong)
        if self.params.refill:
            m.submodules.weights = weights = StreamInput(REFILL_BITS)
            connect(m, flipped(self.s_axis_weights), weights.pins)
            connect(m, weights.o, core.tiles)
            m.d.comb += [
                weights.restart.eq(host.restart | core.astray), weights.fresh.eq(host.new_stream),
                host.in_tile.eq(weights.inside),
            ]  # fmt: skip
        if self.params.streams:
            dropping = Signal()  # what stands at the port when its source begins anew
            with m.If(host.restart & host.new_stream):
                m.d.sync += dropping.eq(1)
            with m.Elif(~core.busy):
                m.d.sync += dropping.eq(0)
            m.d.comb += [
                core.acts_in.valid.eq(self.s_axis_acts.tvalid & ~dropping),
                core.acts_in.payload.eq(self.s_axis_acts.tdata),
                self.s_axis_acts.tready.eq(core.acts_in.ready | dropping),
                self.m_axis_acts.tvalid.eq(core.acts_out.valid), self.m_axis_acts.tdata.eq(core.acts_out.p.data),
                self.m_axis_acts.tlast.eq(core.acts_out.p.last), core.acts_out.ready.eq(self.m_axis_acts.tready),
            ]  # fmt: skip
        return m
