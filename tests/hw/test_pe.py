from __future__ import annotations

from hw.layouts import Memory, pointer_block, weight_word
from hw.params import Params
from hw.pe import ProcessingElement

PARAMS = Params(pes=1, rows=16, weight_words=16, pointer_blocks=4, codebooks=2)


async def load(ctx, dut, memory, address, word):
    ctx.set(dut.host.valid, 1)
    ctx.set(dut.host.payload, {"memory": memory.value, "address": address, "data": word})
    await ctx.tick()
    ctx.set(dut.host.valid, 0)


def test_a_column_takes_the_stated_cycles_through_the_pe(simulate):
    dut = ProcessingElement(PARAMS)
    column = [(1, 2), (2, 0), (3, 5)]  # code, index → rows 2, 3, 9
    values = [0, 10, -20, 30]
    seen = {"busy": [], "entry": []}

    async def bench(ctx):
        entries = [{"code": c, "index": z} for c, z in column] + [{"code": 0, "index": 0}] * 5
        await load(ctx, dut, Memory.WEIGHTS, 0, weight_word(PARAMS).const(entries).as_value().value)
        lengths = [3, 0, 0, 0, 0, 0, 0, 0]
        pointers = pointer_block(PARAMS).const({"base": 0, "lengths": lengths}).as_value().value
        await load(ctx, dut, Memory.POINTERS, 0, pointers)
        for code, value in enumerate(values):
            await load(ctx, dut, Memory.CODEBOOK, code, value & 0xFFFF)
        ctx.set(dut.drain.clear_all, 1)
        for slot in range(PARAMS.rows):
            ctx.set(dut.drain.clear_slot, slot)
            await ctx.tick()
        ctx.set(dut.drain.clear_all, 0)
        await ctx.tick()
        assert ctx.get(dut.credit)
        ctx.set(dut.drain.bank, 0)
        ctx.set(dut.drain.slot, 9)
        ctx.set(dut.i.payload, {"block": 0, "lane": 0, "tag": {"bank": 1}, "acts": [7]})
        for cycle in range(16):
            ctx.set(dut.i.valid, cycle == 0)
            if ctx.get(dut.busy):
                seen["busy"].append((cycle, ctx.get(dut.busy)))
            if ctx.get(dut.activity.entry):
                seen["entry"].append(cycle)
            await ctx.tick()
        ctx.set(dut.drain.bank, 1)
        sums = []
        for slot in range(PARAMS.rows + 1):
            if slot:
                sums.append(ctx.get(dut.sum))
            ctx.set(dut.drain.slot, min(slot, PARAMS.rows - 1))
            await ctx.tick()
        seen["sums"] = sums

    simulate(dut, bench)
    # Selected from cycle 6 on (seen one later), one a cycle; the last, selected in 8, is written in 11.
    assert seen["entry"] == [7, 8, 9]
    assert ProcessingElement.SELECT_TO_WRITE == 3
    assert seen["busy"] == [(cycle, 0b10) for cycle in range(1, 12)]
    assert seen["sums"][2:4] == [70, -140]
    assert seen["sums"][9] == 210
    assert sum(value != 0 for value in seen["sums"]) == 3


def test_an_empty_column_leaves_after_four_cycles(simulate):
    dut = ProcessingElement(PARAMS)
    busy = []

    async def bench(ctx):
        await load(ctx, dut, Memory.POINTERS, 1, 0)
        ctx.set(dut.i.payload, {"block": 1, "lane": 5, "tag": {"bank": 0}, "acts": [7]})
        for cycle in range(9):
            ctx.set(dut.i.valid, cycle == 0)
            if ctx.get(dut.busy):
                busy.append(cycle)
            assert not ctx.get(dut.activity.entry)
            await ctx.tick()

    simulate(dut, bench)
    assert busy == [1, 2, 3]  # dropped in cycle 3
