"""Skid buffer: two places behind a port, so that its ``ready`` depends on a register alone."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Skid"]


class Skid(wiring.Component):
    """A stream through two registers.

    Timing: what is taken shows 1 cycle later; one a cycle if the other side takes one a cycle.

    Members
    -------
    enable : take what comes. i, o : the stream.
    """

    def __init__(self, bits: int) -> None:
        super().__init__({"enable": In(1), "i": In(stream.Signature(bits)), "o": Out(stream.Signature(bits))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        front = Signal(self.o.payload.shape(), reset_less=True)
        spare = Signal.like(front)
        filled, taken = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(self.enable & ~filled), taken.eq(self.i.ready & self.i.valid), self.o.payload.eq(front),
        ]  # fmt: skip
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [self.o.valid.eq(filled | taken), filled.eq(0)]
            with m.If(filled):
                m.d.sync += front.eq(spare)
            with m.Else():
                m.d.sync += front.eq(self.i.payload)
        with m.Elif(taken):
            m.d.sync += [spare.eq(self.i.payload), filled.eq(1)]
        return m
