from __future__ import annotations

from collections import deque

import pytest

from hw.nonzero import LeadingNonzero
from hw.params import Params


def columns_of(octets):
    """(cycle-free) reference: the nonzero lanes of each octet, in order."""
    return [(block, lane, act) for block, acts in enumerate(octets) for lane, act in enumerate(acts) if act]


@pytest.mark.parametrize("waits", [False, True])
def test_nonzero_columns_in_order_with_random_waits(simulate, rng, waits):
    octets = [[int(a) for a in rng.integers(1, 1 << 16, 8) * (rng.random(8) < density)]
              for density in (0, 1, 0.3, 0.05, 0, 0, 0.9) for _ in range(20)]  # fmt: skip
    dut = LeadingNonzero(Params(pes=1))
    expected, checked = deque(columns_of(octets)), 0
    skipped = 0

    async def drive(ctx):
        nonlocal skipped
        for block, acts in enumerate(octets):
            while waits and rng.random() < 0.4:
                await ctx.tick()
            ctx.set(dut.i.payload, {"acts": acts, "block": block, "bank": 0, "last": 0})
            ctx.set(dut.i.valid, 1)
            taken = False
            while not taken:  # what the clock edge sees: `ready` depends on the other bench in the same cycle
                _, _, taken, zeros = await ctx.tick().sample(dut.i.ready, dut.skipped)
            skipped += zeros
            ctx.set(dut.i.valid, 0)

    async def check(ctx):
        nonlocal checked
        while expected:
            ready = int(not waits or rng.random() < 0.5)
            ctx.set(dut.o.ready, ready)
            _, _, valid, got = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            if valid and ready:
                assert (got.block, got.lane, got.act) == expected.popleft()
                checked += 1

    simulate(dut, drive, check)
    assert checked == len(columns_of(octets)) > 100
    assert skipped == 8 * len(octets) - checked


def test_timing_one_a_cycle_and_one_for_an_octet_of_zeros(simulate):
    octets = [[0, 5, 0, 6, 0, 0, 0, 7], [0] * 8, [0] * 8, [1, 0, 0, 0, 0, 0, 0, 0], [2] * 8]
    dut = LeadingNonzero(Params(pes=1))
    times = []

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        pending, finished = list(enumerate(octets)), 0
        for cycle in range(30):
            if pending:
                number, acts = pending[0]
                last = number == len(octets) - 1
                ctx.set(dut.i.payload, {"acts": acts, "block": number, "bank": 1, "last": last})
            ctx.set(dut.i.valid, bool(pending))
            if ctx.get(dut.o.valid):
                times.append((cycle, ctx.get(dut.o.payload.block), ctx.get(dut.o.payload.lane)))
            if ctx.get(dut.finished):
                finished = cycle
            if pending and ctx.get(dut.i.ready):
                pending.pop(0)
            await ctx.tick()
        # Taken in cycle 0: lanes 1, 3, 7 in cycles 1 to 3; two empty octets cost 4 and 5; then no gap.
        assert times == [(1, 0, 1), (2, 0, 3), (3, 0, 7), (6, 3, 0), *((7 + lane, 4, lane) for lane in range(8))]
        assert finished == 14

    simulate(dut, bench)
