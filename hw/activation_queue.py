"""Activation queue: decouples a PE from the broadcast."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.hdl import Assert
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.params import ROUND_TRIP, Params
from hw.streams import job

__all__ = ["ActivationQueue"]


class ActivationQueue(wiring.Component):
    """First-in first-out queue of jobs with a registered credit flag.

    Credit rule: ``credit <= (level + ROUND_TRIP + 1 <= depth)``. A broadcast reaches the queue 4 cycles after
    it fires and the flag is one cycle old, so at most ``ROUND_TRIP`` columns are on their way that ``level``
    does not count, plus the one that fires now: the queue cannot overflow, whatever is sent.

    Timing: ``o`` is valid 1 cycle after ``i``; one job in and one out a cycle. ``level`` counts a job from
    the cycle after it is written to the cycle in which it is taken.

    Members
    -------
    i : jobs (always ready: the credit rule guarantees it).
    o : jobs in the same order.
    credit : a column may be broadcast.

    Source: EIE section IV, "Activation Queue and Load Balancing".
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self.depth = params.queue_depth
        super().__init__({
            "i": In(stream.Signature(job(params), always_ready=True)),
            "o": Out(stream.Signature(job(params))),
            "level": Out(range(self.depth + 1)),
            "credit": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape = job(self.params)
        m.submodules.memory = jobs = memory.Memory(shape=shape.size, depth=self.depth, init=[])
        write, read = jobs.write_port(), jobs.read_port(domain="comb")
        pushed = Signal()
        popped = Signal()

        def advance(address: Signal) -> None:
            with m.If(address == self.depth - 1):
                m.d.sync += address.eq(0)
            with m.Else():
                m.d.sync += address.eq(address + 1)

        head = Signal(range(self.depth))
        tail = Signal(range(self.depth))
        m.d.comb += [
            pushed.eq(self.i.valid),
            popped.eq(self.o.valid & self.o.ready),
            write.en.eq(pushed), write.addr.eq(tail), write.data.eq(self.i.payload),
            read.addr.eq(head), self.o.payload.eq(read.data), self.o.valid.eq(self.level != 0),
        ]  # fmt: skip
        with m.If(pushed):
            advance(tail)
        with m.If(popped):
            advance(head)
        m.d.sync += [
            self.level.eq(self.level + pushed - popped),
            self.credit.eq(self.level + (ROUND_TRIP + 1) <= self.depth),
            Assert(~(pushed & (self.level == self.depth)), "activation queue overflow"),
        ]
        return m
