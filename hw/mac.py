"""Multiply-accumulate with two accumulator banks and a bypass."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import ACT_BITS, WEIGHT_BITS
from hw.params import Params
from hw.sram import Sram
from hw.streams import drain_request, product_operands, tag

__all__ = ["Mac"]


class Mac(wiring.Component):
    """Add products to accumulators, one a cycle, also onto the same accumulator in successive cycles.

    Two banks: while one is written back and cleared, entries of the next layer add to the other. The bank
    travels with each entry, so layers may follow one another without waiting for the slowest PE.

    Numerics: int16 × int16 = int32 product, exact; the sum wraps modulo ``2**acc_bits``.

    Timing: a sum is written 1 cycle after its operands arrive. ``sum`` follows ``drain.slot`` by 1 cycle.
    Bypass: the accumulator is read in the cycle in which the entry before it writes; if it is the same
    one, the sum just written is used instead of the memory's answer. The entry before that has left.

    Members
    -------
    i : operands (always ready).
    done, done_tag : the last entry of a column was written in this cycle, and what the column belonged to.
    drain : write-back's read and clear requests; it only touches a bank that no entry is on its way to.
    sum : accumulator that `drain` asked for, int`acc_bits`.

    Source: EIE section IV, "Arithmetic Unit" (bypass) and "Activation Read/Write" (two banks).
    """

    LATENCY = 1

    def __init__(self, params: Params) -> None:
        self.params = params
        self.banks = [Sram(params.acc_bits, params.rows) for _ in range(2)]
        super().__init__({
            "i": In(stream.Signature(product_operands(params), always_ready=True)),
            "done": Out(1), "done_tag": Out(tag(params)),
            "drain": In(drain_request(params)),
            "sum": Out(signed(params.acc_bits)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        params = self.params
        m.submodules.bank_0, m.submodules.bank_1 = self.banks
        product = Signal(signed(WEIGHT_BITS + ACT_BITS))
        valid = Signal()
        last = Signal()
        held = Signal(tag(params))
        bank = held.bank
        row = Signal(params.row_bits)
        forward = Signal()
        previous = Signal(signed(params.acc_bits))
        stored = Signal(signed(params.acc_bits))
        total = Signal(signed(params.acc_bits))

        m.d.sync += [
            product.eq(self.i.p.weight.raw.as_signed() * self.i.p.act.as_signed()),
            valid.eq(self.i.valid), last.eq(self.i.p.last), held.eq(self.i.p.tag), row.eq(self.i.p.row),
            forward.eq(valid & (row == self.i.p.row) & (bank == self.i.p.tag.bank)),
            previous.eq(total),
        ]  # fmt: skip
        m.d.comb += [
            stored.eq(Mux(bank, self.banks[1].r_data, self.banks[0].r_data)),
            total.eq(Mux(forward, previous, stored) + product),  # the carry out is dropped: sums wrap
            self.done.eq(valid & last), self.done_tag.eq(held),
        ]  # fmt: skip

        drained = Signal()
        m.d.sync += drained.eq(self.drain.bank)
        m.d.comb += self.sum.eq(Mux(drained, self.banks[1].r_data, self.banks[0].r_data))
        for n, memory in enumerate(self.banks):
            draining = self.drain.bank == n
            # Reading an accumulator in the cycle that writes it is what `forward` is for: no read then.
            clash = valid & (bank == n) & (row == self.i.p.row)
            with m.If(self.i.valid & (self.i.p.tag.bank == n)):
                m.d.comb += [memory.r_en.eq(~clash), memory.r_addr.eq(self.i.p.row)]
            with m.Elif(draining):
                m.d.comb += [memory.r_en.eq(1), memory.r_addr.eq(self.drain.slot)]
            with m.If(valid & (bank == n)):
                m.d.comb += [memory.w_en.eq(1), memory.w_addr.eq(row), memory.w_data.eq(total)]
            with m.Else():
                m.d.comb += [
                    memory.w_en.eq((self.drain.clear & draining) | self.drain.clear_all),
                    memory.w_addr.eq(self.drain.clear_slot),
                    memory.w_data.eq(0),
                ]
        return m
