"""Skid buffer: order, one a cycle, and a ``ready`` that depends on no input."""

from __future__ import annotations

import pytest

from hw.skid import Skid
from tests.hw.altered import Altered


def passed(simulate, rng, dut, offered, taken, number=200):
    """Words that come out, and in how many cycles, with random waits on both sides."""
    out, cycles = [], []

    async def bench(ctx):
        sent, cycle = 0, 0
        ctx.set(dut.enable, 1)
        while len(out) < number and cycle < 20 * number:
            valid = sent < number and rng.random() < offered
            ctx.set(dut.i.valid, valid)
            ctx.set(dut.i.payload, sent + 1)
            ready = rng.random() < taken
            before = ctx.get(dut.i.ready)
            ctx.set(dut.o.ready, ready)
            assert ctx.get(dut.i.ready) == before
            sent += bool(valid and before)
            if ready and ctx.get(dut.o.valid):
                out.append(ctx.get(dut.o.payload))
            await ctx.tick()
            cycle += 1
        cycles.append(cycle)

    simulate(dut, bench)
    return out, cycles[0]


@pytest.mark.verifies("skid-buffer-order-cycle-nothing")
@pytest.mark.parametrize(("offered", "taken"), [(1, 1), (0.5, 1), (1, 0.5), (0.7, 0.6)])
def test_words_pass_in_order(simulate, rng, offered, taken):
    out, cycles = passed(simulate, rng, Skid(16), offered, taken)
    assert out == list(range(1, 201))
    if offered == taken == 1:
        assert cycles == 201


@pytest.mark.verifies("skid-buffer-order-cycle-nothing")
def test_nothing_is_taken_unless_enabled(simulate):
    dut = Skid(8)

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        for _ in range(5):
            assert not ctx.get(dut.i.ready)
            await ctx.tick()
        assert not ctx.get(dut.o.valid)

    simulate(dut, bench)


@pytest.mark.verifies("planted-fault-word-taken-without")
def test_fault_a_word_is_lost(simulate, rng):
    """The planted fault: it takes words while both of its places are full."""
    dut = Altered(Skid(16), lambda inner, outside: outside.i.ready.eq(1))
    assert passed(simulate, rng, dut, 1, 0.5)[0] != list(range(1, 201))
