"""Write-back: finished sums of up to eight PEs to int16 activations, as the output table says."""

from __future__ import annotations

from itertools import pairwise

from amaranth import Elaboratable, Module, Mux, ResetInserter, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import ACT_BITS, Join, output_word
from hw.params import LANES, Params
from hw.sram import Sram

__all__ = ["Writeback"]


class Writeback(wiring.Component):
    """Output table, joining, requantization and saturation for one group of PEs, one accumulator a cycle.

    Each word of the table names one accumulator of one PE, which is read and cleared.

    Numerics: sums wrap modulo ``2**acc_bits``. START: ``total = sum + bias``; ADD: ``total = total + sum``; MAX:
    ``total = max(total, sum + bias)``. With ``last``: ``+ 2**(shift - 1)`` (nothing for shift 0) without overflow;
    arithmetic shift right; limit to ``low`` … ``high``, which are int16, so this saturates as well. Adding the bias
    here instead of starting the accumulator at it gives the same bits, since sums wrap, and saves a pass over the bank.

    Timing, from the cycle t in which the table is addressed: accumulator t + 2, its sum t + 3 (cleared then), bias
    t + 4, joined t + 5, shifted t + 6, limited t + 7, into the vector t + 8, which is handed out in t + `LATENCY`.

    Members
    -------
    read, address : take this word of the table. low, high : of the tile, constant while its words are under way.
    slot : accumulator to read in each PE of the group. sums : of each PE, 1 cycle later.
    clear, clear_slot : for each PE, clear this accumulator.
    o : a finished activation vector (always ready), lanes not written are zero.
    saturated : an output of this cycle did not fit int16 (below: only if `low` is negative; else it counts as limited).
    w_en, w_addr, w_data : host write port of the output table.
    restart : synchronous reset; an activation vector on its way would otherwise be written over the next run's input.
    """

    LATENCY = 9

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__(self.ports(params))

    @staticmethod
    def ports(params: Params) -> wiring.Signature:
        address = range(params.output_words)
        return wiring.Signature({
            "read": In(1), "address": In(address), "low": In(signed(ACT_BITS)), "high": In(signed(ACT_BITS)),
            "slot": Out(params.row_bits), "sums": In(signed(params.acc_bits)).array(params.group),
            "clear": Out(params.group), "clear_slot": Out(params.row_bits),
            "o": Out(stream.Signature(data.ArrayLayout(ACT_BITS, LANES), always_ready=True)),
            "saturated": Out(1),
            "w_en": In(1), "w_addr": In(address), "w_data": In(output_word(params).size),
            "restart": In(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        params = self.params
        layout = output_word(params)
        m.submodules.memory = memory = self.memory = Sram(layout.size, params.output_words)
        m.d.comb += [
            memory.w_en.eq(self.w_en), memory.w_addr.eq(self.w_addr), memory.w_data.eq(self.w_data),
            memory.r_en.eq(self.read), memory.r_addr.eq(self.address),
        ]  # fmt: skip

        # words[n], valid[n]: what the stage of cycle t + n works on.
        words = {n: Signal(layout, name=f"word_{n}") for n in range(2, 9)}
        valid = {n: Signal(name=f"valid_{n}") for n in range(1, 9)}
        m.d.sync += [valid[1].eq(self.read), words[2].eq(memory.r_data)]
        m.d.sync += [late.eq(early) for early, late in pairwise(valid.values())]
        m.d.sync += [late.eq(early) for early, late in pairwise(words.values())]

        # 2: the accumulator is read, 3: the PE is picked and its accumulator cleared. One cycle apart, so that the
        # memory is not read where it is written.
        raw = Signal(signed(params.acc_bits))
        m.d.comb += [
            self.slot.eq(words[2].slot), self.clear_slot.eq(words[3].slot),
            self.clear.eq(valid[3] << words[3].pe),
        ]  # fmt: skip
        with m.Switch(words[3].pe):
            for pe in range(params.group):
                with m.Case(pe):
                    m.d.sync += raw.eq(self.sums[pe])

        # 4: bias, 5: join. Both wrap.
        addend, total = Signal(signed(params.acc_bits)), Signal(signed(params.acc_bits))
        adds = words[4].join == Join.ADD
        m.d.sync += addend.eq(raw + Mux(adds, 0, words[4].bias.as_signed()))
        with m.Switch(Value.cast(words[5].join)):
            with m.Case(Join.ADD.value):
                m.d.sync += total.eq(total + addend)
            with m.Case(Join.MAX.value):
                m.d.sync += total.eq(Mux(total > addend, total, addend))
            with m.Default():
                m.d.sync += total.eq(addend)

        # 6: round and shift, 7: limit.
        rounded, shifted = Signal(signed(params.acc_bits + 1)), Signal(signed(params.acc_bits + 1))
        half = Signal(31)
        limited = Signal(signed(ACT_BITS))
        least, most = -(1 << (ACT_BITS - 1)), (1 << (ACT_BITS - 1)) - 1
        m.d.sync += half.eq(Mux(words[5].shift == 0, 0, (1 << words[5].shift) >> 1))  # of the word in stage 6
        m.d.comb += [
            rounded.eq(total + half),
            self.saturated.eq(
                valid[7] & words[7].last & ((shifted > most) | ((shifted < least) & (self.low < 0)))
            ),
        ]  # fmt: skip
        m.d.sync += shifted.eq(rounded >> words[6].shift)
        m.d.sync += limited.eq(Mux(shifted > self.high, self.high, Mux(shifted < self.low, self.low, shifted)))

        # 8: into the vector, which begins anew when it is handed out.
        acts = Signal(data.ArrayLayout(ACT_BITS, LANES))
        flush = Signal()
        for lane in range(LANES):
            with m.If(valid[8] & words[8].last & (words[8].lane == lane)):
                m.d.sync += acts[lane].eq(limited)
            with m.Elif(flush):
                m.d.sync += acts[lane].eq(0)
        m.d.sync += flush.eq(valid[8] & words[8].flush)
        m.d.comb += [self.o.valid.eq(flush), self.o.payload.eq(acts)]
        return ResetInserter(self.restart)(m)
