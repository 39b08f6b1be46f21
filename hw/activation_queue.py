"""Activation queue: decouples a PE from the broadcast."""

from __future__ import annotations

from amaranth import Cat, Module, Signal
from amaranth.hdl import Assert
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.near_ram import NearRam
from hw.params import ROUND_TRIP, Params
from hw.parity import ParityBeside
from hw.sram import Sram
from hw.streams import job

__all__ = ["LOOKUP_DEPTH", "ActivationQueue"]

LOOKUP_DEPTH = 64
"""Deepest queue that an FPGA makes of lookup tables. The expander adds up lengths right behind its memory, and block
RAM would take most of that cycle; a deeper queue would not fit into lookup tables."""


class ActivationQueue(wiring.Component):
    """First-in first-out queue of vectors with a registered credit flag.

    The queue is a RAM with a registered output: the vector at its head stands in the memory's output register, and the
    next one is read in the cycle in which it is taken. A small one (`Params.near`) is a RAM that is read within a
    cycle, with words for the vector at the output and for the one taken last, whose activations it shows: no register
    holds a copy. When vectors come and go, and what ``level`` counts, is the same.

    Credit rule: ``credit <= (level + round_trip + 1 <= depth)``. A broadcast reaches the queue ``4 + hops`` cycles
    after it fires and the flag is ``1 + hops`` cycles old when it is seen, so at most ``round_trip`` vectors are on
    their way that ``level`` does not count, plus the one that fires now: the queue cannot overflow, whatever is sent.
    The vector at the output is one more than ``depth``.

    Timing: ``o`` is valid `LATENCY` cycles after ``i`` at the earliest; one vector in and one out a cycle. ``level``
    counts a vector from the cycle after it is written to the cycle in which it is read out of the memory. Vector j,
    written in W_j and taken in X_j, is read in R_j = max(W_j + 1, R_{j-1} + 1, X_{j-1}).

    Members
    -------
    i : jobs (always ready: the credit rule guarantees it).
    o : jobs in the same order. From a near queue, ``acts`` are those of the vector taken last, until the next is taken.
    level : vectors that wait behind the one at the output.
    credit : a vector may be broadcast.
    wrong : of a vector that shows, the parity is wrong (only with ``params.parity``).

    Source: EIE section IV, "Activation Queue and Load Balancing".
    """

    LATENCY = 2

    def __init__(self, params: Params) -> None:
        self.params = params
        self.depth, self.round_trip = params.queue_depth, ROUND_TRIP + 2 * params.hops
        if not params.near:
            style = "distributed" if self.depth <= LOOKUP_DEPTH else "auto"
            self.memory = Sram(job(params).size, self.depth, style, parity=params.parity)
        super().__init__({
            "i": In(stream.Signature(job(params), always_ready=True)),
            "o": Out(stream.Signature(job(params))),
            "level": Out(range(self.depth + 1)),
            "credit": Out(1),
            **({"wrong": Out(1)} if params.parity else {}),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        read = Signal()
        # A word is read one cycle after it is written at the earliest: `level` is a register.
        m.d.comb += read.eq((self.level != 0) & (~self.o.valid | self.o.ready))
        (self._near if self.params.near else self._far)(m, read)
        with m.If(read):
            m.d.sync += self.o.valid.eq(1)
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        m.d.sync += [
            self.level.eq(self.level + self.i.valid - read),
            self.credit.eq(self.level + (self.round_trip + 1) <= self.depth),
            Assert(~(self.i.valid & (self.level == self.depth)), "activation queue overflow"),
        ]
        return m

    def _far(self, m: Module, read: Signal) -> None:
        """The vector at the head stands in the register of the memory's output."""
        m.submodules.memory = memory = self.memory
        head, tail = Signal(range(self.depth)), Signal(range(self.depth))
        m.d.comb += [
            memory.w_en.eq(self.i.valid), memory.w_addr.eq(tail), memory.w_data.eq(self.i.payload),
            memory.r_en.eq(read), memory.r_addr.eq(head), self.o.payload.eq(memory.r_data),
        ]  # fmt: skip
        _advance(m, tail, self.depth, self.i.valid)
        _advance(m, head, self.depth, read)
        if self.params.parity:
            m.d.comb += [memory.used.eq(self.o.valid), self.wrong.eq(memory.wrong)]

    def _near(self, m: Module, read: Signal) -> None:
        """The vector at the head stays in the memory, and the one before it, for its activations."""
        shape, words = self.i.payload.shape(), self.params.queue_words
        rest_bits = shape.size - shape["acts"].width
        m.submodules.acts = acts = NearRam(shape["acts"].width, words)
        m.submodules.rest = rest = NearRam(rest_bits, words)
        names = [name for name, _ in shape if name != "acts"]
        front, tail, before = (Signal(range(words), name=name) for name in ("front", "tail", "before"))
        taken = Signal()
        m.d.comb += [
            taken.eq(self.o.valid & self.o.ready),
            acts.w_en.eq(self.i.valid), acts.w_addr.eq(tail), acts.w_data.eq(self.i.p.acts),
            rest.w_en.eq(self.i.valid), rest.w_addr.eq(tail), rest.w_data.eq(Cat(self.i.p[name] for name in names)),
            acts.r_addr.eq(before), rest.r_addr.eq(front),
            self.o.p.acts.eq(acts.r_data), Cat(self.o.p[name] for name in names).eq(rest.r_data),
        ]  # fmt: skip
        _advance(m, tail, words, self.i.valid)
        _advance(m, front, words, taken)
        with m.If(taken):
            m.d.sync += before.eq(front)
        if self.params.parity:
            # Activations are used from when their vector is taken on: until the next one is, it is not known how long.
            kept = Signal()
            self.checks = checks = (ParityBeside(acts), ParityBeside(rest))
            m.submodules.acts_parity, m.submodules.rest_parity = checks
            with m.If(taken):
                m.d.sync += kept.eq(1)
            shows = Signal(2)
            m.d.sync += shows.eq(Cat(kept, self.o.valid))
            m.d.comb += [
                Cat(check.used for check in checks).eq(shows), self.wrong.eq(checks[0].wrong | checks[1].wrong),
            ]  # fmt: skip


def _advance(m: Module, address: Signal, words: int, when: Signal) -> None:
    """Step an address on, around the end of a memory."""
    with m.If(when):
        m.d.sync += address.eq(address + 1)
        if words & (words - 1):
            with m.If(address == words - 1):
                m.d.sync += address.eq(0)
