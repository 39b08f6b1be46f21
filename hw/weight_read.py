"""Weight read: words of eight entries from the weight memory, one entry a cycle to the decoder."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import ACT_BITS, entry, weight_word
from hw.params import LANES, Params
from hw.sram import Sram
from hw.streams import column, selected_entry, tag

__all__ = ["WeightRead"]


class WeightRead(wiring.Component):
    """Turn a column into its entries.

    The output register of the weight memory is the row buffer; the word after it is requested while its
    last entry is selected, so entries follow one another without a bubble, across words and columns.
    What to read next stands in a register (`next`), filled from the expander or from the rest of the column:
    the loop that decides whether a word is requested is one comparison long.

    Timing: the first entry of a column is selected `TAKE_TO_SELECT` cycles after the column is taken, or right after
    the last entry of the column before; ``o`` is valid 1 cycle after that. One entry a cycle. A column is taken while
    `next` is empty or in the cycle in which the last word of the column before is requested: column k, taken in
    J_k, requests its first word in max(J_k + 1, cycle in which the last entry of column k-1 is selected), and each
    other word in the cycle in which the last entry of the word before is selected.

    Members
    -------
    i : columns (at least one entry each).
    o : entries (always ready); ``first`` of its column, ``last`` of its vector.
    w_en, w_addr, w_data : host write port of the weight memory.

    Source: EIE section IV, "Sparse Matrix Read Unit".
    """

    TAKE_TO_SELECT = 2
    LATENCY = TAKE_TO_SELECT + 1

    def __init__(self, params: Params) -> None:
        self.params = params
        self.memory = Sram(weight_word(params).size, params.weight_words, parity=params.parity)
        super().__init__({
            "i": In(stream.Signature(column(params))),
            "o": Out(stream.Signature(selected_entry(params), always_ready=True)),
            "w_en": In(1), "w_addr": In(len(self.memory.w_addr)), "w_data": In(self.memory.width),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        params = self.params
        m.submodules.memory = memory = self.memory
        beside = data.StructLayout({"last": 1, "act": ACT_BITS, "tag": tag(params)})

        # The word to request next.
        next_valid = Signal()
        next_first = Signal()
        next_word = Signal(params.entry_address_bits - 3, reset_less=True)
        next_lane = Signal(3)
        next_take = Signal(4)
        next_rest = Signal(params.count_bits)  # entries of the column after that word
        next_more = Signal()  # there are some
        next_beside = Signal(beside, reset_less=True)

        # The word in the row buffer.
        left = Signal(4)
        few = Signal(init=1)  # the last entry of it is selected, or there is none: `left` is 0 or 1
        lane = Signal(3)
        first = Signal()
        more = Signal()  # `more`: the column goes on in another word
        now = Signal(beside, reset_less=True)

        issue = Signal()
        m.d.comb += [
            issue.eq(next_valid & few),
            memory.w_en.eq(self.w_en), memory.w_addr.eq(self.w_addr), memory.w_data.eq(self.w_data),
            memory.r_en.eq(issue), memory.r_addr.eq(next_word),
        ]  # fmt: skip

        with m.If(issue & next_more):
            following = Mux(next_rest > LANES, LANES, next_rest)
            m.d.sync += [
                next_word.eq(next_word + 1), next_lane.eq(0), next_first.eq(0),
                next_take.eq(following), next_rest.eq(next_rest - following), next_more.eq(next_rest > LANES),
            ]  # fmt: skip
        with m.Elif(issue | ~next_valid):
            m.d.comb += self.i.ready.eq(1)
            m.d.sync += [
                next_valid.eq(self.i.valid), next_word.eq(self.i.p.word), next_lane.eq(self.i.p.lane),
                next_first.eq(1), next_take.eq(self.i.p.take), next_rest.eq(self.i.p.count - self.i.p.take),
                next_more.eq(self.i.p.count != self.i.p.take),
                next_beside.last.eq(self.i.p.last), next_beside.act.eq(self.i.p.act), next_beside.tag.eq(self.i.p.tag),
            ]  # fmt: skip

        with m.If(issue):
            m.d.sync += [
                left.eq(next_take), few.eq(next_take <= 1), lane.eq(next_lane), first.eq(next_first),
                more.eq(next_more), now.eq(next_beside),
            ]  # fmt: skip
        with m.Elif(left != 0):
            m.d.sync += [left.eq(left - 1), few.eq(left <= 2), lane.eq(lane + 1), first.eq(0)]

        if params.parity:
            m.d.comb += memory.used.eq(left != 0)

        # One of four entries is selected in each half of the word, and between the halves behind the register: block
        # RAM is slow to answer.
        half_word = data.ArrayLayout(entry(params), LANES // 2)
        halves = [Signal(entry(params), name=f"half_{n}", reset_less=True) for n in range(2)]
        upper = Signal()
        m.d.sync += upper.eq(lane[2])
        for n, half in enumerate(halves):
            m.d.sync += half.eq(data.View(half_word, memory.r_data.word_select(n, half_word.size))[lane[:2]])
        selected = Signal(entry(params))
        m.d.comb += [
            selected.eq(Mux(upper, halves[1], halves[0])),
            self.o.p.code.eq(selected.code), self.o.p.index.eq(selected.index),
        ]  # fmt: skip
        m.d.sync += [
            self.o.valid.eq(left != 0),
            self.o.p.first.eq(first), self.o.p.last.eq((left == 1) & ~more & now.last),
            self.o.p.tag.eq(now.tag), self.o.p.act.eq(now.act),
        ]  # fmt: skip
        return m
