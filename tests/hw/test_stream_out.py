"""Out-stream against rows in a list: every beat of every row, in the stated cycles, with random waits on all sides."""

from __future__ import annotations

import pytest

from hw.params import Params
from hw.stream_out import StreamOut
from tests.hw.altered import Altered


def random_job(rng):
    return {
        "line": int(rng.integers(0, 20)), "rows": int(rng.integers(1, 4)), "lines": int(rng.integers(1, 5)),
        "tiles_y": int(rng.integers(1, 5)),
    }  # fmt: skip


def play(simulate, rng, dut, jobs, taken=1.0, slow=0):
    """Write and send all rows; returns for each job (beats with their last, cycles) and what they should be.

    taken : how often a beat is taken. slow : cycles that a row takes to be written, at most.
    """
    groups = dut.params.groups if hasattr(dut, "params") else dut.inner.params.groups
    runs = []

    async def bench(ctx):
        memory = [[0] * groups for _ in range(64)]
        answer, cycle, word = None, 0, 1
        for job, samples in jobs:
            total = job["tiles_y"] * samples
            beats, sent, right, due = [], [], [], []
            begun = ended = 0  # rows of tiles
            wait, reads, held = 0, [], []
            ctx.set(dut.job, job)
            ctx.set(dut.samples, samples)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            begins = cycle
            row_ends = []
            size = job["lines"] * groups
            while len(beats) < total * size:
                assert cycle < begins + 6000, "watchdog"
                assert ctx.get(dut.active)
                held.append(ctx.get(dut.room))
                begin = end = False
                if begun == ended and begun < total and ctx.get(dut.room) and cycle > begins + 1:
                    begin, wait = True, int(rng.integers(0, slow + 1)) + 4
                    begun += 1
                elif begun > ended:
                    wait -= 1
                    end = wait == 0
                    if wait == 1:  # it is written just before it ends
                        first = job["line"] + ended % job["rows"] * job["lines"]
                        for line in range(first, first + job["lines"]):
                            memory[line] = list(range(word, word + groups))
                            right += memory[line]
                            word += groups
                if end:
                    ended += 1
                    row_ends.append(cycle)
                ctx.set(dut.row_begins, begin)
                ctx.set(dut.row_ends, end)
                ready = rng.random() < taken
                ctx.set(dut.o.ready, ready)
                for bank in range(groups):
                    ctx.set(dut.r_data[bank], answer[bank] if answer else 0xDEAD)
                answer = None
                if ctx.get(dut.r_en):
                    assert not ctx.get(dut.fault)
                    reads.append(cycle)
                    answer = list(memory[ctx.get(dut.r_addr)])
                if ctx.get(dut.o.valid) and ready:
                    beats.append((ctx.get(dut.o.p.data), ctx.get(dut.o.p.last)))
                    sent.append(cycle)
                await ctx.tick()
                cycle += 1
            ctx.set(dut.row_ends, 0)
            assert not ctx.get(dut.active)
            assert not ctx.get(dut.busy)
            assert ctx.get(dut.room) == (job["rows"] != 1) or begun - total == 0
            if taken == 1:
                last = -9
                for at in row_ends:
                    first = max(at + 2, last + 2)
                    due += [first + n * (groups + 2) for n in range(job["lines"])]
                    last = due[-1] + 1 + groups
                assert reads == due
                assert sent == [at + 2 + n for at in due for n in range(groups)]
            marks = [0] * (len(right) - 1) + [1]
            runs.append((beats, list(zip(right, marks, strict=True))))

    simulate(dut, bench, watchdog=60_000)
    return runs


@pytest.mark.verifies("out-stream-beat-row-cycle")
@pytest.mark.parametrize("pes", [4, 16, 32])
@pytest.mark.parametrize("waits", [{}, {"slow": 30}, {"taken": 0.5}, {"taken": 0.3, "slow": 10}])
def test_rows_are_sent_when_they_are_written(simulate, rng, pes, waits):
    jobs = [(random_job(rng), int(rng.integers(1, 3))) for _ in range(8)]
    for beats, right in play(simulate, rng, StreamOut(Params(pes=pes, act_lines=64)), jobs, **waits):
        assert beats == right


@pytest.mark.verifies("out-stream-line-beyond-memory")
def test_a_line_beyond_the_memory_is_a_fault(simulate):
    dut = StreamOut(Params(pes=8, act_lines=32))
    seen = []

    async def bench(ctx):
        ctx.set(dut.job, {"line": 31, "rows": 1, "lines": 2, "tiles_y": 1})
        ctx.set(dut.samples, 1)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        ctx.set(dut.row_ends, 1)
        await ctx.tick()
        ctx.set(dut.row_ends, 0)
        ctx.set(dut.o.ready, 1)
        for _ in range(12):
            if ctx.get(dut.r_en):
                seen.append(ctx.get(dut.fault))
            await ctx.tick()

    simulate(dut, bench)
    assert seen == [0, 1]


FAULTS = {
    "sent before written": lambda inner, outside: inner.row_ends.eq(outside.row_begins),
    "ring off by one": lambda inner, outside: inner.job.rows.eq(outside.job.rows + 1),
    "row overwritten": lambda inner, outside: outside.room.eq(1),
    "line lost": lambda inner, outside: inner.job.lines.eq(outside.job.lines - 1),
}  # fmt: skip


@pytest.mark.verifies("planted-faults-sent-before-written")
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_caught(simulate, rng, fault):
    jobs = [({**random_job(rng), "rows": 1, "lines": 3, "tiles_y": 4}, 1) for _ in range(2)]
    dut = Altered(StreamOut(Params(pes=16, act_lines=64)), FAULTS[fault])
    try:
        runs = play(simulate, rng, dut, jobs, taken=0.5)
    except AssertionError:
        return
    assert any(beats != right for beats, right in runs)
