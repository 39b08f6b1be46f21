from __future__ import annotations

import pytest

from hw.layouts import refill_header
from hw.params import Params
from hw.refill import Refill

PARAMS = Params(pes=4)


def header(**values):
    return refill_header(PARAMS).const(values).as_value().value


def packet(memory, unit, address, words, buffer, last):
    head = header(memory=memory, unit=unit, address=address, words=len(words), buffer=buffer, last=last)
    return [head, *words]


@pytest.mark.parametrize("waits", [False, True])
def test_packets_go_where_their_headers_say(simulate, rng, waits):
    packets = [
        (int(rng.integers(0, 2)), int(rng.integers(0, 4)), int(rng.integers(0, 1000)),
         [int(v) for v in rng.integers(0, 1 << 62, int(rng.integers(1, 6)))], 0, n == 11)
        for n in range(12)
    ]  # fmt: skip
    beats = [beat for one in packets for beat in packet(*one)]
    dut = Refill(PARAMS)
    written, loaded = [], []

    async def bench(ctx):
        ctx.set(dut.enable, 1)
        at = 0
        for cycle in range(400):
            valid = at < len(beats) and (not waits or rng.random() < 0.5)
            ctx.set(dut.i.valid, valid)
            ctx.set(dut.i.payload, beats[at] if at < len(beats) else 0)
            if ctx.get(dut.loaded):
                loaded.append(cycle)
            if ctx.get(dut.o.valid):
                o = ctx.get(dut.o.payload)
                written.append((o.memory, o.unit, o.address, o.data))
            at += bool(valid and ctx.get(dut.i.ready))
            await ctx.tick()
        assert at == len(beats)

    simulate(dut, bench)
    assert written == [
        (memory, unit, address + n, word)
        for memory, unit, address, words, *_ in packets
        for n, word in enumerate(words)
    ]
    assert len(written) > 20
    if not waits:  # n + 2 cycles a packet, and one until it shows
        assert loaded[0] == sum(len(one[3]) + 2 for one in packets)


def test_nothing_is_taken_outside_a_run(simulate):
    dut = Refill(PARAMS)

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.i.payload, header(words=1, last=1))
        for _ in range(5):
            assert not ctx.get(dut.i.ready)
            await ctx.tick()
        ctx.set(dut.enable, 1)
        assert ctx.get(dut.i.ready)

    simulate(dut, bench)


@pytest.mark.parametrize("busy_until", [0, 12, 30])
def test_a_buffer_is_filled_again_when_the_pes_are_done_with_it(simulate, busy_until):
    """Tile A in buffer 0, B in 1, C in 0 again: C waits until A is scanned and no PE has a column of it."""
    beats = [*packet(0, 0, 0, [1], 0, 1), *packet(0, 0, 9, [2], 1, 1), *packet(0, 0, 0, [3], 0, 1)]
    dut = Refill(PARAMS)
    words, loaded = {}, []
    scanned = 8

    async def bench(ctx):
        ctx.set(dut.enable, 1)
        at = 0
        for cycle in range(60):
            ctx.set(dut.i.valid, at < len(beats))
            ctx.set(dut.i.payload, beats[min(at, len(beats) - 1)])
            ctx.set(dut.scanned, cycle == scanned)
            ctx.set(dut.buffer, 0)
            ctx.set(dut.pe_busy, int(cycle < busy_until))
            loaded.append(ctx.get(dut.loaded))
            if ctx.get(dut.o.valid):
                words[ctx.get(dut.o.payload.data)] = cycle
            at += bool(at < len(beats) and ctx.get(dut.i.ready))
            await ctx.tick()

    simulate(dut, bench)
    # Header, wait, word: loaded in 3; B in 6.
    assert loaded[:9] == [0, 0, 0, 1, 1, 1, 3, 3, 3]
    # Not to be scanned a second time, though its words may still be read.
    assert loaded[scanned + 1] == 2
    # Free 4 cycles after `scanned`, or 2 after the PEs are done; found so, a word, and its write a cycle later.
    free = max(scanned + 4, busy_until + 2)
    assert words == {1: 3, 2: 6, 3: free + 2}
    assert loaded[free + 1 : free + 3] == [2, 3]
