"""Write-back: finished sums of up to eight PEs to int16 activations, as the output table says."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from amaranth import Cat, Elaboratable, Module, Mux, ResetInserter, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.function_table import FunctionTable
from hw.lane_product import LaneProduct
from hw.layouts import ACT_BITS, Join, output_word, table_word
from hw.params import LANES, PIECES, Params
from hw.sram import Sram
from hw.streams import elementwise_job, function, lane_step, operand

__all__ = ["Writeback"]


class Writeback(wiring.Component):
    """Output table, joining, requantization and saturation for one group of PEs, one accumulator a cycle.

    Each word of the table names one accumulator of one PE, which is read and cleared. The products of an elementwise
    operation (`LaneProduct`) come in its place; what is done with them is the same.

    Numerics: sums wrap modulo ``2**acc_bits``. START: ``total = sum + bias``; ADD: ``total = total + sum``; MAX:
    ``total = max(total, sum + bias)``. With ``last``: ``+ 2**(shift - 1)`` (nothing for shift 0) without overflow;
    arithmetic shift right; limit to ``low`` … ``high``, which are int16, so this saturates as well. Adding the bias
    here instead of starting the accumulator at it gives the same bits, since sums wrap, and saves a pass over the bank.

    Timing, from the cycle t in which the table is addressed: accumulator t + 2, its sum t + 3 (cleared then), bias
    t + 4, joined t + 5, shifted t + 6, limited t + 7, into the vector t + 8, which is handed out in t + `LATENCY`.
    With ``functions``, `FunctionTable` comes before the vector: `FunctionTable.LATENCY` cycles more. A product stepped
    in cycle s goes the way of a word whose table is addressed in s - `STEP_AHEAD`.

    Members
    -------
    read, address : take this word of the table. low, high : of the tile, constant while its words are under way.
    slot : accumulator to read in each PE of the group, in the next cycle. sums : of each PE, 2 cycles later.
    clear, clear_slot : for each PE, clear this accumulator.
    o : a finished activation vector (always ready), lanes not written are zero.
    saturated : an output of this cycle did not fit int16 (below: only if `low` is negative; else it counts as limited).
    functions, function_1, function_2 : of the tile, as `low` (only with ``params.tables``).
    acts, put, step, job : see `LaneProduct` (only with ``params.elementwise``). Words and steps are not mixed.
    w_en, w_addr, w_data : host write port of the output table. t_en, t_addr, t_data : of the function tables.
    wrong : parity of a word that was used, of the output table, the function tables, the operands (only with
        ``params.parity``).
    restart : synchronous reset; an activation vector on its way would otherwise be written over the next run's input.
    """

    LATENCY = 9
    STEP_AHEAD = 1

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__(self.ports(params))

    @staticmethod
    def ports(params: Params) -> wiring.Signature:
        address = range(params.output_words)
        tables = {
            "functions": In(1), "function_1": In(function(params)), "function_2": In(function(params)),
            "t_en": In(1), "t_addr": In(range(params.tables * PIECES)), "t_data": In(table_word(params).size),
        } if params.tables else {}  # fmt: skip
        products = {
            "acts": In(ACT_BITS * LANES), "put": In(stream.Signature(operand(params), always_ready=True)),
            "step": In(stream.Signature(lane_step(params), always_ready=True)), "job": In(elementwise_job(params)),
        } if params.elementwise else {}  # fmt: skip
        return wiring.Signature({
            "read": In(1), "address": In(address), "low": In(signed(ACT_BITS)), "high": In(signed(ACT_BITS)),
            "slot": Out(params.row_bits), "sums": In(signed(params.acc_bits)).array(params.group),
            "clear": Out(params.group), "clear_slot": Out(params.row_bits),
            "o": Out(stream.Signature(data.ArrayLayout(ACT_BITS, LANES), always_ready=True)),
            "saturated": Out(1),
            "w_en": In(1), "w_addr": In(address), "w_data": In(output_word(params).size),
            "restart": In(1), **tables, **products, **({"wrong": Out(3)} if params.parity else {}),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        params = self.params
        layout = output_word(params)
        m.submodules.memory = memory = self.memory = Sram(layout.size, params.output_words, parity=params.parity)
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
            self.slot.eq(data.View(layout, memory.r_data).slot), self.clear_slot.eq(words[3].slot),
            self.clear.eq(valid[3] << words[3].pe),
        ]  # fmt: skip
        with m.Switch(words[3].pe):
            for pe in range(params.group):
                with m.Case(pe):
                    m.d.sync += raw.eq(self.sums[pe])

        # 4: bias, 5: join. Both wrap.
        addend, total = Signal(signed(params.acc_bits)), Signal(signed(params.acc_bits))
        term = Signal(signed(params.acc_bits))
        m.d.comb += term.eq(raw)
        if params.elementwise:
            self._products(m, words[4], valid[4], term)
        adds = words[4].join == Join.ADD
        m.d.sync += addend.eq(term + Mux(adds, 0, words[4].bias.as_signed()))
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

        # 8: into the vector, which begins anew when it is handed out; after the functions, if the tile has some.
        done, word, value = valid[8], words[8], limited
        if params.tables:
            done, word, value = self._functions(m, valid[8], words[8], limited)
        acts = Signal(data.ArrayLayout(ACT_BITS, LANES))
        flush = Signal()
        for lane in range(LANES):
            with m.If(done & word.last & (word.lane == lane)):
                m.d.sync += acts[lane].eq(value)
            with m.Elif(flush):
                m.d.sync += acts[lane].eq(0)
        m.d.sync += flush.eq(done & word.flush)
        m.d.comb += [self.o.valid.eq(flush), self.o.payload.eq(acts)]
        if params.parity:
            m.d.comb += [memory.used.eq(valid[1]), self.wrong[0].eq(memory.wrong)]
        return ResetInserter(self.restart)(m)

    def _products(self, m: Module, word: Any, valid: Signal, term: Signal) -> None:
        """Products and what becomes of them, from stage 4 on."""
        m.submodules.product = product = self.product = LaneProduct(self.params)
        m.d.comb += [
            product.acts.eq(self.acts), product.put.valid.eq(self.put.valid), product.put.payload.eq(self.put.payload),
            product.step.valid.eq(self.step.valid), product.step.payload.eq(self.step.payload),
            product.job.eq(self.job),
        ]  # fmt: skip
        if self.params.parity:
            m.d.comb += self.wrong[2].eq(product.wrong)
        steps = [self.step.payload]
        made = Signal(LaneProduct.LATENCY)  # bit n: a step of n + 1 cycles ago
        m.d.sync += made.eq(Cat(self.step.valid, made))
        for n in range(1, LaneProduct.LATENCY):
            steps.append(Signal(lane_step(self.params), name=f"step_{n}"))
            m.d.sync += steps[n].eq(steps[n - 1])
        step = steps[-1]
        with m.If(made[-2]):
            m.d.sync += [
                valid.eq(1), word.bias.eq(self.job.offset), word.shift.eq(self.job.shift), word.lane.eq(step.lane),
                Value.cast(word.join).eq(Mux(step.second, Join.ADD.value, Join.START.value)), word.last.eq(step.last),
                word.flush.eq(step.flush), word.function.eq(1),
            ]  # fmt: skip
        with m.If(made[-1]):
            m.d.comb += term.eq(product.product)

    def _functions(self, m: Module, valid: Signal, word: Any, value: Signal) -> tuple[Value, Any, Value]:
        """Valid, word and value for the vector: at once, or of `FunctionTable.LATENCY` cycles ago."""
        m.submodules.lookup = table = self.table = FunctionTable(self.params)  # `table` is a word of Verilog
        m.d.comb += [
            table.value.eq(value), table.which.eq(word.function),
            table.function_1.eq(self.function_1), table.function_2.eq(self.function_2),
            table.w_en.eq(self.t_en), table.w_addr.eq(self.t_addr), table.w_data.eq(self.t_data),
        ]  # fmt: skip
        if self.params.parity:
            m.d.comb += [
                table.valid.eq(valid & word.last & self.functions), self.wrong[1].eq(table.memory.wrong),
            ]  # fmt: skip
        kept = data.StructLayout({"valid": 1, "lane": 3, "last": 1, "flush": 1})
        late = [Signal(kept, name=f"late_{n}") for n in range(FunctionTable.LATENCY)]
        m.d.sync += [
            late[0].valid.eq(valid & self.functions), late[0].lane.eq(word.lane), late[0].last.eq(word.last),
            late[0].flush.eq(word.flush), *(b.eq(a) for a, b in pairwise(late)),
        ]  # fmt: skip
        chosen, result = Signal(kept), Signal(signed(ACT_BITS))
        m.d.comb += [
            chosen.valid.eq(valid), chosen.lane.eq(word.lane), chosen.last.eq(word.last), chosen.flush.eq(word.flush),
            result.eq(value),
        ]  # fmt: skip
        with m.If(self.functions):
            m.d.comb += [chosen.eq(late[-1]), result.eq(table.result)]
        return chosen.valid, chosen, result
