"""Activation queue: decouples a PE from the broadcast."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.hdl import Assert
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.params import ROUND_TRIP, Params
from hw.sram import Sram
from hw.streams import job

__all__ = ["LOOKUP_DEPTH", "ActivationQueue"]

LOOKUP_DEPTH = 64
"""Deepest queue that an FPGA makes of lookup tables. The expander adds up lengths right behind its memory, and block
RAM would take most of that cycle; a deeper queue would not fit into lookup tables."""


class ActivationQueue(wiring.Component):
    """First-in first-out queue of vectors with a registered credit flag.

    The queue is a RAM with a registered output: the vector at its head stands in the memory's output register, and the
    next one is read in the cycle in which it is taken.

    Credit rule: ``credit <= (level + round_trip + 1 <= depth)``. A broadcast reaches the queue ``4 + hops`` cycles
    after it fires and the flag is ``1 + hops`` cycles old when it is seen, so at most ``round_trip`` vectors are on
    their way that ``level`` does not count, plus the one that fires now: the queue cannot overflow, whatever is sent.
    The vector in the output register is one more than ``depth``.

    Timing: ``o`` is valid `LATENCY` cycles after ``i`` at the earliest; one vector in and one out a cycle. ``level``
    counts a vector from the cycle after it is written to the cycle in which it is read out of the memory. Vector j,
    written in W_j and taken in X_j, is read in R_j = max(W_j + 1, R_{j-1} + 1, X_{j-1}).

    Members
    -------
    i : jobs (always ready: the credit rule guarantees it).
    o : jobs in the same order.
    level : vectors in the memory.
    credit : a vector may be broadcast.

    Source: EIE section IV, "Activation Queue and Load Balancing".
    """

    LATENCY = 2

    def __init__(self, params: Params) -> None:
        self.params = params
        self.depth, self.round_trip = params.queue_depth, ROUND_TRIP + 2 * params.hops
        style = "distributed" if self.depth <= LOOKUP_DEPTH else "auto"
        self.memory = Sram(job(params).size, self.depth, style)
        super().__init__({
            "i": In(stream.Signature(job(params), always_ready=True)),
            "o": Out(stream.Signature(job(params))),
            "level": Out(range(self.depth + 1)),
            "credit": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = self.memory
        read = Signal()

        def advance(address: Signal) -> None:
            with m.If(address == self.depth - 1):
                m.d.sync += address.eq(0)
            with m.Else():
                m.d.sync += address.eq(address + 1)

        head = Signal(range(self.depth))
        tail = Signal(range(self.depth))
        m.d.comb += [
            # A word is read one cycle after it is written at the earliest: `level` is a register.
            read.eq((self.level != 0) & (~self.o.valid | self.o.ready)),
            memory.w_en.eq(self.i.valid), memory.w_addr.eq(tail), memory.w_data.eq(self.i.payload),
            memory.r_en.eq(read), memory.r_addr.eq(head), self.o.payload.eq(memory.r_data),
        ]  # fmt: skip
        with m.If(self.i.valid):
            advance(tail)
        with m.If(read):
            advance(head)
            m.d.sync += self.o.valid.eq(1)
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        m.d.sync += [
            self.level.eq(self.level + self.i.valid - read),
            self.credit.eq(self.level + (self.round_trip + 1) <= self.depth),
            Assert(~(self.i.valid & (self.level == self.depth)), "activation queue overflow"),
        ]
        return m
