"""Operands of an elementwise operation and their products, in one write-back group."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import ACT_BITS
from hw.params import LANES, Params
from hw.sram import Sram
from hw.streams import elementwise_job, lane_step, operand

__all__ = ["LaneProduct"]


class LaneProduct(wiring.Component):
    """Keep the operands of two lines, and multiply one lane of one pair of them a cycle.

    The factors of a product are read together, so each has a memory of its own, with a word for the first product (a,
    b) and one for the second (c, e) of each of two lines.

    Timing: `product` comes 3 cycles after its step. A vector that is put away may be used 1 cycle later.

    Members
    -------
    acts, put : a vector, and where it goes (always ready).
    step : a product to make (always ready).
    job : the operation; constant from its first step to its last product.
    product : int32.
    wrong : an operand that was used had the wrong parity (only with ``params.parity``).
    """

    LATENCY = 3

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__({
            "acts": In(ACT_BITS * LANES), "put": In(stream.Signature(operand(params), always_ready=True)),
            "step": In(stream.Signature(lane_step(params), always_ready=True)), "job": In(elementwise_job(params)),
            "product": Out(signed(2 * ACT_BITS)), **({"wrong": Out(1)} if params.parity else {}),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        put, step, job = self.put.p, self.step.p, self.job
        lane, second = Signal(3), Signal()
        m.d.sync += [lane.eq(step.lane), second.eq(step.second)]
        chosen, factors = [], []
        self.memories = memories = [
            Sram(ACT_BITS * LANES, 4, style="distributed", parity=self.params.parity) for _ in range(2)
        ]
        for n, memory in enumerate(memories):
            m.submodules[f"operands_{n}"] = memory
            vector = Signal(data.ArrayLayout(ACT_BITS, LANES), name=f"vector_{n}")
            m.d.comb += [
                memory.w_en.eq(self.put.valid & (put.factor == n)), memory.w_data.eq(self.acts),
                memory.w_addr.eq(put.second + 2 * put.buffer),
                memory.r_en.eq(self.step.valid), memory.r_addr.eq(step.second + 2 * step.buffer),
                vector.eq(memory.r_data),
            ]  # fmt: skip
            chosen.append(vector[lane].as_signed())
            factors.append(Signal(signed(ACT_BITS), name=f"factor_{n}"))
        scale = Mux(second, job.scale_c, job.scale_a)
        if self.params.parity:
            shown = Signal()
            m.d.sync += shown.eq(self.step.valid)
            m.d.comb += [
                memories[0].used.eq(shown), memories[1].used.eq(shown & Mux(second, job.has_e, job.has_b)),
                self.wrong.eq(memories[0].wrong | memories[1].wrong),
            ]  # fmt: skip
        m.d.sync += [
            factors[0].eq(chosen[0]),
            factors[1].eq(Mux(Mux(second, job.has_e, job.has_b), chosen[1], scale)),
            self.product.eq(factors[0] * factors[1]),
        ]  # fmt: skip
        return m
