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
    """Code to 16-bit weight, relative index to accumulator and activation.

    Numerics: a relative index counts the rows skipped since the entry before (since the top for the first
    of a column), so ``row = (first ? 0 : previous row + 1) + index``. In a folded layer these are virtual rows,
    ``2 * row + s``: `s` selects the activation of the column that the entry is multiplied with.

    Timing: ``o`` is valid 1 cycle after ``i``; one entry a cycle.

    Members
    -------
    i : entries (always ready).
    o : operands of the multiplier (always ready).
    codebook : number of the codebook that each of the two banks uses. fold : whether its layer is folded.
    w_en, w_addr, w_data : host write port of the codebook memory.

    Source: EIE section III and IV ("Arithmetic Unit": codebook lookup, index accumulation).
    """

    LATENCY = 1

    def __init__(self, params: Params) -> None:
        self.params = params
        words = params.codebooks << params.code_bits
        # The multiplier stands right behind it: an FPGA's block RAM would take most of that cycle. A big one would
        # not be faster out of lookup tables.
        self.memory = Sram(WEIGHT_BITS, words, "distributed" if words <= LOOKUP_WORDS else "auto")
        super().__init__({
            "i": In(stream.Signature(selected_entry(params), always_ready=True)),
            "o": Out(stream.Signature(product_operands(params), always_ready=True)),
            "codebook": In(4).array(2), "fold": In(2),
            "w_en": In(1), "w_addr": In(len(self.memory.w_addr)), "w_data": In(WEIGHT_BITS),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        params = self.params
        m.submodules.memory = memory = self.memory
        virtual_bits = params.row_bits + params.fold - 1
        following = Signal(virtual_bits)
        row = Signal(virtual_bits)
        acts = self.i.p.acts
        bank = self.i.p.tag.bank
        book = Mux(bank, self.codebook[1], self.codebook[0])
        m.d.comb += [
            row.eq(Mux(self.i.p.first, 0, following) + self.i.p.index),
            memory.w_en.eq(self.w_en), memory.w_addr.eq(self.w_addr), memory.w_data.eq(self.w_data),
            memory.r_en.eq(self.i.valid), memory.r_addr.eq(Cat(self.i.p.code, book)),
            self.o.p.weight.raw.eq(memory.r_data),
        ]  # fmt: skip
        m.d.sync += [
            self.o.valid.eq(self.i.valid),
            self.o.p.tag.eq(self.i.p.tag), self.o.p.last.eq(self.i.p.last),
        ]  # fmt: skip
        if params.fold == 1:
            m.d.sync += [self.o.p.row.eq(row), self.o.p.act.eq(acts[0])]
        else:
            # The activation is selected before the register: behind it the whole cycle is the multiplier's.
            folded = self.fold.bit_select(bank, 1)
            m.d.sync += [
                self.o.p.row.eq(Mux(folded, row >> 1, row)), self.o.p.act.eq(Mux(folded & row[0], acts[1], acts[0])),
            ]  # fmt: skip
        with m.If(self.i.valid):
            m.d.sync += following.eq(row + 1)
        return m
