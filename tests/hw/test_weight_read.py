from __future__ import annotations

import pytest

from hw.layouts import weight_word
from hw.params import Params
from hw.weight_read import WeightRead

PARAMS = Params(pes=1, rows=64, weight_words=64, index_bits=6, code_bits=4)


def entries_of(rng, words=64):
    return [
        (int(c), int(z)) for c, z in zip(rng.integers(0, 16, 8 * words), rng.integers(0, 64, 8 * words), strict=True)
    ]


async def load(ctx, dut, entries):
    layout = weight_word(PARAMS)
    for address in range(len(entries) // 8):
        word = [{"code": c, "index": z} for c, z in entries[8 * address : 8 * address + 8]]
        ctx.set(dut.w_en, 1)
        ctx.set(dut.w_addr, address)
        ctx.set(dut.w_data, layout.const(word).as_value().value)
        await ctx.tick()
    ctx.set(dut.w_en, 0)


def job(start, count, act):
    take = min(count, 8 - start % 8)
    return {
        "word": start // 8,
        "lane": start % 8,
        "count": count,
        "take": take,
        "tag": {"bank": act & 1},
        "acts": [act],
    }


@pytest.mark.parametrize("waits", [False, True])
def test_entries_of_jobs_one_a_cycle_without_bubbles(simulate, rng, waits):
    dut = WeightRead(PARAMS)
    entries = entries_of(rng)
    jobs = [(int(rng.integers(0, 400)), int(rng.integers(1, 40)), n) for n in range(150)]
    jobs += [(int(rng.integers(0, 500)), 1, 150 + n) for n in range(50)]  # one-entry columns back to back
    got = []

    async def drive(ctx):
        await load(ctx, dut, entries)
        for start, count, act in jobs:
            while waits and rng.random() < 0.8:
                ctx.set(dut.i.valid, 0)
                await ctx.tick()
            ctx.set(dut.i.valid, 1)
            ctx.set(dut.i.payload, job(start, count, act))
            await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)

    async def check(ctx):
        cycle, total = 0, sum(count for _, count, _ in jobs)
        while len(got) < total:
            o = ctx.get(dut.o.payload)
            if ctx.get(dut.o.valid):
                assert o.tag.bank == o.acts[0] & 1
                got.append((cycle, o.code, o.index, o.first, o.last, o.acts[0]))
            await ctx.tick()
            cycle += 1

    simulate(dut, drive, check)
    expected = [
        (*entries[start + n], int(n == 0), int(n == count - 1), act)
        for start, count, act in jobs for n in range(count)
    ]  # fmt: skip
    assert [item[1:] for item in got] == expected
    if not waits:
        assert got[-1][0] - got[0][0] == len(got) - 1  # throughput: one entry a cycle, across words and columns


def test_first_entry_three_cycles_after_the_job_is_taken(simulate, rng):
    dut = WeightRead(PARAMS)
    entries = entries_of(rng)

    async def bench(ctx):
        await load(ctx, dut, entries)
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.i.payload, job(13, 2, 9))
        assert ctx.get(dut.i.ready)
        await ctx.tick()
        ctx.set(dut.i.valid, 0)
        valid = []
        for _ in range(6):
            valid.append(ctx.get(dut.o.valid))
            await ctx.tick()
        assert valid == [0, 0, 1, 1, 0, 0]  # cycles 1, 2, 3, … after the job was taken in cycle 0

    simulate(dut, bench)
    assert WeightRead.LATENCY == 3
