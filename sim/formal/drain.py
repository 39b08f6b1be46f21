"""Drain: each word of a tile's output table, and so each of its accumulators, is read once and in order."""

from __future__ import annotations

from typing import Any

from amaranth import Mux, Signal

from hw.drain import Drain
from hw.function_table import FunctionTable
from hw.params import Params
from hw.writeback import Writeback
from sim.formal.claim import INDUCTION, Claim
from sim.formal.planted import planted
from sim.formal.sheet import Sheet

__all__ = ["CLAIMS"]

PARAMS = Params(
    pes=1, rows=2, weight_words=2, pointer_blocks=2, act_lines=6, output_words=12, codebooks=1, descriptors=2, tables=2,
)  # fmt: skip


def order(s: Sheet, kind: Any) -> None:
    """Tiles of any size in both banks, operations between them."""
    dut = s.add(kind(PARAMS), built=True)
    m = s.m
    tile = Mux(dut.bank, dut.tile[1].as_value(), dut.tile[0].as_value())
    outputs = Mux(dut.bank, dut.tile[1].outputs, dut.tile[0].outputs)
    words = Mux(dut.bank, dut.tile[1].words, dut.tile[0].words)
    functions = Mux(dut.bank, dut.tile[1].functions, dut.tile[0].functions)
    # What control keeps to: a tile and its place in the queue stand until they are written; descriptors are legal.
    seen = Signal()
    m.d.comb += seen.eq(dut.draining & s.past(~dut.draining))
    s.given(~dut.draining | (tile == s.past(tile)))
    s.given(~dut.draining | (dut.valid & ~dut.operation & dut.computed.bit_select(dut.bank, 1)))
    for each in dut.tile:
        s.given((each.words >= 1) & (each.outputs + each.words <= PARAMS.output_words))

    count = Signal(16)  # words of the tile that are read
    m.d.sync += count.eq(Mux(dut.draining & ~dut.written, count + dut.read, 0))
    s.must(~dut.read | dut.draining, "words are read for a tile only")
    s.must(~dut.read | (count < words), "no word is read after the last one")
    s.must(~dut.read | (dut.address == outputs + count), "words are read in the order of the table, each once")
    s.must(~dut.written | (count == words), "a tile is written when all its words are read")
    s.must(dut.draining | (count == 0), "inside: nothing is counted between tiles")
    s.must(~dut.draining | dut.read | (count == words), "a word a cycle from the first one on")
    s.must(~dut.read | (s.inner("left") == words - count), "inside: what is left")
    latency = Writeback.LATENCY + Mux(functions, FunctionTable.LATENCY, 0)
    age = Signal(5)  # cycles since the last word
    m.d.sync += age.eq(Mux(dut.read, 1, Mux(age == 31, 31, age + 1)))
    waits = dut.draining & ~dut.read
    s.must(~waits | (s.inner("flushing") == latency - age), "inside: cycles until the last line")
    s.must(~waits | (age <= latency), "inside: the last line has not been written")
    s.must(~dut.written | (age == latency), "a tile is written so many cycles after its last word")
    s.must(~dut.written | (dut.through & dut.draining), "what is written is a tile that is under way")
    s.must(
        (dut.bank ^ s.past(dut.bank)) == s.past(dut.written), "tiles are written in turn, from one bank and the other"
    )
    # Whatever is written lies in the memory, and a line is written, or is a fault, for each vector.
    s.must(~dut.write | (dut.line < PARAMS.act_lines), "nothing is written beyond the memory")
    s.must((dut.write | dut.fault) == dut.flush, "each vector is written, or is a fault")
    s.must(~(dut.start & dut.draining), "no operation begins while a tile is written")
    s.reach(dut.written & (words == 3) & (outputs == 2), "a tile of three words")
    s.reach(dut.start & s.past(dut.bank), "an operation after a tile")


CLAIMS = (
    Claim(
        "drain-order",
        "Drain",
        "Of each tile every word of its output table is read once, in order, one a cycle, and the tile is written so "
        "many cycles after the last one; tiles go in turn.",
        order,
        Drain,
        {
            "the last word is not read": lambda: planted(Drain, "with m.If(left == 1):", "with m.If(left <= 2):"),
            "a word too many": lambda: planted(Drain, "left.eq(tile.words)", "left.eq(tile.words + 1)"),
            "a word is read twice": lambda: planted(
                Drain, "self.address.eq(self.address + 1)", "self.address.eq(self.address + (left != 2))"
            ),
            "written a cycle early": lambda: planted(Drain, "m.If(flushing == 0)", "m.If(flushing == 1)"),
            "the bank stays": lambda: planted(Drain, "self.bank ^ self.draining", "self.bank"),
            "a line beyond the memory": lambda: planted(Drain, "self.flush & ~beyond", "self.flush"),
        },
        engine=INDUCTION,
        depth=3,
        bug_depth=24,
        cover_depth=30,
    ),
)
