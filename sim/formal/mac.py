"""Multiply-accumulate: a sum of any accumulator, over all distances between its products."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Const, Instance, Module, Mux, Signal, Value, signed

import hw.mac
from hw.layouts import ACT_BITS, WEIGHT_BITS
from hw.mac import Mac
from hw.near_ram import NearRam
from hw.params import Params
from hw.sram import Sram
from sim.formal.claim import INDUCTION, Claim
from sim.formal.cut import replaced
from sim.formal.planted import planted
from sim.formal.sheet import Sheet

__all__ = ["CLAIMS"]

PARAMS = Params(
    pes=1, rows=2, queue_depth=8, weight_words=2, pointer_blocks=2, act_lines=2, output_words=2, codebooks=1,
    descriptors=2, tables=0, acc_bits=33, elementwise=False, streams=False, refill=False,
)  # fmt: skip


class OpenSram(Sram):
    """A memory whose words can be looked at; what is read while it is written may be anything."""

    def elaborate(self, platform: object) -> Module:
        """Words as registers, and the register behind them."""
        m = Module()
        self.words = [Signal(self.width, name=f"word_{n}") for n in range(self.depth)]
        unknown = Signal(self.width)
        m.submodules += Instance("$anyseq", p_WIDTH=self.width, o_Y=unknown)
        with m.If(self.r_en):
            clash = self.w_en & (self.w_addr == self.r_addr)
            m.d.sync += self.r_data.eq(Mux(clash, unknown, Array(self.words)[self.r_addr]))
        for n, word in enumerate(self.words):
            with m.If(self.w_en & (self.w_addr == n)):
                m.d.sync += word.eq(self.w_data)
        return m


class OpenNearRam(NearRam):
    """A memory read within a cycle whose words can be looked at."""

    def elaborate(self, platform: object) -> Module:
        """Words as registers."""
        m = Module()
        self.words = [Signal(self.width, name=f"word_{n}") for n in range(self.depth)]
        m.d.comb += self.r_data.eq(Array(self.words)[self.r_addr])
        for n, word in enumerate(self.words):
            with m.If(self.w_en & (self.w_addr == n)):
                m.d.sync += word.eq(self.w_data)
        return m


def accumulate(s: Sheet, kind: Any) -> None:
    """Entries in any cycle; a chosen accumulator is what its entries since it was cleared make of zero."""
    with replaced(hw.mac, "Sram", OpenSram), replaced(hw.mac, "NearRam", OpenNearRam):
        dut = s.add(kind(PARAMS), built=True)
    m, bits, entry, drain = s.m, PARAMS.acc_bits, dut.i.p, dut.drain
    bank, slot = s.constant(1, "bank"), s.constant(PARAMS.row_bits, "slot")

    # What control and the output table keep to: no bank is cleared that an entry is on its way to.
    late, late_bank, late_row = s.past(dut.i.valid), s.past(entry.tag.bank), s.past(entry.row)
    for under_way, of in ((dut.i.valid, entry.tag.bank), (late, late_bank)):
        s.given(~(under_way & (drain.clear_all | (drain.clear & (of == drain.bank)))))
    mine, late_mine = Signal(), Signal()  # an entry of the chosen accumulator arrives, is written
    m.d.comb += [
        mine.eq(dut.i.valid & (entry.tag.bank == bank) & (entry.row == slot)),
        late_mine.eq(late & (late_bank == bank) & (late_row == slot)),
    ]  # fmt: skip

    # The definition: an integer that products are added to, modulo 2**acc_bits, or the largest activation + 32768.
    value, before = Signal(bits), Signal(bits)
    maximum = dut.maximum.bit_select(bank, 1)
    act, lifted = entry.act.as_signed(), Signal(ACT_BITS)
    product = Signal(signed(ACT_BITS + WEIGHT_BITS))
    m.d.comb += [lifted.eq(act + (1 << (ACT_BITS - 1))), product.eq(entry.weight.raw.as_signed() * act)]
    m.d.sync += before.eq(value)
    with m.If(mine):
        m.d.sync += value.eq(Mux(maximum, Mux(lifted > value, lifted, value), value + product))
    with m.If((drain.clear_all | (drain.clear & (drain.bank == bank))) & (drain.clear_slot == slot)):
        m.d.sync += value.eq(0)
    # A bank takes sums or maxima from one clearing to the next.
    s.given((maximum == s.past(maximum)) | ((value == 0) & ~late_mine))

    words = [Value.cast(Array(memory.words)[slot]) for memory in dut.banks]
    if PARAMS.near:  # a word that was not written since it was cleared stands for zero
        words = [Mux(word[bits], word[:bits], 0) for word in words]
    stored = Mux(bank, words[1], words[0])
    s.must(~s.past(maximum) | ((value >> ACT_BITS) == 0), "inside: a maximum has 16 bits")
    s.must(late_mine | (stored == value), "the accumulator is what its entries make, in the cycle after the last one")
    total = s.inner("total")
    if PARAMS.near:
        s.must(~late_mine | (stored == before), "inside: what the one before made is in the memory")
        kept = late_mine & maximum & (value == before)
        s.must(~late_mine | kept | (total[:bits] == value), "what is written is what its entries make")
    else:
        s.must(~late_mine | (total[:bits] == value), "what is written is what its entries make, at every distance")
        s.must(~late_mine | (stored == before) | s.past(late_mine), "inside: what the last but one made is in memory")
        s.must(
            ~late_mine | ~s.past(late_mine) | (s.inner("previous")[:bits] == before), "inside: the bypass has the last"
        )

    asked = ~(dut.i.valid & (entry.tag.bank == bank)) & ~(late & (late_bank == bank)) & (drain.bank == bank)
    asked = asked & (drain.slot == slot) & ~(drain.clear & (drain.clear_slot == slot)) & ~drain.clear_all
    s.must(~s.past(asked) | (dut.sum.as_unsigned() == s.past(value)), "write-back is given the accumulator it asks for")
    s.must(dut.done == s.past(dut.i.valid & entry.last), "the last entry of a vector is said in the cycle of its write")
    s.must(~dut.done | (Value.cast(dut.done_tag) == s.past(Cat(Value.cast(entry.tag)))), "and what it belonged to")
    s.reach(late_mine & s.past(late_mine) & s.past(late_mine, 2) & (value != 0), "three entries, one behind the other")
    s.reach(s.past(asked) & (dut.sum == Const(-5, signed(bits))), "a sum is read")
    s.reach(maximum & late_mine & (value == 77) & s.past(maximum), "a maximum is taken")


CLAIMS = (
    Claim(
        "mac-accumulate",
        "Mac",
        "Any of few accumulators is the sum, modulo 2^acc_bits, or the maximum of its entries since it was cleared, "
        "however close they follow one another.",
        accumulate,
        Mac,
        {
            "what was cleared counts": lambda: planted(
                Mac, "Mux(used & ~takes_maximum,", "Mux(~takes_maximum,", "_near"
            ),
            "a maximum of what was cleared": lambda: planted(
                Mac, "~used | (product[:ACT_BITS] >", "(product[:ACT_BITS] >", "_near"
            ),
            "a maximum is added": lambda: planted(Mac, "Mux(used & ~takes_maximum,", "Mux(used,", "_near"),
            "a smaller value is the maximum": lambda: planted(Mac, "larger | ~takes_maximum", "1", "_near"),
            "both banks are cleared": lambda: planted(
                Mac, "self.drain.clear & (self.drain.bank == n)", "self.drain.clear", "_near"
            ),
            "the sum of the other bank": lambda: planted(
                Mac, "Mux(self.drain.bank, words", "Mux(bank, words", "_near", 2
            ),
            "an entry goes to the accumulator that is cleared": lambda: planted(
                Mac, "Mux(mine, row, self.drain.clear_slot)", "self.drain.clear_slot", "_near"
            ),
        },
        engine=INDUCTION,
        depth=3,
        bug_depth=10,
        cover_depth=10,
    ),
    Claim(
        "mac-accumulate-far",
        "Mac",
        "The same of more accumulators, behind a register; a read of a word that is written may give anything.",
        accumulate,
        Mac,
        {
            "no bypass": lambda: planted(Mac, "before.eq(Mux(forward, previous, stored))", "before.eq(stored)", "_far"),
            "the bypass forgets the bank": lambda: planted(Mac, " & (bank == entry.tag.bank)),", "),", "_far"),
            "the bypass forgets the row": lambda: planted(
                Mac, "valid & (row == entry.row) & (bank", "valid & (bank", "_far"
            ),
            "both banks are cleared": lambda: planted(Mac, "(self.drain.clear & draining)", "self.drain.clear", "_far"),
            "the sum of the other bank": lambda: planted(
                Mac, "drained.eq(self.drain.bank)", "drained.eq(bank)", "_far"
            ),
            "a maximum is added": lambda: planted(Mac, "Mux(takes_maximum, larger,", "Mux(0, larger,", "_far"),
            "a read of the bank takes the place of an entry's": lambda: planted(
                Mac,
                "[memory.r_en.eq(1), memory.r_addr.eq(self.drain.slot)]",
                "[memory.r_en.eq(0), memory.r_addr.eq(self.drain.slot)]",
                "_far",
            ),
        },
        engine=INDUCTION,
        depth=3,
        bug_depth=10,
        cover_depth=10,
        narrow={"hw.params.NEAR_WORDS": 0},
    ),
)
