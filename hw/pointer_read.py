"""Pointer read: from a broadcast vector to this PE's share of its columns."""

from __future__ import annotations

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import pointer_block
from hw.params import LANES, Params
from hw.sram import Sram
from hw.streams import broadcast, job, tag

__all__ = ["PointerRead"]


class PointerRead(wiring.Component):
    """Look up where the entries of a vector's eight columns lie; drop a vector without work for this PE.

    One pointer block describes the eight columns of a vector. A column has work if its activation is sent
    (its bit of the broadcast's mask) and it has entries in this PE; these columns are the mask of the job.
    All PEs read the same address in the same cycle, before their queues, so a queue only ever holds
    vectors with work in them.

    Timing: ``o`` is valid `LATENCY` cycles after ``i``, in order, one vector a cycle. ``dropped`` pulses in that
    cycle instead of ``o.valid`` if no column has work. Nothing looks at the activations on their way to the queue, so
    they come `ACTS_LATE` cycles after the rest, with the job: what delays them stands once in front of all PEs.

    Members
    -------
    i : broadcast vector (always ready); its ``acts`` are those of the vector of `ACTS_LATE` cycles ago.
    o : job (always ready: the credit rule of the queue guarantees it).
    dropped, dropped_tag : a vector without work left the pipeline, and what it belonged to.
    w_en, w_addr, w_data : host write port of the pointer memory.

    Source: EIE section IV, "Pointer Read Unit"; block pointers instead of two banks of absolute ones.
    """

    LATENCY = 3
    ACTS_LATE = LATENCY

    def __init__(self, params: Params) -> None:
        self.params = params
        self.memory = Sram(pointer_block(params).size, params.pointer_blocks, parity=params.parity)
        super().__init__({
            "i": In(stream.Signature(broadcast(params), always_ready=True)),
            "o": Out(stream.Signature(job(params), always_ready=True)),
            "dropped": Out(1), "dropped_tag": Out(tag(params)),
            "w_en": In(1), "w_addr": In(len(self.memory.w_addr)), "w_data": In(self.memory.width),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        params = self.params
        m.submodules.memory = memory = self.memory
        m.d.comb += [
            memory.w_en.eq(self.w_en), memory.w_addr.eq(self.w_addr), memory.w_data.eq(self.w_data),
            memory.r_en.eq(self.i.valid), memory.r_addr.eq(self.i.p.pointers),
        ]  # fmt: skip

        # What travels beside the memory word, and beside the register behind it: block RAM is slow to answer.
        beside = data.StructLayout({"mask": LANES, "tag": tag(params)})
        valid = [Signal(name=f"valid_{n}") for n in range(self.LATENCY)]
        passing = [Signal(beside, name=f"passing_{n}", reset_less=True) for n in range(2)]
        block = Signal(pointer_block(params), reset_less=True)
        m.d.sync += [
            valid[0].eq(self.i.valid), valid[1].eq(valid[0]), valid[2].eq(valid[1]),
            passing[0].mask.eq(self.i.p.mask), passing[0].tag.eq(self.i.p.tag),
            passing[1].eq(passing[0]),
            block.eq(memory.r_data),
        ]  # fmt: skip

        if params.parity:
            m.d.comb += memory.used.eq(valid[0])
        mask = Signal(LANES)
        work = Signal()
        base, lengths = Signal.like(block.base, reset_less=True), Signal.like(block.lengths, reset_less=True)
        columns, belongs = Signal(LANES, reset_less=True), Signal(tag(params), reset_less=True)
        m.d.comb += mask.eq(passing[1].mask & Cat(block.lengths[n] != 0 for n in range(LANES)))
        m.d.sync += [
            work.eq(mask.any()),
            base.eq(block.base), lengths.eq(block.lengths), columns.eq(mask), belongs.eq(passing[1].tag),
        ]  # fmt: skip
        m.d.comb += [
            self.o.p.base.eq(base), self.o.p.lengths.eq(lengths), self.o.p.mask.eq(columns),
            self.o.p.acts.eq(self.i.p.acts), self.o.p.tag.eq(belongs),
            self.o.valid.eq(valid[2] & work),
            self.dropped.eq(valid[2] & ~work), self.dropped_tag.eq(belongs),
        ]  # fmt: skip
        return m
