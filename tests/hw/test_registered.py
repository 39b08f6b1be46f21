from __future__ import annotations

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.registered import Registered


class Sum(wiring.Component):
    """Two inputs of different widths, two outputs."""

    def __init__(self):
        super().__init__({"x": In(5), "y": In(3), "total": Out(6), "equal": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [self.total.eq(self.x + self.y), self.equal.eq(self.x == self.y)]
        return m


@pytest.mark.verifies("registers-round-block-synthesis-input")
def test_every_input_bit_can_be_set_and_every_output_bit_seen(simulate, rng):
    """And each in the stated cycle: otherwise synthesis would drop what nobody reaches."""
    dut = Registered(Sum())
    pairs = [(int(rng.integers(0, 32)), int(rng.integers(0, 8))) for _ in range(40)] + [(5, 5), (31, 7), (0, 0)]

    async def bench(ctx):
        for x, y in pairs:
            for n in reversed(range(8)):
                ctx.set(dut.shift_in, (x | y << 5) >> n & 1)
                await ctx.tick()
            await ctx.tick()  # the last bit went in two cycles ago: all of them are at the component, for this cycle
            assert (ctx.get(dut.component.x), ctx.get(dut.component.y)) == (x, y)
            await ctx.tick()
            ctx.set(dut.load, 1)
            await ctx.tick()
            ctx.set(dut.load, 0)
            await ctx.tick()
            seen = 0
            for n in range(7):
                seen |= ctx.get(dut.shift_out) << n
                await ctx.tick()
            assert seen == (x + y | (x == y) << 6)

    simulate(dut, bench)
