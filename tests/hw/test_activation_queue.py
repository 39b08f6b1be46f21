from __future__ import annotations

from collections import deque

import pytest

import hw.activation_queue
from hw.activation_queue import ActivationQueue
from hw.params import ROUND_TRIP, Params


@pytest.mark.verifies("queue-latency-2-cycle")
def test_a_vector_comes_out_two_cycles_later(simulate):
    dut = ActivationQueue(Params(pes=1, queue_depth=8))

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        seen = []
        for cycle in range(12):
            ctx.set(dut.i.valid, cycle < 6)
            ctx.set(dut.i.payload.base, 100 + cycle)
            if ctx.get(dut.o.valid):
                seen.append((cycle, ctx.get(dut.o.payload.base)))
            await ctx.tick()
        assert seen == [(cycle + ActivationQueue.LATENCY, 100 + cycle) for cycle in range(6)]  # one a cycle

    simulate(dut, bench)
    assert ActivationQueue.LATENCY == 2


def check_levels(depth, written, taken, levels, credits, round_trip):
    """Level and credit of every cycle against the docstring's recurrence, from when vectors came and went."""
    read = []
    for j, cycle in enumerate(written):
        after = max(read[j - 1] + 1, taken[j - 1]) if j else 0
        read.append(max(cycle + 1, after))
    for t in range(1, len(levels)):
        assert levels[t] == sum(w < t for w in written) - sum(r < t for r in read)
        assert credits[t] == (levels[t - 1] + round_trip + 1 <= depth)
    for r, x in zip(read, taken, strict=True):
        assert x > r


def drive_by_credit_rule(simulate, rng, depth, *, lag, vectors=400, hops=0):
    """Send vectors by the credit flag through a pipe of `lag` cycles; returns the highest level seen."""
    params = Params(pes=1, rows=16, queue_depth=depth, hops=hops)
    dut = ActivationQueue(params)
    expected, written, taken, levels, credits = deque(), [], [], [], []
    shows = []  # whose activations a near queue shows: those of the vector taken last

    async def bench(ctx):
        await ctx.tick()
        pipe = deque([None] * lag)
        sent, pace, cycle = 0, 0.1, 0
        while len(taken) < vectors:
            levels.append(ctx.get(dut.level))
            credits.append(ctx.get(dut.credit))
            fire = sent < vectors and credits[-1] and (sent < vectors // 2 or rng.random() < 0.95)
            arriving = pipe.popleft()
            pipe.append(sent if fire else None)
            sent += fire
            ctx.set(dut.i.valid, arriving is not None)
            if arriving is not None:
                ctx.set(dut.i.payload.acts[7], arriving)
                ctx.set(dut.i.payload.base, arriving)
                expected.append(arriving)
                written.append(cycle)
            if rng.random() < 0.02:
                pace = rng.random() * (rng.random() < 0.7)  # bursts and stalls
            # At first a stall long enough to fill the queue.
            ctx.set(dut.o.ready, cycle > 3 * depth and rng.random() < pace)
            if ctx.get(dut.o.valid) and ctx.get(dut.o.ready):
                assert ctx.get(dut.o.payload.base) == expected.popleft()
                taken.append(cycle)
                if params.near:
                    shows[:] = [ctx.get(dut.o.payload.base)]
                else:
                    assert ctx.get(dut.o.payload.acts[7]) == ctx.get(dut.o.payload.base)
            await ctx.tick()
            assert not shows or ctx.get(dut.o.payload.acts[7]) == shows[0]
            cycle += 1

    simulate(dut, bench)
    check_levels(depth, written, taken, levels, credits, params.round_trip)
    return max(levels)


@pytest.mark.verifies("credit-rule-never-overflows-tight")
@pytest.mark.parametrize("depth", [6, 8, 13, 14, 15, 65])
def test_credit_rule_never_overflows_and_is_tight(simulate, rng, depth):
    highest = drive_by_credit_rule(simulate, rng, depth, lag=ROUND_TRIP - 1)
    assert highest == depth  # the bound is reached, so the rule gives nothing away


@pytest.mark.verifies("hops-credit-rule-tight-planted")
@pytest.mark.parametrize(("depth", "hops"), [(8, 1), (16, 2)])
def test_credit_rule_with_hops_is_tight_and_a_hop_too_many_overflows(simulate, rng, depth, hops):
    lag = ROUND_TRIP - 1 + 2 * hops
    assert drive_by_credit_rule(simulate, rng, depth, lag=lag, hops=hops) == depth
    with pytest.raises(AssertionError, match="overflow"):
        drive_by_credit_rule(simulate, rng, depth, lag=lag + 1, hops=hops)


@pytest.mark.verifies("planted-faults-broadcast-cycle-longer")
def test_fault_broadcast_one_cycle_longer_overflows(simulate, rng):
    """A broadcast that takes one cycle longer than the rule assumes is caught by the queue's own assertion."""
    with pytest.raises(AssertionError, match="overflow"):
        drive_by_credit_rule(simulate, rng, 8, lag=ROUND_TRIP)


@pytest.mark.verifies("planted-faults-broadcast-cycle-longer")
def test_fault_credit_one_late_overflows(simulate, rng, monkeypatch):
    monkeypatch.setattr(hw.activation_queue, "ROUND_TRIP", ROUND_TRIP - 1)
    with pytest.raises(AssertionError, match="overflow"):
        drive_by_credit_rule(simulate, rng, 8, lag=ROUND_TRIP - 1)
