"""Pointer read: from a broadcast column to this PE's slice of it."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import pointer_block
from hw.params import LANES, Params
from hw.sram import Sram
from hw.streams import activations, broadcast, job, tag

__all__ = ["PointerRead"]


class PointerRead(wiring.Component):
    """Look up entry address and entry count of a column in block pointers; drop empty columns.

    All PEs read the same address in the same cycle, before their queues, so a queue only ever
    holds columns with work in them.

    Timing: ``o`` is valid 3 cycles after ``i``, in order, one column a cycle. ``dropped`` pulses in that
    cycle instead of ``o.valid`` if the column is empty.

    Members
    -------
    i : broadcast column (always ready).
    o : job (always ready: the credit rule of the queue guarantees it).
    dropped, dropped_tag : an empty column left the pipeline, and what it belonged to.
    w_en, w_addr, w_data : host write port of the pointer memory.

    Source: EIE section IV, "Pointer Read Unit"; block pointers instead of two banks of absolute ones.
    """

    LATENCY = 3

    def __init__(self, params: Params) -> None:
        self.params = params
        self.memory = Sram(pointer_block(params).size, params.pointer_blocks)
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
            memory.r_en.eq(self.i.valid), memory.r_addr.eq(self.i.p.block),
        ]  # fmt: skip

        # What travels beside the memory word.
        beside = data.StructLayout({"lane": 3, "tag": tag(params), "acts": activations(params)})
        valid = [Signal(name=f"valid_{n}") for n in range(3)]
        passing = [Signal(beside, name=f"passing_{n}") for n in range(3)]
        m.d.sync += [
            valid[0].eq(self.i.valid),
            passing[0].lane.eq(self.i.p.lane), passing[0].tag.eq(self.i.p.tag), passing[0].acts.eq(self.i.p.acts),
            valid[1].eq(valid[0]), passing[1].eq(passing[0]),
            valid[2].eq(valid[1]), passing[2].eq(passing[1]),
        ]  # fmt: skip

        # The word is registered before the sum over lengths: block RAM is slow to answer.
        block = Signal(pointer_block(params))
        start = Signal(params.entry_address_bits)
        count = Signal(params.count_bits)
        before = sum((Mux(passing[1].lane > n, block.lengths[n], 0) for n in range(LANES - 1)), start=0)
        m.d.sync += [
            block.eq(memory.r_data),
            start.eq(block.base + before),
            count.eq(block.lengths[passing[1].lane]),
        ]  # fmt: skip

        # How many entries the first word gives is worked out here, off the issue loop of weight read.
        available = Signal(4)
        m.d.comb += [
            available.eq(LANES - start[:3]),
            self.o.valid.eq(valid[2] & (count != 0)),
            self.o.p.word.eq(start[3:]),
            self.o.p.lane.eq(start[:3]),
            self.o.p.count.eq(count),
            self.o.p.take.eq(Mux(count < available, count, available)),
            self.o.p.tag.eq(passing[2].tag),
            self.o.p.acts.eq(passing[2].acts),
            self.dropped.eq(valid[2] & (count == 0)),
            self.dropped_tag.eq(passing[2].tag),
        ]
        return m
