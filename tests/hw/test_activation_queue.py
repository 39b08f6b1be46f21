from __future__ import annotations

from collections import deque

import pytest

from hw.activation_queue import ActivationQueue
from hw.params import ROUND_TRIP, Params


def test_a_job_comes_out_one_cycle_later(simulate):
    dut = ActivationQueue(Params(pes=1, queue_depth=8))

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        seen = []
        for cycle in range(12):
            ctx.set(dut.i.valid, cycle < 6)
            ctx.set(dut.i.payload.acts[0], 100 + cycle)
            if ctx.get(dut.o.valid):
                seen.append((cycle, ctx.get(dut.o.payload.acts[0])))
            await ctx.tick()
        assert seen == [(cycle + 1, 100 + cycle) for cycle in range(6)]  # latency 1, one a cycle

    simulate(dut, bench)


def drive_by_credit_rule(simulate, rng, depth, *, lag, jobs=400):
    """Fire columns by the credit flag through a pipe of `lag` cycles; returns the highest level seen."""
    dut = ActivationQueue(Params(pes=1, queue_depth=depth))
    sent, expected = 0, deque()
    highest = received = 0

    async def drive(ctx):
        nonlocal sent, highest
        await ctx.tick()
        pipe = deque([None] * lag)
        while sent < jobs or any(job is not None for job in pipe):
            fire = sent < jobs and ctx.get(dut.credit) and (sent < 200 or rng.random() < 0.95)
            arriving = pipe.popleft()
            pipe.append(sent if fire else None)
            sent += fire
            ctx.set(dut.i.valid, arriving is not None)
            if arriving is not None:
                ctx.set(dut.i.payload.acts[0], arriving)
                expected.append(arriving)
            await ctx.tick()
            highest = max(highest, ctx.get(dut.level))
        ctx.set(dut.i.valid, 0)

    async def check(ctx):
        nonlocal received
        for _ in range(2 * depth):  # a stall long enough to fill the queue
            await ctx.tick()
        pace = 0.1
        while received < jobs:
            if rng.random() < 0.02:
                pace = rng.random()  # bursts and stalls
            ctx.set(dut.o.ready, rng.random() < pace)
            if ctx.get(dut.o.valid) and ctx.get(dut.o.ready):
                assert ctx.get(dut.o.payload.acts[0]) == expected.popleft()
                received += 1
            await ctx.tick()

    simulate(dut, drive, check)
    assert received == jobs
    return highest


@pytest.mark.parametrize("depth", [6, 7, 8, 13, 64])
def test_credit_rule_never_overflows_and_is_tight(simulate, rng, depth):
    highest = drive_by_credit_rule(simulate, rng, depth, lag=ROUND_TRIP - 1)
    assert highest == depth  # the bound is reached, so the rule gives nothing away


def test_fault_credit_rule_one_late_overflows(simulate, rng):
    """A broadcast that takes one cycle longer than the rule assumes is caught by the queue's own assertion."""
    with pytest.raises(AssertionError, match="overflow"):
        drive_by_credit_rule(simulate, rng, 8, lag=ROUND_TRIP)
