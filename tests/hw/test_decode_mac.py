from __future__ import annotations

import pytest

from hw.mac import Mac
from hw.params import Params
from hw.weight_decode import WeightDecode


def signed16(value):
    return (value & 0xFFFF) - ((value & 0x8000) << 1)


@pytest.mark.parametrize("folded", [0b00, 0b10, 0b11])
def test_decode_looks_up_the_codebook_of_the_bank_and_adds_up_rows(simulate, rng, folded):
    params = Params(pes=1, rows=64, codebooks=4, code_bits=3)
    dut = WeightDecode(params)
    books = [int(v) for v in rng.integers(0, 1 << 16, 4 << 3)]
    columns = [[(int(c), int(z)) for c, z in zip(rng.integers(0, 8, 6), rng.integers(0, 10, 6), strict=True)]
               for _ in range(60)]  # fmt: skip
    got, expected = [], []

    async def bench(ctx):
        for address, value in enumerate(books):
            ctx.set(dut.w_en, 1)
            ctx.set(dut.w_addr, address)
            ctx.set(dut.w_data, value)
            await ctx.tick()
        ctx.set(dut.w_en, 0)
        ctx.set(dut.codebook[0], 1)
        ctx.set(dut.codebook[1], 3)
        ctx.set(dut.fold, folded)
        cycle = 0
        stream = []
        for n, column in enumerate(columns):
            row = -1
            for k, (code, index) in enumerate(column):
                row += index + 1
                bank = n & 1
                stream.append({"code": code, "index": index, "first": k == 0, "last": k == 5,
                               "tag": {"bank": bank, "tile": n % 3}, "acts": [n, 1000 + n]})  # fmt: skip
                # In a folded layer rows are virtual: the lowest bit selects the activation.
                at, act = (row >> 1, n + 1000 * (row & 1)) if folded >> bank & 1 else (row, n)
                weight = books[((3 if bank else 1) << 3) + code]
                expected.append((cycle + 1, weight, at, bank, n % 3, int(k == 5), act))
                cycle += 1
        for now in range(cycle + 2):
            ctx.set(dut.i.valid, now < cycle)
            if now < cycle:
                ctx.set(dut.i.payload, stream[now])
            o = ctx.get(dut.o.payload)
            if ctx.get(dut.o.valid):
                got.append((now, ctx.get(dut.o.payload.weight.raw), o.row, o.tag.bank, o.tag.tile, o.last, o.act))
            await ctx.tick()

    simulate(dut, bench)
    assert got == expected  # latency 1, one a cycle


def accumulate(simulate, rng, dut, params, *, products=400):
    """Random products with many on the same row back to back; returns (got, expected) accumulators."""
    extremes = [-32768, 32767, 0, 1, -1]
    stream = []
    for _ in range(products):
        row = stream[-1][1] if stream and rng.random() < 0.5 else int(rng.integers(0, params.rows))
        weight, act = (int(rng.choice(extremes)) if rng.random() < 0.3 else int(rng.integers(-32768, 32768))
                       for _ in range(2))  # fmt: skip
        stream.append((int(rng.integers(0, 2)), row, weight, act, rng.random() < 0.9))
    expected = [[0] * params.rows for _ in range(2)]
    for bank, row, weight, act, _ in stream:
        expected[bank][row] += weight * act
    wrap = 1 << params.acc_bits
    expected = [[(v + wrap // 2) % wrap - wrap // 2 for v in bank] for bank in expected]
    got = [[None] * params.rows for _ in range(2)]
    done = 0

    async def bench(ctx):
        nonlocal done
        for slot in range(params.rows):  # memories start undefined in silicon: clear both banks
            ctx.set(dut.drain.clear_all, 1)
            ctx.set(dut.drain.clear_slot, slot)
            await ctx.tick()
        ctx.set(dut.drain.clear_all, 0)
        for bank, row, weight, act, follows in stream:
            ctx.set(dut.i.valid, 1)
            ctx.set(dut.i.payload, {"weight": {"raw": weight & 0xFFFF}, "act": act & 0xFFFF, "row": row,
                                    "tag": {"bank": bank}, "last": 1})  # fmt: skip
            done += ctx.get(dut.done)
            await ctx.tick()
            if not follows:
                ctx.set(dut.i.valid, 0)
                done += ctx.get(dut.done)
                await ctx.tick()
        ctx.set(dut.i.valid, 0)
        for _ in range(2):
            done += ctx.get(dut.done)
            await ctx.tick()
        for bank in range(2):
            for slot in range(params.rows + 1):
                ctx.set(dut.drain.bank, bank)
                ctx.set(dut.drain.slot, min(slot, params.rows - 1))
                if slot:
                    got[bank][slot - 1] = ctx.get(dut.sum)
                await ctx.tick()

    simulate(dut, bench)
    assert done == products
    return got, expected


@pytest.mark.parametrize("acc_bits", [33, 40, 48])
def test_mac_equals_wrapped_sums_with_hazards(simulate, rng, acc_bits):
    params = Params(pes=1, rows=8, acc_bits=acc_bits)
    got, expected = accumulate(simulate, rng, Mac(params), params)
    assert got == expected


def test_fault_without_bypass_sums_are_wrong(simulate, rng, monkeypatch):
    """The planted fault: `forward` never rises, so back-to-back products lose one."""
    import hw.mac

    params = Params(pes=1, rows=8)
    dut = Mac(params)
    original = hw.mac.Mux

    def mux(select, yes, no):
        return no if getattr(select, "name", "") == "forward" else original(select, yes, no)

    monkeypatch.setattr(hw.mac, "Mux", mux)
    got, expected = accumulate(simulate, rng, dut, params)
    assert got != expected
