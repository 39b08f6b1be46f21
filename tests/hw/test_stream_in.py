"""In-stream against a ring in a list: every vector in its place and cycle, with random waits on all sides."""

from __future__ import annotations

import pytest

from hw.params import Params
from hw.stream_in import StreamIn
from tests.hw.altered import Altered

PARAMS = Params(pes=16, act_lines=64)


def random_job(rng):
    rows, row = int(rng.integers(1, 5)), int(rng.integers(1, 9))
    return {"base": int(rng.integers(0, 9)), "rows": rows, "row": row, "height": int(rng.integers(1, 7))}


def play(simulate, rng, dut, jobs, offered=1.0, blocked=0.0, lazy=0.0):
    """Bring all rows of `jobs` (job, samples); returns for each the writes (cycle, bank, line, beat) and their faults.

    offered, blocked : how often there is a beat, and somebody else writes. lazy : how often rows are not let go.
    """
    runs, inner = [], getattr(dut, "inner", dut)

    async def bench(ctx):
        beat, cycle = 0, 0
        ctx.set(dut.enable, 1)
        ctx.set(dut.i.payload, beat)
        offers = rng.random() < offered
        ctx.set(dut.i.valid, offers)

        async def tick(write=None):
            nonlocal beat, cycle, offers
            taken = offers and ctx.get(dut.i.ready)
            await ctx.tick()
            cycle += 1
            beat += bool(taken)
            offers = (offers and not taken) or rng.random() < offered
            ctx.set(dut.i.valid, offers)
            ctx.set(dut.i.payload, beat)

        for _ in range(4):
            await tick()
        for job, samples in jobs:
            total = job["height"] * samples
            writes, limit, shown, finished = [], job["rows"], -1, False
            received = 0
            ctx.set(dut.job, job)
            ctx.set(dut.samples, samples)
            for signal in (dut.start, dut.move):
                ctx.set(signal, 1)
            ctx.set(dut.limit, limit)
            await tick()
            ctx.set(dut.start, 0)
            shown = limit
            begun = cycle
            while received < total:
                assert cycle < begun + 4000, "watchdog"
                blocks = rng.random() < blocked
                ctx.set(dut.blocked, blocks)
                moves = limit <= received and rng.random() >= lazy
                if moves:  # one row or more are let go
                    limit = int(rng.integers(received + 1, received + job["rows"] + 1))
                finish = not finished and limit >= total - 2 and rng.random() < 0.2
                ctx.set(dut.move, moves)
                ctx.set(dut.limit, limit)
                ctx.set(dut.finish, finish)
                assert ctx.get(dut.active)
                assert ctx.get(dut.received) == received
                may = (received < shown or finished) and not blocks and ctx.get(inner.skid.o.valid)
                if offered == 1:
                    assert ctx.get(inner.skid.o.valid)  # one a cycle
                wrote = ctx.get(dut.w_en) or ctx.get(dut.fault)
                assert wrote == may
                if wrote:
                    writes.append((ctx.get(dut.w_bank), ctx.get(dut.w_addr), ctx.get(dut.w_data), ctx.get(dut.fault)))
                    received = len(writes) // job["row"]
                shown, finished = limit, finished or finish
                await tick()
            ctx.set(dut.blocked, 0)
            ctx.set(dut.move, 0)
            ctx.set(dut.finish, 0)
            assert not ctx.get(dut.active)
            assert ctx.get(dut.received) == total
            runs.append(writes)

    simulate(dut, bench, watchdog=60_000)
    return runs


def expected(jobs):
    """Bank, line, beat of each write."""
    runs, beat = [], 0
    for job, samples in jobs:
        writes = []
        for v in range(job["height"] * samples):
            for k in range(job["row"]):
                address = job["base"] * PARAMS.groups + v % job["rows"] * job["row"] + k
                writes.append((address % PARAMS.groups, address // PARAMS.groups, beat, 0))
                beat += 1
        runs.append(writes)
    return runs


@pytest.mark.verifies("stream-vector-place-cycle-limits")
@pytest.mark.parametrize("waits", [{}, {"blocked": 0.4}, {"offered": 0.5}, {"lazy": 0.9},
                                   {"offered": 0.6, "blocked": 0.3, "lazy": 0.7}])  # fmt: skip
def test_rows_go_round_the_ring(simulate, rng, waits):
    jobs = [(random_job(rng), int(rng.integers(1, 4))) for _ in range(12)]
    assert play(simulate, rng, StreamIn(PARAMS), jobs, **waits) == expected(jobs)


@pytest.mark.verifies("stream-beyond-memory-given-up")
def test_a_vector_beyond_the_memory_is_not_written(simulate, rng):
    dut = StreamIn(PARAMS)
    job = {"base": 63, "rows": 1, "row": 3, "height": 1}
    (writes,) = play(simulate, rng, dut, [(job, 1)])
    assert [fault for *_, fault in writes] == [0, 0, 1]


@pytest.mark.verifies("stream-beyond-memory-given-up")
def test_a_layer_is_given_up(simulate, rng):
    """What is stopped writes nothing more, and the next layer begins as if nothing had been."""
    dut = StreamIn(PARAMS)

    async def bench(ctx):
        ctx.set(dut.enable, 1)
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.samples, 1)
        ctx.set(dut.limit, 9)
        for n in range(2):
            ctx.set(dut.job, {"base": 5 * n, "rows": 9, "row": 4, "height": 9})
            ctx.set(dut.start, 1)
            ctx.set(dut.move, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            if n:
                assert (ctx.get(dut.w_en), ctx.get(dut.w_addr), ctx.get(dut.received)) == (1, 5, 0)
                break
            await ctx.tick().repeat(7)
            ctx.set(dut.stop, 1)
            await ctx.tick()
            ctx.set(dut.stop, 0)
            for _ in range(5):
                assert not ctx.get(dut.active)
                assert not ctx.get(dut.w_en)
                await ctx.tick()

    simulate(dut, bench)


FAULTS = {
    "released early": lambda inner, outside: inner.limit.eq(outside.limit + 1),
    "ring off by one": lambda inner, outside: inner.job.rows.eq(outside.job.rows + 1),
    "row lost": lambda inner, outside: outside.w_en.eq(inner.w_en & (inner.received != 2)),
    "written over write-back": lambda inner, outside: inner.blocked.eq(0),
}  # fmt: skip


@pytest.mark.verifies("planted-faults-released-early-ring")
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_caught(simulate, rng, fault):
    jobs = [({**random_job(rng), "height": 5, "rows": 2}, 1) for _ in range(3)]
    dut = Altered(StreamIn(PARAMS), FAULTS[fault])
    try:
        seen = play(simulate, rng, dut, jobs, blocked=0.3, lazy=0.5)
    except AssertionError:
        return
    assert seen != expected(jobs)
