"""Write-back: what docs/numerics.md says of sums, rounding and limits, word for word."""

from __future__ import annotations

from typing import Any

from amaranth import Mux, Signal, Value, signed
from amaranth.lib import data

import hw.writeback
from hw.layouts import ACT_BITS, Join, output_word
from hw.params import LANES, Params
from hw.sram import Sram
from hw.writeback import Writeback
from sim.formal.claim import INDUCTION, Claim
from sim.formal.cut import free_block, replaced
from sim.formal.planted import planted
from sim.formal.sheet import Sheet

__all__ = ["CLAIMS"]

PARAMS = Params(
    pes=2, rows=2, weight_words=2, pointer_blocks=2, act_lines=2, output_words=2, codebooks=1, descriptors=2, tables=0,
    acc_bits=33, elementwise=False, streams=False, refill=False,
)  # fmt: skip


def arithmetic(s: Sheet, kind: Any) -> None:
    """Words of any content, one a cycle or fewer, and the vectors that they make."""
    bits = PARAMS.acc_bits
    layout = output_word(PARAMS)
    with replaced(hw.writeback, "Sram", free_block(Sram)):
        dut = s.add(kind(PARAMS), driven=("restart", "low", "high"), built=True)
    low, high = s.constant(signed(ACT_BITS), "low"), s.constant(signed(ACT_BITS), "high")
    s.m.d.comb += [dut.low.eq(low), dut.high.eq(high)]
    s.given(low <= high)
    m = s.m

    # A word is addressed in cycle t; it stands at the memory's output in t + 1, the sum of its PE in t + 3.
    read = s.past(dut.read, 5)
    word = data.View(layout, s.past(dut.memory.r_data, 4))
    sums = [s.past(each, 2).as_signed() for each in dut.sums]
    s.given(data.View(layout, dut.memory.r_data).pe < PARAMS.group)
    chosen = Signal(signed(bits))
    m.d.comb += chosen.eq(sums[0])
    for n, each in enumerate(sums):
        with m.If(word.pe == n):
            m.d.comb += chosen.eq(each)

    # Cycle t + 5: step 1 of a layer (sums wrap), and the joins of the output table.
    before, total = Signal(signed(bits)), Signal(signed(bits))
    biased = Signal(signed(bits))
    m.d.comb += biased.eq(chosen + word.bias.as_signed())
    with m.Switch(Value.cast(word.join)):
        with m.Case(Join.ADD.value):
            m.d.comb += total.eq(before + chosen)
        with m.Case(Join.MAX.value):
            m.d.comb += total.eq(Mux(before > biased, before, biased))
        with m.Default():
            m.d.comb += total.eq(biased)
    m.d.sync += before.eq(total)
    s.must(s.inner("total") == before, "sums are joined as the words say, and wrap")

    # Cycle t + 8: steps 3 and 4. q = floor((r + h) / 2**shift), by what a floor is; then the limits.
    r = s.past(before, 2).as_signed()
    last, shift = s.past(word.last, 3), s.past(word.shift, 3)
    half, unit = Signal(32), Signal(33)
    m.d.comb += [unit.eq(1 << shift), half.eq(Mux(shift == 0, 0, unit >> 1))]
    exact = Signal(signed(bits + 2))
    m.d.comb += exact.eq(r + half)
    out = s.inner("limited")
    wide = bits + ACT_BITS + 2

    def at_least(q: Value) -> Value:
        """Whether q is no more than the floor: q * 2**shift <= r + h."""
        scaled = Signal(signed(wide + 1))
        m.d.comb += scaled.eq(q << shift)
        return scaled <= exact

    result = s.past(read, 3) & last
    s.must(~result | ((low <= out) & (out <= high)), "results lie within the limits")
    s.must(~result | (out == low) | at_least(out), "a result above the lower limit is not more than the floor")
    s.must(~result | (out == high) | ~at_least(out + 1), "a result below the upper limit is not less than the floor")
    too_much, too_little = at_least(Value.cast(1 << (ACT_BITS - 1))), ~at_least(Value.cast(-(1 << (ACT_BITS - 1))))
    s.must(
        s.past(dut.saturated) == (result & (too_much | (too_little & (low < 0)))),
        "what did not fit int16 is counted, once",
    )

    # Cycle t + 9: lanes of the vector.
    lane, flush = s.past(word.lane, 3), s.past(word.flush & read, 4)
    acts = Signal(data.ArrayLayout(ACT_BITS, LANES), name="vector")
    whole = Signal(data.ArrayLayout(ACT_BITS, LANES), name="whole")
    m.d.comb += whole.eq(acts)
    with m.If(result):
        m.d.comb += whole[lane].eq(out)
    m.d.sync += acts.eq(Mux(s.past(word.flush & read, 3), 0, whole.as_value()))
    s.must(Mux(flush, 0, Value.cast(s.inner("acts"))) == acts.as_value(), "inside: the vector so far")
    s.must(dut.o.valid == flush, "a vector is handed out 9 cycles after its word, and only then")
    s.must(
        ~dut.o.valid | (dut.o.payload.as_value() == s.past(whole.as_value())), "lanes hold their results, others zero"
    )

    # Each accumulator that is read is cleared, in its own PE.
    early = data.View(layout, s.past(dut.memory.r_data, 2))
    s.must(
        dut.clear == Mux(s.past(dut.read, 3), 1 << early.pe, 0), "the accumulator that was read is cleared, no other"
    )
    s.must(~s.past(dut.read, 3) | (dut.clear_slot == early.slot), "its slot is that of the word")
    s.must(~s.past(dut.read) | (dut.slot == data.View(layout, dut.memory.r_data).slot), "a word's slot is read")
    s.reach(result & (shift == 3) & (out == -5) & (exact == -37), "a negative number is rounded")
    s.reach(result & (out == high) & (high == 9) & too_much, "one is saturated")
    s.reach(dut.o.valid & (dut.o.payload[2] == 7) & (dut.o.payload[5] == 8), "a vector of two lanes")
    s.reach(result & (word.join == Join.ADD) & s.past(word.join == Join.MAX), "all kinds of joins")


CLAIMS = (
    Claim(
        "writeback-arithmetic",
        "Writeback",
        "Sums wrap, join, are rounded and limited as docs/numerics.md says, for all "
        "sums, biases, shifts and limits; each lane has its result; each accumulator that is read is cleared.",
        arithmetic,
        Writeback,
        {
            "halves are rounded down": lambda: planted(
                Writeback, "(1 << words[5].shift) >> 1", "((1 << words[5].shift) >> 1) - 1"
            ),
            "the half is the next word's": lambda: planted(
                Writeback, "(1 << words[5].shift) >> 1", "(1 << words[4].shift) >> 1"
            ),
            "rounding wraps": lambda: planted(
                Writeback,
                "Signal(signed(params.acc_bits + 1)), Signal(signed(params.acc_bits + 1))",
                "Signal(signed(params.acc_bits)), Signal(signed(params.acc_bits + 1))",
            ),
            "the bias is added to a part": lambda: planted(
                Writeback, "Mux(adds, 0, words[4].bias.as_signed())", "words[4].bias.as_signed()"
            ),
            "a lane keeps the last vector's result": lambda: planted(Writeback, "m.d.sync += acts[lane].eq(0)", "pass"),
        },
        engine=INDUCTION,
        depth=12,
        bug_depth=14,
        cover_depth=16,
    ),
)
