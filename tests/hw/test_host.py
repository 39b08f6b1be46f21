from __future__ import annotations

from hw.core import READ_LATENCY
from hw.host import Host
from hw.layouts import Memory
from hw.params import Params
from hw.registers import ID, offset

PARAMS = Params(pes=1)


async def write(ctx, dut, register, value, wait=0):
    """One AXI4-Lite write; returns the cycles from valid to response."""
    bus = dut.bus
    ctx.set(bus.awaddr, offset(register))
    ctx.set(bus.wdata, value)
    ctx.set(bus.wstrb, 15)
    ctx.set(bus.awvalid, 1)
    for _ in range(wait):  # the data may come later than the address
        await ctx.tick()
    ctx.set(bus.wvalid, 1)
    await ctx.tick().until(bus.awready & bus.wready)
    ctx.set(bus.awvalid, 0)
    ctx.set(bus.wvalid, 0)
    cycles = 1
    for _ in range(wait):  # the manager may take the response later
        await ctx.tick()
    ctx.set(bus.bready, 1)
    while not ctx.get(bus.bvalid):
        await ctx.tick()
        cycles += 1
    response = ctx.get(bus.bresp)
    await ctx.tick()
    ctx.set(bus.bready, 0)
    assert response == 0
    return cycles


async def read(ctx, dut, register, wait=0):
    """One AXI4-Lite read; returns the data and the cycles from valid to response."""
    bus = dut.bus
    ctx.set(bus.araddr, offset(register))
    ctx.set(bus.arvalid, 1)
    await ctx.tick().until(bus.arready)
    ctx.set(bus.arvalid, 0)
    cycles = 1
    while not ctx.get(bus.rvalid):
        await ctx.tick()
        cycles += 1
    for _ in range(wait):
        await ctx.tick()
        assert ctx.get(bus.rvalid)
    ctx.set(bus.rready, 1)
    data = ctx.get(bus.rdata)
    await ctx.tick()
    ctx.set(bus.rready, 0)
    return data, cycles


def test_registers_answer_in_the_stated_cycles_with_random_waits(simulate, rng):
    dut = Host(PARAMS)
    checked = 0

    async def bench(ctx):
        nonlocal checked
        assert await read(ctx, dut, "ID") == (ID, 1)  # answered in the cycle after the address is taken
        assert await write(ctx, dut, "FIRST", 1) == 1
        for _ in range(200):
            value = int(rng.integers(0, 1 << 16))
            await write(ctx, dut, "FIRST", value, wait=int(rng.integers(0, 4)))
            got, _ = await read(ctx, dut, "FIRST", wait=int(rng.integers(0, 4)))
            assert got == value
            checked += 1

    simulate(dut, bench)
    assert checked == 200


def test_words_are_put_together_and_taken_apart(simulate, rng):
    dut = Host(PARAMS)
    words = [int.from_bytes(rng.bytes(16), "little") for _ in range(10)]
    stored, served = [], []

    async def memory(ctx):
        """The core's part: notes writes, and answers a read `READ_LATENCY` cycles later."""
        pipe = [None] * READ_LATENCY
        for _ in range(1500):
            _, _, valid, payload, asked, request = await ctx.tick().sample(
                dut.write.valid, dut.write.payload, dut.read.valid, dut.read.payload
            )
            if valid:
                stored.append((payload.to.memory, payload.to.unit, payload.to.address, payload.data & (1 << 128) - 1))
            # Sampled at the edge that ends a cycle: what is set now is seen in the next one.
            pipe.append(request.address if asked else None)
            answer = pipe[-READ_LATENCY]
            if answer is not None:
                served.append(answer)
                ctx.set(dut.read_data, words[answer - 3])

    async def bench(ctx):
        await write(ctx, dut, "SELECT", Memory.ACTIVATIONS.value | 2 << 8)
        await write(ctx, dut, "ADDRESS", 3)
        for word in words:
            for part in range(4):
                await write(ctx, dut, "DATA", word >> 32 * part & 0xFFFFFFFF)
        await write(ctx, dut, "ADDRESS", 3)
        got = []
        for _ in words:
            parts = [await read(ctx, dut, "DATA") for _ in range(4)]
            assert {cycles for _, cycles in parts} == {1 + READ_LATENCY}
            got.append(sum(data << 32 * n for n, (data, _) in enumerate(parts)))
        assert got == words

    simulate(dut, memory, bench)
    assert stored == [(Memory.ACTIVATIONS.value, 2, 3 + n, word) for n, word in enumerate(words)]
    assert served == [3 + n for n in range(len(words)) for _ in range(4)]


def test_the_batch_is_one_until_it_is_written(simulate):
    dut = Host(PARAMS)

    async def bench(ctx):
        assert await read(ctx, dut, "BATCH") == (1, 1)
        assert ctx.get(dut.batch) == 1
        await write(ctx, dut, "BATCH", 0x1FFFE)
        assert await read(ctx, dut, "BATCH") == (0xFFFE, 1)
        assert ctx.get(dut.batch) == 0xFFFE

    simulate(dut, bench)


def test_a_descriptor_is_put_together_from_twenty_four_parts(simulate, rng):
    dut = Host(PARAMS)
    word = int.from_bytes(rng.bytes(96), "little")
    stored = []

    async def memory(ctx):
        for _ in range(200):
            _, _, valid, payload = await ctx.tick().sample(dut.write.valid, dut.write.payload)
            if valid:
                stored.append((payload.to.address, payload.data))

    async def bench(ctx):
        await write(ctx, dut, "SELECT", Memory.DESCRIPTORS.value)
        for part in range(2 * 24):
            await write(ctx, dut, "DATA", word >> 32 * (part % 24) & 0xFFFFFFFF)

    simulate(dut, memory, bench)
    assert stored == [(0, word), (1, word)]
