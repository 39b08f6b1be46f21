"""Drain: walks the accumulators of a finished layer and steers all write-back groups in lockstep."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import Function
from hw.params import LANES, Params
from hw.streams import drain_request, drain_step, layer_output
from hw.writeback import Writeback

__all__ = ["Drain"]


class Drain(wiring.Component):
    """Write the layers back in the order in which they were accepted, each while the next is computed.

    Slot by slot, PE by PE of each group: one accumulator a cycle and group, ``slots * group`` cycles a layer.
    In the last ``fragment_slots`` slots ``2**fragment_log2`` neighbours make one output.
    A slot is cleared behind the reader, so the bank is zero when it is released.

    Timing: the first accumulator is read 1 cycle after ``computed`` is seen; the last activation vector of a layer is
    written `FLUSH` cycles after its last accumulator is read, in the cycle of ``written``.

    Members
    -------
    computed : for each bank, its layer's sums are complete (stays high until ``written``).
    layer : for each bank, where its outputs go and how.
    request : to the accumulators of all PEs. step : to the write-back groups (one cycle after).
    write : an activation vector is written in this cycle by every group, at `line`.
    draining : write-back is under way: all lines of the layer in `bank` before `line` are written.
    written, bank : the last activation vector of the layer in `bank` is written in this cycle.
    """

    FLUSH = 1 + Writeback.LATENCY

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__({
            "computed": In(2), "layer": In(layer_output(params)).array(2),
            "request": Out(drain_request(params)),
            "step": Out(stream.Signature(drain_step(params), always_ready=True)),
            "write": In(1), "line": Out(16),
            "draining": Out(1),
            "written": Out(1), "bank": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layer = Signal(layer_output(self.params))
        slot = Signal(16)
        pe = Signal(3)
        lane = Signal(3)
        bias = Signal(16)
        flushing = Signal(range(self.FLUSH))
        reading = Signal()
        last_pe = Signal()
        last = Signal()
        others = Signal(3)  # bits of the PE number within the run of PEs that share an output
        ends = Signal()  # an output ends with this PE
        m.d.comb += [
            layer.eq(Mux(self.bank, self.layer[1], self.layer[0])),
            last_pe.eq(pe == self.params.group - 1),
            last.eq(last_pe & (slot + 1 == layer.slots)),
            ends.eq((pe & others) == others),
            self.request.bank.eq(self.bank), self.request.slot.eq(slot),
        ]  # fmt: skip
        m.d.sync += [
            self.step.valid.eq(reading),
            self.step.p.pe.eq(pe), self.step.p.lane.eq(lane), self.step.p.bias.eq(bias),
            self.step.p.first.eq((pe & others) == 0), self.step.p.last.eq(ends),
            self.step.p.flush.eq(ends & ((lane == LANES - 1) | last)),
            self.step.p.shift.eq(layer.shift), self.step.p.relu.eq(layer.function == Function.RELU),
            # One cycle behind the reader, which is then at another slot: no accumulator is read and
            # cleared in the same cycle.
            self.request.clear.eq(reading & last_pe), self.request.clear_slot.eq(slot),
        ]  # fmt: skip
        with m.If(self.write):
            m.d.sync += self.line.eq(self.line + 1)
        with m.If(slot >= layer.slots - layer.fragment_slots):
            m.d.comb += others.eq((1 << layer.fragment_log2) - 1)

        with m.FSM():
            with m.State("Idle"):
                with m.If(self.computed.bit_select(self.bank, 1)):
                    m.d.sync += [
                        slot.eq(0), pe.eq(0), lane.eq(0), bias.eq(layer.bias),
                        self.line.eq(layer.destination), self.draining.eq(1),
                    ]  # fmt: skip
                    m.next = "Read"
            with m.State("Read"):
                m.d.comb += reading.eq(1)
                m.d.sync += pe.eq(pe + 1)
                with m.If(ends):
                    m.d.sync += [lane.eq(lane + 1), bias.eq(bias + 1)]
                with m.If(last_pe):
                    m.d.sync += [pe.eq(0), slot.eq(slot + 1)]
                with m.If(last):
                    m.d.sync += flushing.eq(self.FLUSH - 1)
                    m.next = "Flush"
            with m.State("Flush"):
                m.d.sync += flushing.eq(flushing - 1)
                with m.If(flushing == 0):
                    m.d.comb += self.written.eq(1)
                    m.d.sync += [self.bank.eq(~self.bank), self.draining.eq(0)]
                    m.next = "Idle"
        return m
