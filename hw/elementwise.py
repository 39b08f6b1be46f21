"""Elementwise operations: which lines are read, and which lanes are multiplied, in all write-back groups at once."""

from __future__ import annotations

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.params import Params
from hw.streams import LINE_BITS, elementwise_job, lane_step, operand

__all__ = ["Elementwise"]


class Elementwise(wiring.Component):
    """Walk the lines of an operation: for each its operands are read, then its lanes multiplied one by one.

    Timing, for an operation with r operands and p products (r from 1 to 4, p 1 or 2), ``start`` in cycle c: the
    operands of the first line are requested in c + 1 … c + r; its first product is stepped in S = c + r + 2. Line n is
    stepped in S + 8·p·n … S + 8·p·(n + 1) - 1 without a gap, and the operands of line n + 1 are requested in the r
    cycles behind the first of these. So the last step of N lines (of all samples) is that of cycle S + 8·p·N - 1.

    Members
    -------
    start : begin `job`, which stays as it is until its results are written. samples : lines are taken of so many.
    r_en, r_addr : read this line of all banks. It comes before every other reader. fault : there is no such line.
    put : where the vectors go that the banks answer with.
    step : a product to make. ends : it is the last one of the operation.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__({
            "start": In(1), "job": In(elementwise_job(params)), "samples": In(16),
            "r_en": Out(1), "r_addr": Out(range(params.act_lines)), "fault": Out(1),
            "put": Out(stream.Signature(operand(params), always_ready=True)),
            "step": Out(stream.Signature(lane_step(params), always_ready=True)), "ends": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        job = self.job

        # Fetch: operands a, b, c, e are 0, 1, 2, 3.
        at = Signal(2)
        following = Signal(2)
        last_operand = Signal()
        offset, sample_offset = Signal(LINE_BITS), Signal(LINE_BITS)  # lines from the first one
        left, samples = Signal(16), Signal(16)  # lines of the sample, samples
        more = Signal()  # there is a line that is not fetched
        filled = Signal()  # buffer that is filled
        fetched = Signal()  # a line is complete
        line = Signal(LINE_BITS)
        with m.Switch(at):
            with m.Case(0):
                m.d.comb += [following.eq(Mux(job.has_b, 1, 2)), last_operand.eq(~job.has_b & ~job.has_c)]
            with m.Case(1):
                m.d.comb += [following.eq(2), last_operand.eq(~job.has_c)]
            with m.Case(2):
                m.d.comb += [following.eq(3), last_operand.eq(~job.has_e)]
            with m.Case(3):
                m.d.comb += last_operand.eq(1)
        m.d.comb += [
            line.eq(Array([job.a, job.b, job.c, job.e])[at] + offset), self.r_addr.eq(line),
            self.fault.eq(self.r_en & (line >= self.params.act_lines)),
        ]  # fmt: skip
        m.d.sync += [
            self.put.valid.eq(self.r_en), self.put.p.factor.eq(at[0]), self.put.p.second.eq(at[1]),
            self.put.p.buffer.eq(filled), fetched.eq(self.r_en & last_operand),
        ]  # fmt: skip
        with m.If(self.r_en):
            m.d.sync += at.eq(following)
            with m.If(last_operand):
                m.d.sync += [self.r_en.eq(0), at.eq(0), filled.eq(~filled)]
                with m.If(left == 1):
                    m.d.sync += [
                        left.eq(job.lines), samples.eq(samples - 1), more.eq(samples != 1),
                        offset.eq(sample_offset + job.frame), sample_offset.eq(sample_offset + job.frame),
                    ]  # fmt: skip
                with m.Else():
                    m.d.sync += [left.eq(left - 1), offset.eq(offset + 1)]

        # Steps: a line is complete long before the one ahead of it is through, so only the first one is waited for.
        lane, second, buffer = Signal(3), Signal(), Signal()
        follows = Signal()  # another line comes after this one
        last, flush = Signal(), Signal()
        m.d.comb += [
            last.eq(second == job.has_c), flush.eq(last & (lane == 7)),
            self.ends.eq(self.step.valid & flush & ~follows),
            self.step.p.lane.eq(lane), self.step.p.second.eq(second), self.step.p.buffer.eq(buffer),
            self.step.p.last.eq(last), self.step.p.flush.eq(flush),
        ]  # fmt: skip
        with m.If(self.step.valid):
            m.d.sync += [second.eq(~last), lane.eq(lane + last)]
            with m.If((lane == 0) & ~second):
                m.d.sync += [follows.eq(more), self.r_en.eq(more)]
            with m.If(flush):
                m.d.sync += [self.step.valid.eq(follows), buffer.eq(~buffer)]
        with m.Elif(fetched):
            m.d.sync += self.step.valid.eq(1)
        with m.If(self.start):
            m.d.sync += [
                self.r_en.eq(1), at.eq(0), offset.eq(0), sample_offset.eq(0), left.eq(job.lines),
                samples.eq(self.samples), more.eq(1), filled.eq(0), buffer.eq(0),
            ]  # fmt: skip
        return m
