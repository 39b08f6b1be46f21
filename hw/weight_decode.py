"""Weight decode: codebook lookup and absolute accumulator position of an entry."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import WEIGHT_BITS
from hw.params import Params
from hw.sram import Sram
from hw.streams import product_operands, selected_entry

__all__ = ["LOOKUP_WORDS", "WeightDecode"]

LOOKUP_WORDS = 256
"""Largest codebook memory that is made of lookup tables: sixteen codebooks of sixteen weights."""


class WeightDecode(wiring.Component):
    """Code to 16-bit weight, relative index to accumulator.

    Numerics: a relative index counts the rows skipped since the entry before (since the top for the first
    of a column), so ``row = (first ? 0 : previous row + 1) + index``. The tag of an entry names its codebook.

    Timing: ``o`` is valid 1 cycle after ``i``; one entry a cycle.

    Members
    -------
    i : entries (always ready).
    o : operands of the multiplier (always ready).
    w_en, w_addr, w_data : host write port of the codebook memory.

    Source: EIE section III and IV ("Arithmetic Unit": codebook lookup, index accumulation).
    """

    LATENCY = 1

    def __init__(self, params: Params) -> None:
        self.params = params
        words = params.codebooks << params.code_bits
        # The multiplier stands right behind it: an FPGA's block RAM would take most of that cycle. A big one would
        # not be faster out of lookup tables.
        style = "distributed" if words <= LOOKUP_WORDS else "auto"
        self.memory = Sram(WEIGHT_BITS, words, style, parity=params.parity)
        super().__init__({
            "i": In(stream.Signature(selected_entry(params), always_ready=True)),
            "o": Out(stream.Signature(product_operands(params), always_ready=True)),
            "w_en": In(1), "w_addr": In(len(self.memory.w_addr)), "w_data": In(WEIGHT_BITS),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        params = self.params
        m.submodules.memory = memory = self.memory
        following = Signal(params.row_bits)
        row = Signal(params.row_bits)
        m.d.comb += [
            row.eq(Mux(self.i.p.first, 0, following) + self.i.p.index),
            memory.w_en.eq(self.w_en), memory.w_addr.eq(self.w_addr), memory.w_data.eq(self.w_data),
            memory.r_en.eq(self.i.valid), memory.r_addr.eq(Cat(self.i.p.code, self.i.p.tag.codebook)),
            self.o.p.weight.raw.eq(memory.r_data),
        ]  # fmt: skip
        m.d.sync += [
            self.o.valid.eq(self.i.valid), self.o.p.act.eq(self.i.p.act), self.o.p.row.eq(row),
            self.o.p.tag.eq(self.i.p.tag), self.o.p.last.eq(self.i.p.last),
        ]  # fmt: skip
        with m.If(self.i.valid):
            m.d.sync += following.eq(row + 1)
        if params.parity:
            m.d.comb += memory.used.eq(self.o.valid)
        return m
