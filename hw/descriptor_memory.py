"""Descriptors of a slim array: a memory of 32-bit words that are fetched one by one."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import descriptor, descriptor_stride
from hw.params import DESCRIPTOR_PARTS, Params
from hw.sram import Sram

__all__ = ["SlimDescriptors"]


class SlimDescriptors(wiring.Component):
    """A memory of 32-bit words, and the register into which a descriptor is fetched, part by part.

    A memory as wide as a descriptor takes block RAMs or lookup tables that hardly hold anything, and the host a
    register as wide.

    Timing: ``r_data`` and ``ready`` follow ``r_en`` with the address `DESCRIPTOR_PARTS` + 2 cycles later, and stand
    until the next ``r_en``. A fetch that another one follows is given up.

    Members
    -------
    w_en, w_number, w_part, w_data : a part is written, while nothing is fetched.
    r_en, r_number, r_data, ready : a descriptor is fetched; it is there.
    p_en, p_number, p_part, p_data : one part is read instead, 1 cycle later, while nothing is fetched.
    wrong : a word that was read had the wrong parity (only with ``params.parity``).
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        stride = descriptor_stride(params)
        self.memory = Sram(32, DESCRIPTOR_PARTS * stride, parity=params.parity)
        self.data = self.memory.data
        bits = (stride - 1).bit_length()
        part = range(DESCRIPTOR_PARTS)
        super().__init__({
            "w_en": In(1), "w_number": In(bits), "w_part": In(part), "w_data": In(32),
            "r_en": In(1), "r_number": In(bits), "r_data": Out(descriptor(params)), "ready": Out(1),
            "p_en": In(1), "p_number": In(bits), "p_part": In(part), "p_data": Out(32),
            **({"wrong": Out(1)} if params.parity else {}),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = self.memory
        number = Signal(len(self.r_number), reset_less=True)
        part = Signal(range(DESCRIPTOR_PARTS))  # that is requested in this cycle
        fetches = Signal()
        arrives = Signal()
        last = Signal()
        word = Signal(descriptor(self.params).size, reset_less=True)
        m.d.comb += [
            memory.w_en.eq(self.w_en), memory.w_addr.eq(Cat(self.w_number, self.w_part)),
            memory.w_data.eq(self.w_data), memory.r_en.eq(fetches | self.p_en),
            memory.r_addr.eq(Mux(fetches, Cat(number, part), Cat(self.p_number, self.p_part))),
            self.p_data.eq(memory.r_data), self.r_data.as_value().eq(word),
        ]  # fmt: skip
        m.d.sync += [arrives.eq(fetches), last.eq(fetches & (part == DESCRIPTOR_PARTS - 1))]
        if self.params.parity:
            shown = Signal()
            m.d.sync += shown.eq(memory.r_en)
            m.d.comb += [memory.used.eq(shown), self.wrong.eq(memory.wrong)]
        with m.If(fetches):
            m.d.sync += part.eq(part + 1)
            with m.If(part == DESCRIPTOR_PARTS - 1):
                m.d.sync += fetches.eq(0)
        with m.If(arrives):  # the first part moves on to the low end
            m.d.sync += word.eq(Cat(word[32:], memory.r_data))
        with m.If(last):
            m.d.sync += self.ready.eq(1)
        with m.If(self.r_en):
            m.d.sync += [number.eq(self.r_number), part.eq(0), fetches.eq(1), last.eq(0), self.ready.eq(0)]
        return m
