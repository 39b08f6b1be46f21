from __future__ import annotations

from collections import deque

import pytest

from hw.nonzero import LeadingNonzero
from hw.params import Params


def columns_of(act_vectors, fold=False):
    """(cycle-free) reference: block, lane and activations of each column that is not all zero, in order."""
    if not fold:
        return [(block, lane, act) for block, acts in enumerate(act_vectors) for lane, act in enumerate(acts) if act]
    return [
        (number // 2, pair + 4 * (number % 2), (acts[2 * pair], acts[2 * pair + 1]))
        for number, acts in enumerate(act_vectors)
        for pair in range(4)
        if acts[2 * pair] or acts[2 * pair + 1]
    ]


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("waits", [False, True])
def test_nonzero_columns_in_order_with_random_waits(simulate, rng, waits, fold):
    act_vectors = [[int(a) for a in rng.integers(1, 1 << 16, 8) * (rng.random(8) < density)]
              for density in (0, 1, 0.3, 0.05, 0, 0, 0.9) for _ in range(20)]  # fmt: skip
    dut = LeadingNonzero(Params(pes=1))
    expected, checked = deque(columns_of(act_vectors, fold)), 0
    skipped = 0

    async def drive(ctx):
        nonlocal skipped
        for block, acts in enumerate(act_vectors):
            while waits and rng.random() < 0.4:
                await ctx.tick()
            ctx.set(dut.i.payload, {
                "acts": acts, "block": block // 2 if fold else block, "fold": fold, "half": block % 2,
                "tag": {"bank": 0, "tile": 2}, "last": 0,
            })  # fmt: skip
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
                acts = (got.acts[0], got.acts[1]) if fold else got.acts[0]
                assert (got.block, got.lane, acts) == expected.popleft()
                assert (got.tag.bank, got.tag.tile) == (0, 2)
                checked += 1

    simulate(dut, drive, check)
    assert checked == len(columns_of(act_vectors, fold)) > 100
    assert skipped == (4 if fold else 8) * len(act_vectors) - checked


def test_timing_one_a_cycle_and_one_for_an_act_vector_of_zeros(simulate):
    act_vectors = [[0, 5, 0, 6, 0, 0, 0, 7], [0] * 8, [0] * 8, [1, 0, 0, 0, 0, 0, 0, 0], [2] * 8]
    dut = LeadingNonzero(Params(pes=1))
    times = []

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        pending, finished = list(enumerate(act_vectors)), 0
        for cycle in range(30):
            if pending:
                number, acts = pending[0]
                last = number == len(act_vectors) - 1
                ctx.set(dut.i.payload, {"acts": acts, "block": number, "tag": {"bank": 1}, "last": last})
            ctx.set(dut.i.valid, bool(pending))
            if ctx.get(dut.o.valid):
                times.append((cycle, ctx.get(dut.o.payload.block), ctx.get(dut.o.payload.lane)))
            if ctx.get(dut.finished):
                finished = cycle
            if pending and ctx.get(dut.i.ready):
                pending.pop(0)
            await ctx.tick()
        # Taken in cycle 0: lanes 1, 3, 7 in cycles 1 to 3; two empty activation vectors cost 4 and 5; then no gap.
        assert times == [(1, 0, 1), (2, 0, 3), (3, 0, 7), (6, 3, 0), *((7 + lane, 4, lane) for lane in range(8))]
        assert finished == 14

    simulate(dut, bench)
