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


def column(start, count, act, last):
    return {
        "word": start // 8, "lane": start % 8, "count": count, "take": min(count, 8 - start % 8), "last": last,
        "act": act, "tag": {"bank": act & 1, "codebook": act % 5},
    }  # fmt: skip


def times(columns, offered):
    """Cycles in which columns are taken and their first entries selected: the recurrences of the docstring."""
    taken, selected, last_request = [], [], 0
    for (start, count, _), gap in zip(columns, offered, strict=True):
        free = max(taken[-1] + 1 + gap, last_request) if taken else gap
        taken.append(free)
        before = selected[-1] + columns[len(selected) - 1][1] if selected else 0
        selected.append(max(free + WeightRead.TAKE_TO_SELECT, before))
        in_last_word = count if start % 8 + count <= 8 else (start + count - 1) % 8 + 1
        last_request = selected[-1] - 1 + count - in_last_word
    return taken, selected


@pytest.mark.verifies("weight-read-bubbles-across-words")
@pytest.mark.parametrize("waits", [0, 3, 40])
def test_entries_one_a_cycle_at_the_stated_cycles(simulate, rng, waits):
    dut = WeightRead(PARAMS)
    entries = entries_of(rng)
    columns = [(int(rng.integers(0, 400)), int(rng.integers(1, 40)), int(rng.random() < 0.3)) for _ in range(150)]
    columns += [(int(rng.integers(0, 500)), 1, 1) for _ in range(50)]  # one-entry columns back to back
    offered = [int(n) for n in rng.integers(0, waits + 1, len(columns))]
    got, taken = [], []

    async def bench(ctx):
        await load(ctx, dut, entries)
        total = sum(count for _, count, _ in columns)
        cycle = waited = sent = 0
        while len(got) < total:
            offer = sent < len(columns) and waited >= offered[sent]
            ctx.set(dut.i.valid, offer)
            if offer:
                start, count, last = columns[sent]
                ctx.set(dut.i.payload, column(start, count, sent, last))
            if offer and ctx.get(dut.i.ready):
                taken.append(cycle)
                sent, waited = sent + 1, 0
            else:
                waited += 1
            o = ctx.get(dut.o.payload)
            if ctx.get(dut.o.valid):
                assert (o.tag.bank, o.tag.codebook) == (o.act & 1, o.act % 5)
                got.append((cycle - 1, o.code, o.index, o.first, o.last, o.act))  # selected in the cycle before
            await ctx.tick()
            cycle += 1

    simulate(dut, bench)
    expected_taken, selected = times(columns, offered)
    assert taken == expected_taken
    assert got == [
        (at + n, *entries[start + n], int(n == 0), int(last and n == count - 1), act)
        for act, ((start, count, last), at) in enumerate(zip(columns, selected, strict=True)) for n in range(count)
    ]  # fmt: skip
    if not waits:
        assert got[-1][0] - got[0][0] == len(got) - 1  # throughput: one entry a cycle, across words and columns


@pytest.mark.verifies("weight-read-latency-3")
def test_first_entry_three_cycles_after_the_column_is_taken(simulate, rng):
    dut = WeightRead(PARAMS)
    entries = entries_of(rng)

    async def bench(ctx):
        await load(ctx, dut, entries)
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.i.payload, column(13, 2, 9, 1))
        assert ctx.get(dut.i.ready)
        await ctx.tick()
        ctx.set(dut.i.valid, 0)
        valid = []
        for _ in range(6):
            valid.append(ctx.get(dut.o.valid))
            await ctx.tick()
        assert valid == [0, 0, 1, 1, 0, 0]  # cycles 1, 2, 3, … after the column was taken in cycle 0

    simulate(dut, bench)
    assert WeightRead.LATENCY == 3
