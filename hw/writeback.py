"""Write-back: finished sums of up to eight PEs to int16 activations."""

from __future__ import annotations

from itertools import pairwise

from amaranth import Elaboratable, Module, Mux, ResetInserter, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import ACT_BITS
from hw.params import LANES, Params
from hw.sram import Sram
from hw.streams import drain_step

__all__ = ["Writeback"]


class Writeback(wiring.Component):
    """Bias, activation function, requantization and saturation for one group of PEs, one accumulator a cycle.

    An output is the sum of successive accumulators, from `first` to `last`: one, or the fragments of a split row.

    Numerics: ``total = wrap(sums + bias, acc_bits)``; ReLU or nothing; ``+ 2**(shift - 1)`` (nothing for
    shift 0) without overflow; arithmetic shift right; saturate to int16. Adding the bias here instead of
    starting the accumulator at it gives the same bits, since sums wrap, and saves a pass over the bank.

    Timing: an activation vector is written 4 cycles after the step that completes it (`flush`).

    Members
    -------
    i : steps (always ready); ``sums`` belongs to the same cycle.
    sums : accumulator of each PE of the group.
    o : a finished activation vector (always ready), lanes not written are zero.
    saturated : an output of this cycle did not fit int16.
    w_en, w_addr, w_data : host write port of the bias memory.
    restart : synchronous reset; an activation vector on its way would otherwise be written over the next run's input.
    """

    LATENCY = 4

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__(self.ports(params))

    @staticmethod
    def ports(params: Params) -> wiring.Signature:
        return wiring.Signature({
            "i": In(stream.Signature(drain_step(params), always_ready=True)),
            "sums": In(signed(params.acc_bits)).array(params.group),
            "o": Out(stream.Signature(data.ArrayLayout(ACT_BITS, LANES), always_ready=True)),
            "saturated": Out(1),
            "w_en": In(1), "w_addr": In(range(params.bias_words)), "w_data": In(params.acc_bits),
            "restart": In(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        params = self.params
        m.submodules.memory = memory = self.memory = Sram(params.acc_bits, params.bias_words)
        steps = [self.i.payload, *(Signal(drain_step(params), name=f"step_{n}") for n in range(1, 4))]
        valid = [self.i.valid, *(Signal(name=f"valid_{n}") for n in range(1, 4))]
        m.d.sync += [valid[1].eq(valid[0]), valid[2].eq(valid[1]), valid[3].eq(valid[2] & steps[2].last)]
        m.d.sync += [late.eq(early) for early, late in pairwise(steps)]
        m.d.comb += [
            memory.w_en.eq(self.w_en), memory.w_addr.eq(self.w_addr), memory.w_data.eq(self.w_data),
            memory.r_en.eq(self.i.valid), memory.r_addr.eq(self.i.p.bias),
        ]  # fmt: skip

        # Cycle 0: pick the PE. 1: add the bias, or what the row has so far. 2: function and shift. 3: saturate.
        raw = Signal(signed(params.acc_bits))
        total = Signal(signed(params.acc_bits))
        with m.Switch(steps[0].pe):
            for pe in range(params.group):
                with m.Case(pe):
                    m.d.sync += raw.eq(self.sums[pe])
        m.d.sync += total.eq(raw + Mux(steps[1].first, memory.r_data.as_signed(), total))  # wraps

        rectified = Signal(signed(params.acc_bits))
        rounded = Signal(signed(params.acc_bits + 1))
        scaled = Signal(signed(params.acc_bits + 1))
        half = Signal(31)
        m.d.comb += [
            rectified.eq(Mux(steps[2].relu & (total < 0), 0, total)),
            half.eq(Mux(steps[2].shift == 0, 0, (1 << steps[2].shift) >> 1)),
            rounded.eq(rectified + half),
        ]  # fmt: skip
        m.d.sync += scaled.eq(rounded >> steps[2].shift)

        result = Signal(ACT_BITS)
        low, high = -(1 << (ACT_BITS - 1)), (1 << (ACT_BITS - 1)) - 1
        m.d.comb += result.eq(scaled)
        with m.If(scaled > high):
            m.d.comb += [result.eq(high), self.saturated.eq(valid[3])]
        with m.Elif(scaled < low):
            m.d.comb += [result.eq(low), self.saturated.eq(valid[3])]

        acts = Signal(data.ArrayLayout(ACT_BITS, LANES))
        flush = Signal()
        with m.If(valid[3]):
            for lane in range(LANES):
                with m.If(steps[3].lane == lane):
                    m.d.sync += acts[lane].eq(result)
                with m.Elif(steps[3].lane == 0):
                    m.d.sync += acts[lane].eq(0)
        m.d.sync += flush.eq(valid[3] & steps[3].flush)
        m.d.comb += [self.o.valid.eq(flush), self.o.payload.eq(acts)]
        return ResetInserter(self.restart)(m)
