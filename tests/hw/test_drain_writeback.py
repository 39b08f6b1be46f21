"""Drain, write-back and the accumulators joined as the core joins them: tile after tile, banks in turn."""

from __future__ import annotations

import pytest
from amaranth import Elaboratable, Module, Signal
from amaranth.sim import Simulator

from hw.drain import Drain
from hw.layouts import Join, output_word
from hw.mac import Mac
from hw.params import Params
from hw.writeback import Writeback

ACC_BITS = 40
SMALL = {"rows": 8, "output_words": 512, "act_lines": 4096, "acc_bits": ACC_BITS}


class Joined(Elaboratable):
    """All write-back groups with the accumulators of their PEs. fault: what goes wrong, see below."""

    def __init__(self, params, fault="", drain=Drain):
        self.params, self.fault = params, fault
        self.drain = drain(params)
        self.writebacks = [Writeback(params) for _ in range(params.groups)]
        self.macs = [Mac(params) for _ in range(params.pes)]

    def elaborate(self, platform):
        m = Module()
        m.submodules.drain = drain = self.drain
        m.submodules += [*self.writebacks, *self.macs]
        for n, writeback in enumerate(self.writebacks):
            m.d.comb += [
                writeback.read.eq(drain.read), writeback.address.eq(drain.address),
                writeback.low.eq(drain.now.low), writeback.high.eq(drain.now.high),
            ]  # fmt: skip
            slot = Signal.like(writeback.slot)  # as in each PE
            m.d.sync += slot.eq(writeback.slot)
            for k, mac in enumerate(self.macs[n * self.params.group : (n + 1) * self.params.group]):
                m.d.comb += [
                    writeback.sums[k].eq(mac.sum), mac.drain.bank.eq(drain.bank), mac.drain.slot.eq(slot),
                    mac.drain.clear.eq(writeback.clear[k]), mac.drain.clear_slot.eq(writeback.clear_slot),
                ]  # fmt: skip
                if self.fault == "clear missing":
                    m.d.comb += mac.drain.clear.eq(0)
                if self.fault == "clears the neighbour":
                    m.d.comb += mac.drain.clear.eq(writeback.clear.any())
        m.d.comb += drain.flush.eq(self.writebacks[0].o.valid)
        return m


def wrap(value):
    return (value + (1 << ACC_BITS - 1)) % (1 << ACC_BITS) - (1 << ACC_BITS - 1)


def edges(shift):
    """Sums around rounding ties and saturation for one shift."""
    half, one = (1 << shift) >> 1, 1 << shift
    return [0, -1, 1, half, half - 1, -half, -half - 1, one, 32767 * one, 32767 * one + half - 1, 32767 * one + half,
            -32768 * one - half, -32768 * one - half - 1, (1 << 39) - 1, -(1 << 39)]  # fmt: skip


def requantize(total, shift, low, high):
    """The write-back formula of docs/numerics.md in Python integers, and whether it was saturated."""
    q = (total + ((1 << shift) >> 1)) >> shift
    return max(low, min(high, max(-32768, min(32767, q)))), q > 32767 or (q < -32768 and low < 0)


def random_tile(rng, params, first):
    """A tile with its table from word `first` on: (tile, words of each group, accumulators, vectors, saturated).

    accumulators : (pe, slot) → sum. vectors : for each flush, of each group, the line's eight values.
    """
    flushes = int(rng.integers(1, 7))
    low = int(rng.choice([0, -32768, -500]))
    high = int(rng.choice([32767, 6, 700]))
    unread = [[(pe, slot) for slot in range(params.rows) for pe in range(params.group)] for _ in range(params.groups)]
    for each in unread:
        rng.shuffle(each)
    spare = [[] for _ in range(params.groups)]  # read before, or without entries
    words, sums, vectors, saturated = [[] for _ in range(params.groups)], {}, [], 0
    for _ in range(flushes):
        length = int(rng.integers(1, 13))
        vectors.append([])
        for group in range(params.groups):
            vector, left = [0] * 8, length
            while left:
                parts = min(int(rng.choice([1, 1, 2, 4])), left)
                if len(unread[group]) < parts or rng.random() < 0.1:  # a START that has no effect
                    pe, slot = spare[group][int(rng.integers(len(spare[group])))] if spare[group] else unread[group][0]
                    if not spare[group]:
                        sums.setdefault((group, pe, slot), 0)
                        spare[group].append(unread[group].pop(0))
                    words[group].append({"bias": int(rng.integers(0, 1 << ACC_BITS)), "slot": slot, "pe": pe})
                    left -= 1
                    continue
                shift, lane = int(rng.choice([0, 1, 5, 14, 31])), int(rng.integers(8))
                joins = [Join.START, *(Join(int(rng.integers(1, 3))) for _ in range(parts - 1))]
                total = 0
                for n, join in enumerate(joins):
                    pe, slot = unread[group].pop()
                    spare[group].append((pe, slot))
                    raw = (
                        int(rng.choice(edges(shift))) if rng.random() < 0.6 else int(rng.integers(-(1 << 39), 1 << 39))
                    )
                    bias = int(rng.integers(-(1 << 20), 1 << 20)) if rng.random() < 0.5 else 0
                    sums[group, pe, slot] = raw
                    match join:
                        case Join.START:
                            total = wrap(raw + bias)
                        case Join.ADD:
                            total = wrap(total + raw)
                        case Join.MAX:
                            total = max(total, wrap(raw + bias))
                    words[group].append({
                        "bias": bias & (1 << ACC_BITS) - 1, "shift": shift, "slot": slot, "pe": pe, "lane": lane,
                        "join": join, "last": n == parts - 1,
                    })  # fmt: skip
                left -= parts
                vector[lane], clipped = requantize(total, shift, low, high)
                saturated += clipped
            words[group][-1]["flush"] = 1
            vectors[-1].append([value & 0xFFFF for value in vector])
    row_lines = int(rng.integers(1, flushes + 1))
    tile = {
        "destination": int(rng.integers(0, 2000)), "row_lines": row_lines,
        "row_pitch": row_lines + int(rng.integers(0, 4)), "outputs": first, "words": len(words[0]),
        "low": low, "high": high,
    }  # fmt: skip
    return tile, words, sums, vectors, saturated


def play(dut, tiles, rng):
    """Write tile after tile back in alternate banks.

    Returns cycles in which `computed` rose and of `written`, [(cycle, line, vectors)], saturated outputs, all for each
    tile, and the accumulators that are not zero at the end.
    """
    params, drain = dut.params, dut.drain
    computed, written, lines, saturated, left = [], [], [[] for _ in tiles], [0] * len(tiles), []

    async def bench(ctx):
        layout = output_word(params)
        if params.elementwise:
            ctx.set(drain.valid, 1)  # what is first in the queue is a tile
        for tile, words, *_ in tiles:
            for group, mine in enumerate(words):
                for n, word in enumerate(mine):
                    ctx.set(dut.writebacks[group].memory.data[tile["outputs"] + n], layout.const(word).as_value().value)
        for mac in dut.macs:
            for bank in mac.banks:
                for slot in range(params.rows):
                    ctx.set(bank.data[slot], 0)
        cycle, begun, due = 0, 0, [0, 0]
        while len(written) < len(tiles):
            assert cycle < 20_000, "watchdog"
            bank = begun % 2
            if begun < len(tiles) and len(written) > begun - 2 and due[bank] <= cycle:
                tile, _, sums, *_ = tiles[begun]
                for (group, pe, slot), value in sums.items():  # as if entries had been added
                    memory = dut.macs[group * params.group + pe].banks[bank]
                    now = ctx.get(memory.data[slot])
                    ctx.set(memory.data[slot], (now + value) & ((1 << ACC_BITS) - 1))
                ctx.set(drain.tile[bank], tile)
                ctx.set(drain.computed[bank], 1)
                computed.append(cycle)
                begun += 1
            flushed = [ctx.get(writeback.o.valid) for writeback in dut.writebacks]
            assert len(set(flushed)) == 1  # lockstep
            if ctx.get(drain.write):
                vectors = [[ctx.get(each.o.payload[lane]) for lane in range(8)] for each in dut.writebacks]
                lines[len(written)].append((cycle, ctx.get(drain.line), vectors))
            saturated[len(written)] += sum(ctx.get(writeback.saturated) for writeback in dut.writebacks)
            bank, over = ctx.get(drain.bank), ctx.get(drain.written)
            await ctx.tick()
            cycle += 1
            if over:
                written.append(cycle - 1)
                ctx.set(drain.computed[bank], 0)
                due[bank] = cycle + int(rng.integers(0, 60))
        left.extend(
            value for mac in dut.macs for bank in mac.banks for slot in range(params.rows)
            if (value := ctx.get(bank.data[slot]))
        )  # fmt: skip

    simulator = Simulator(dut)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()
    return computed, written, lines, saturated, left


def expected_lines(tile, words, vectors, first_read):
    """[(cycle, line, vectors)] of a tile whose first word is addressed in this cycle."""
    flushes = [n for n, word in enumerate(words[0]) if word.get("flush")]
    result = []
    for n, (at, vector) in enumerate(zip(flushes, vectors, strict=True)):
        row, column = divmod(n, tile["row_lines"])
        line = tile["destination"] + row * tile["row_pitch"] + column
        result.append((first_read + at + Writeback.LATENCY, line, vector))
    return result


def draw(rng, params, number):
    tiles, first = [], 0
    for _ in range(number):
        tiles.append(random_tile(rng, params, first))
        first += tiles[-1][0]["words"]
    return tiles


@pytest.mark.verifies("output-table-drain-accumulators-joined")
@pytest.mark.parametrize("pes", [1, 2, 4, 8, 16, 32])
def test_tiles_are_written_back_as_the_table_says(rng, pes):
    params = Params(pes=pes, **SMALL)
    checked = clipped = overlapped = 0
    for _ in range(4):
        tiles = draw(rng, params, 6)
        computed, written, lines, saturated, left = play(Joined(params), tiles, rng)
        for n, (tile, words, _, vectors, clips) in enumerate(tiles):
            # The first word 1 cycle after `computed` is seen, which is at the earliest one after `written`.
            first_read = max(computed[n], written[n - 1] + 1 if n else 0) + 1
            assert lines[n] == expected_lines(tile, words, vectors, first_read)
            assert saturated[n] == clips
            assert written[n] == first_read + tile["words"] - 1 + Writeback.LATENCY == lines[n][-1][0]
            checked += len(lines[n])
            clipped += clips
            overlapped += n > 0 and computed[n] < written[n - 1]
        assert left == []  # cleared behind the reader
    assert checked > 20
    assert clipped > 20
    assert overlapped


@pytest.mark.verifies("planted-faults-clear-missing-clear")
@pytest.mark.parametrize("fault", ["clear missing", "clears the neighbour"])
def test_fault_of_the_clear_is_caught(rng, fault):
    """The planted faults: an accumulator keeps its sum; those of the other PEs are cleared as well."""
    params = Params(pes=8, **SMALL)
    tiles = draw(rng, params, 6)
    assert len(tiles) > 2
    _, _, lines, _, left = play(Joined(params, fault), tiles, rng)
    seen = [[vector for *_, vector in each] for each in lines]
    right = [vectors for _, _, _, vectors, _ in tiles]
    assert seen != right
    assert bool(left) == (fault == "clear missing")


class WrongStep(Drain):
    """The planted fault: rows follow one another without the lines between them."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.flush):
            m.d.sync += self.line.eq(self.line + 1)
        return m


@pytest.mark.verifies("planted-fault-line-step-wrong")
def test_fault_a_wrong_line_step_is_caught(rng):
    params = Params(pes=4, **SMALL)
    tiles = []
    while not any(tile["row_pitch"] > tile["row_lines"] < len(vectors) for tile, _, _, vectors, _ in tiles):
        tiles = draw(rng, params, 6)
    _, _, lines, *_ = play(Joined(params, drain=WrongStep), tiles, rng)
    right = [[line for _, line, _ in expected_lines(tile, words, vectors, 0)] for tile, words, _, vectors, _ in tiles]
    assert [[line for _, line, _ in each] for each in lines] != right


@pytest.mark.verifies("planted-fault-round-half-down")
def test_fault_round_half_down_is_caught():
    """The edges tell rounding half up from half down."""
    half_down = [(value + ((1 << 5) >> 1) - 1) >> 5 for value in edges(5)]
    half_up = [(value + ((1 << 5) >> 1)) >> 5 for value in edges(5)]
    assert half_down != half_up


@pytest.mark.verifies("drain-lines-beyond-memory")
def test_a_line_beyond_the_memory_is_not_written(simulate):
    params = Params(pes=1, **{**SMALL, "act_lines": 10})
    dut = Drain(params)
    seen = []

    async def bench(ctx):
        ctx.set(dut.tile[0], {"destination": 8, "row_lines": 9, "row_pitch": 9, "words": 9})
        ctx.set(dut.computed, 1)
        ctx.set(dut.valid, 1)
        for _ in range(4):
            await ctx.tick()
        for _ in range(4):
            ctx.set(dut.flush, 1)
            seen.append((ctx.get(dut.line), ctx.get(dut.write), ctx.get(dut.fault)))
            await ctx.tick()

    simulate(dut, bench)
    assert seen == [(8, 1, 0), (9, 1, 0), (10, 0, 1), (11, 0, 1)]


@pytest.mark.verifies("write-back-restart-vector-under")
def test_a_restart_forgets_the_vector_under_way(simulate):
    """Otherwise it would be written over the next run's input."""
    params = Params(pes=1, **SMALL)
    dut = Writeback(params)
    written = []

    async def bench(ctx):
        word = output_word(params).const({"bias": 5, "last": 1, "flush": 1}).as_value().value
        ctx.set(dut.memory.data[0], word)
        for restart_at in range(12):
            for cycle in range(24):
                ctx.set(dut.high, 100)
                ctx.set(dut.read, cycle == 0)
                ctx.set(dut.restart, cycle == restart_at)
                if ctx.get(dut.o.valid):
                    written.append((restart_at, cycle, ctx.get(dut.o.payload[0])))
                await ctx.tick()

    simulate(dut, bench)
    assert written == [(at, Writeback.LATENCY, 5) for at in range(9, 12)]
