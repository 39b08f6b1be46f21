from __future__ import annotations

import pytest
from amaranth import Module
from amaranth.lib import wiring

import hw.mac
from hw.mac import Mac
from hw.params import Params
from hw.weight_decode import WeightDecode


@pytest.mark.verifies("decode-codebook-tag-relative-absolute")
@pytest.mark.parametrize("codebooks", [1, 4, 64])
def test_decode_looks_up_the_codebook_of_the_tag_and_adds_up_rows(simulate, rng, codebooks):
    params = Params(pes=1, rows=64, codebooks=codebooks, code_bits=3)
    dut = WeightDecode(params)
    books = [int(v) for v in rng.integers(0, 1 << 16, codebooks << 3)]
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
        cycle = 0
        stream = []
        for n, column in enumerate(columns):
            row = -1
            book = int(rng.integers(0, codebooks))
            for k, (code, index) in enumerate(column):
                row += index + 1
                stream.append({"code": code, "index": index, "first": k == 0, "last": k == 5,
                               "tag": {"bank": n & 1, "codebook": book, "tile": n % 3}, "act": n})  # fmt: skip
                expected.append((cycle + WeightDecode.LATENCY, books[(book << 3) + code], row, n & 1, n % 3, k == 5, n))
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
    assert got == expected  # one a cycle
    assert WeightDecode.LATENCY == 1


def reference(params, stream, maximum):
    """Accumulators of both banks after a stream of (bank, row, weight, act, ...)."""
    banks = [[0] * params.rows for _ in range(2)]
    for bank, row, weight, act, _ in stream:
        held = banks[bank][row]
        banks[bank][row] = max(held, act + 32768) if maximum >> bank & 1 else held + weight * act
    wrap = 1 << params.acc_bits
    return [[(v + wrap // 2) % wrap - wrap // 2 for v in bank] for bank in banks]


def random_stream(rng, params, count):
    """(bank, row, weight, act, followed at once), many on the same row back to back, many at the ends of the range."""
    extremes = [-32768, 32767, 0, 1, -1]
    stream = []
    for _ in range(count):
        row = stream[-1][1] if stream and rng.random() < 0.5 else int(rng.integers(0, params.rows))
        weight, act = (int(rng.choice(extremes)) if rng.random() < 0.3 else int(rng.integers(-32768, 32768))
                       for _ in range(2))  # fmt: skip
        stream.append((int(rng.integers(0, 2)), row, weight, act, rng.random() < 0.9))
    return stream


async def clear_both(ctx, dut, params):
    for slot in range(params.rows):  # memories start undefined in silicon
        ctx.set(dut.drain.clear_all, 1)
        ctx.set(dut.drain.clear_slot, slot)
        await ctx.tick()
    ctx.set(dut.drain.clear_all, 0)


async def send(ctx, dut, stream):
    """Send products; returns the number of cycles in which `done` was seen."""
    done = 0
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
    return done


async def drain(ctx, dut, bank, order, *, clear):
    """Read accumulators in any order, one a cycle, each cleared in the cycle after; returns them by slot."""
    sums = {}
    ctx.set(dut.drain.bank, bank)
    for slot, before in zip([*order, order[0]], [None, *order], strict=True):
        if before is not None:
            sums[before] = ctx.get(dut.sum)
            ctx.set(dut.drain.clear, clear)
            ctx.set(dut.drain.clear_slot, before)
        ctx.set(dut.drain.slot, slot)
        await ctx.tick()
    ctx.set(dut.drain.clear, 0)
    return [sums[slot] for slot in sorted(sums)]


def accumulate(simulate, rng, dut, params, *, products=400, maximum=0):
    """Random products; returns (got, expected) accumulators."""
    stream = random_stream(rng, params, products)
    got = []
    done = 0

    async def bench(ctx):
        nonlocal done
        await clear_both(ctx, dut, params)
        ctx.set(dut.maximum, maximum)
        done = await send(ctx, dut, stream)
        for bank in range(2):
            got.append(await drain(ctx, dut, bank, range(params.rows), clear=0))

    simulate(dut, bench)
    assert done == products
    return got, reference(params, stream, maximum)


@pytest.mark.verifies("multiply-accumulate-sums-maxima-hazards")
@pytest.mark.parametrize("maximum", [0b00, 0b01, 0b10, 0b11])
@pytest.mark.parametrize(("acc_bits", "rows"), [(33, 8), (40, 17), (48, 16)])
def test_mac_equals_wrapped_sums_and_maxima_with_hazards(simulate, rng, acc_bits, rows, maximum):
    params = Params(pes=1, rows=rows, acc_bits=acc_bits, queue_depth=8)
    got, expected = accumulate(simulate, rng, Mac(params), params, maximum=maximum)
    assert got == expected


@pytest.mark.verifies("multiply-accumulate-sums-maxima-hazards")
def test_sums_wrap(simulate):
    params = Params(pes=1, rows=2, acc_bits=33)
    stream = [(0, 1, -32768, -32768, True)] * 5  # 5 * 2**30 > 2**32
    sums = []

    async def bench(ctx):
        dut = mac
        await clear_both(ctx, dut, params)
        await send(ctx, dut, stream)
        sums.extend(await drain(ctx, dut, 0, range(2), clear=0))

    mac = Mac(params)
    simulate(mac, bench)
    assert sums == [0, 5 * (1 << 30) - (1 << 33)] == reference(params, stream, 0)[0]


def drain_beside_entries(simulate, rng, dut, params):
    """Bank 0 is drained and cleared while entries add to bank 1, then bank 1; what was read, what is left, and both
    references. `products` of bank 1 are so many that they outlast the drain."""
    first = [(0, *item[1:]) for item in random_stream(rng, params, 100)]
    second = [(1, *item[1:]) for item in random_stream(rng, params, 4 * params.rows)]
    order = [int(n) for n in rng.permutation(params.rows)]
    got = {}

    async def bench(ctx):
        await clear_both(ctx, dut, params)
        await send(ctx, dut, first)
        sent = 0
        ctx.set(dut.drain.bank, 0)
        sums = {}
        for cycle in range(len(second) + 2):
            ctx.set(dut.i.valid, sent < len(second))
            if sent < len(second):
                _, row, weight, act, _ = second[sent]
                ctx.set(dut.i.payload, {"weight": {"raw": weight & 0xFFFF}, "act": act & 0xFFFF, "row": row,
                                        "tag": {"bank": 1}, "last": 1})  # fmt: skip
                sent += 1
            if cycle < params.rows:
                ctx.set(dut.drain.slot, order[cycle])
            ctx.set(dut.drain.clear, 0)
            if 1 <= cycle <= params.rows:
                sums[order[cycle - 1]] = ctx.get(dut.sum)
                ctx.set(dut.drain.clear, 1)
                ctx.set(dut.drain.clear_slot, order[cycle - 1])
            await ctx.tick()
        got["read"] = [[sums[slot] for slot in range(params.rows)]]
        got["read"].append(await drain(ctx, dut, 1, order, clear=1))
        got["left"] = [await drain(ctx, dut, bank, range(params.rows), clear=0) for bank in range(2)]

    simulate(dut, bench)
    return got, reference(params, first + second, 0)


@pytest.mark.verifies("accumulators-bank-drained-cleared-while")
@pytest.mark.parametrize("rows", [16, 17])
def test_a_bank_is_drained_and_cleared_while_entries_use_the_other(simulate, rng, rows):
    params = Params(pes=1, rows=rows, queue_depth=8)
    got, expected = drain_beside_entries(simulate, rng, Mac(params), params)
    assert got["read"] == expected
    assert got["left"] == [[0] * rows] * 2


class ClearsANeighbour(wiring.Component):
    """The planted fault: not the slot asked for is cleared, but the one beside it."""

    def __init__(self, params):
        self.mac = Mac(params)
        super().__init__(self.mac.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.mac = mac = self.mac
        wiring.connect(m, wiring.flipped(self.i), mac.i)
        m.d.comb += [
            self.done.eq(mac.done), self.sum.eq(mac.sum), mac.maximum.eq(self.maximum), mac.drain.eq(self.drain),
        ]  # fmt: skip
        with m.If(self.drain.clear):
            m.d.comb += mac.drain.clear_slot.eq(self.drain.clear_slot ^ 1)
        return m


@pytest.mark.verifies("planted-faults-bypass-wrong-slot")
def test_fault_the_wrong_slot_is_cleared(simulate, rng):
    params = Params(pes=1, rows=16, queue_depth=8)
    got, expected = drain_beside_entries(simulate, rng, ClearsANeighbour(params), params)
    assert got["read"] != expected


@pytest.mark.verifies("planted-faults-bypass-wrong-slot")
@pytest.mark.parametrize("maximum", [0b00, 0b11])
def test_fault_without_bypass_accumulators_are_wrong(simulate, rng, monkeypatch, maximum):
    """The planted fault: `forward` never rises, so back-to-back products lose one."""
    params = Params(pes=1, rows=17)
    original = hw.mac.Mux

    def mux(select, yes, no):
        return no if getattr(select, "name", "") == "forward" else original(select, yes, no)

    monkeypatch.setattr(hw.mac, "Mux", mux)
    got, expected = accumulate(simulate, rng, Mac(params), params, products=30, maximum=maximum)
    assert got != expected


@pytest.mark.verifies("planted-faults-bypass-wrong-slot")
def test_fault_maxima_of_plain_activations(simulate, rng, monkeypatch):
    """The planted fault: the activation is not moved by 32768, so negative ones count as large."""
    original = hw.mac.Cat
    monkeypatch.setattr(hw.mac, "Cat", lambda low, high: original(low, ~high if len(low) == 15 else high))
    params = Params(pes=1, rows=8, queue_depth=8)
    got, expected = accumulate(simulate, rng, Mac(params), params, maximum=0b11)
    assert got != expected
