from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from amaranth import Const, Module, Signal
from amaranth.lib import wiring

import hw.activation_queue
import hw.expander
import hw.mac
import hw.pe
import hw.pointer_read
from hw.expander import Expander
from hw.layouts import Memory, pointer_block
from hw.params import LANES, ROUND_TRIP, Params
from hw.pe import ProcessingElement
from tests.hw.altered import late_offsets
from tests.hw.pe_model import Tile, Times, Vector, Weights

SMALL = Params(pes=1, rows=16, weight_words=128, pointer_blocks=16, codebooks=2, queue_depth=8)


@dataclass
class Seen:
    """What a run of the PE showed: cycles count from the first in which a vector may fire."""

    fired: list = field(default_factory=list)
    selected: list = field(default_factory=list)
    padding: int = 0
    credit: list = field(default_factory=list)
    busy: list = field(default_factory=list)
    tile_busy: list = field(default_factory=list)
    sums: list = field(default_factory=list)  # of each tile
    left: list = field(default_factory=list)  # in both banks, at the end


def run(simulate, rng, weights, tiles, *, pace=1.0, sent_mask=lambda mask: mask, watchdog=20_000, early=0):
    """Tiles through a PE as in the array: one bank is drained while the other is used.

    sent_mask, early : to plant faults: what is sent of a mask, and how many cycles too early activations come.
    """
    params = weights.params
    acts_late = ProcessingElement.acts_late(params) - early
    dut = ProcessingElement(params)
    seen = Seen()
    order = [int(n) for n in rng.permutation(params.rows)]
    late = deque([[0] * LANES] * (acts_late + 1), acts_late + 1)  # activations come so many cycles after their vector
    vectors = [(n, vector) for n, tile in enumerate(tiles) for vector in tile.vectors]
    maximum = sum(1 << bank for bank in range(2) if any(t.maximum for t in tiles if t.bank == bank))

    async def prepare(ctx):
        for memory, address, word in weights.words():
            ctx.set(dut.host.valid, 1)
            ctx.set(dut.host.payload, {"memory": memory.value, "address": address, "data": word})
            await ctx.tick()
        ctx.set(dut.host.valid, 0)
        ctx.set(dut.drain.clear_all, 1)
        for slot in range(params.rows):
            ctx.set(dut.drain.clear_slot, slot)
            await ctx.tick()
        ctx.set(dut.drain.clear_all, 0)
        ctx.set(dut.maximum, maximum)

    def send(ctx, n, vector):
        tile = tiles[n]
        late[-1] = [act & 0xFFFF for act in vector.acts]
        ctx.set(dut.i.payload, {
            "pointers": vector.block, "mask": sent_mask(vector.mask), "acts": late[0],
            "tag": {"bank": tile.bank, "codebook": tile.codebook, **({"tile": tile.buffer} if params.refill else {})},
        })  # fmt: skip

    def watch(ctx, cycle):
        seen.credit.append(ctx.get(dut.credit))
        seen.busy.append(ctx.get(dut.busy))
        if params.refill:
            seen.tile_busy.append(ctx.get(dut.tile_busy))
        if ctx.get(dut.activity.entry):
            seen.selected.append((cycle - 1, ctx.get(dut.activity.bank)))  # in the cycle before
            seen.padding += ctx.get(dut.activity.padding)

    async def bench(ctx):
        await prepare(ctx)
        cycle, arriving = 0, None
        step, sums = None, {}  # of the drain: accumulators read so far
        while len(seen.sums) < len(tiles):
            watch(ctx, cycle)
            late.append([0] * LANES)
            ctx.set(dut.i.p.acts, late[0])
            ctx.set(dut.i.valid, arriving is not None)
            if arriving is not None:
                send(ctx, *arriving)
            arriving = None
            if len(seen.fired) < len(vectors) and seen.credit[-1] and rng.random() < pace:
                n, vector = vectors[len(seen.fired)]
                if n < len(seen.sums) + 2:  # its bank is free
                    arriving = n, vector
                    seen.fired.append(cycle)

            bank = tiles[len(seen.sums)].bank
            sent = sum(len(tile.vectors) for tile in tiles[: len(seen.sums) + 1])
            arrived = len(seen.fired) >= sent and cycle >= seen.fired[sent - 1] + 2
            if step is None and arrived and not ctx.get(dut.busy) >> bank & 1:
                step = 0
            ctx.set(dut.drain.clear, 0)
            if step is not None:
                ctx.set(dut.drain.bank, bank)
                ctx.set(dut.drain.slot, order[min(step, params.rows - 1)])
                if step >= 2:  # each is read a cycle after its slot came, and cleared in the cycle after that
                    sums[order[step - 2]] = ctx.get(dut.sum)
                    ctx.set(dut.drain.clear, 1)
                    ctx.set(dut.drain.clear_slot, order[step - 2])
                step += 1
                if step > params.rows + 1:
                    seen.sums.append([sums[slot] for slot in range(params.rows)])
                    step, sums = None, {}
            await ctx.tick()
            cycle += 1
        ctx.set(dut.drain.clear, 0)
        for bank in range(2):
            ctx.set(dut.drain.bank, bank)
            for slot in range(params.rows):
                ctx.set(dut.drain.slot, slot)
                await ctx.tick().repeat(2)
                seen.left.append(ctx.get(dut.sum))

    simulate(dut, bench, watchdog=watchdog)
    return seen


def expected_times(weights, tiles, seen):
    vectors = [vector for tile in tiles for vector in tile.vectors]
    return Times.of(weights.params.queue_depth, seen.fired, [weights.columns(vector) for vector in vectors])


def check_sums(weights, tiles, seen):
    assert seen.sums == [weights.accumulate(tile) for tile in tiles]
    assert not any(seen.left)


def check_times(weights, tiles, seen):
    times = expected_times(weights, tiles, seen)
    owners = [tile for tile in tiles for _ in tile.vectors]
    assert [cycle for cycle, _ in seen.selected] == times.selected
    assert seen.credit == [times.credit(cycle) for cycle in range(len(seen.credit))]

    def busy(bits):
        """Bit n of a cycle: some vector is on its way whose owner has bit n in `bits`."""
        shown = [0] * len(seen.busy)
        for (first, last), owner in zip(times.busy, owners, strict=True):
            for cycle in range(first, last + 1):
                shown[cycle] |= bits(owner)
        return shown

    assert seen.busy == busy(lambda tile: 1 << tile.bank)
    if weights.params.refill:
        assert seen.tile_busy == busy(lambda tile: tile.buffer)


CASES = [
    (Params(pes=1, rows=16, index_bits=4, code_bits=2, queue_depth=6, weight_words=512, pointer_blocks=16,
            codebooks=1), 1.0, 0b00),
    (Params(pes=1, rows=64, index_bits=6, code_bits=4, queue_depth=8, weight_words=1024, pointer_blocks=16,
            codebooks=5, refill=False), 0.3, 0b10),
    (Params(pes=1, rows=100, index_bits=4, code_bits=4, queue_depth=13, weight_words=1024, pointer_blocks=16,
            codebooks=3), 1.0, 0b01),
    (Params(pes=1, rows=256, index_bits=8, code_bits=8, queue_depth=32, weight_words=4096, pointer_blocks=16,
            codebooks=2, acc_bits=33), 1.0, 0b00),
    (Params(pes=1, rows=256, index_bits=4, code_bits=2, queue_depth=7, weight_words=4096, pointer_blocks=16,
            codebooks=64, acc_bits=48), 0.05, 0b00),
]  # fmt: skip


@pytest.mark.verifies("pe-accumulators-random-tiles-event")
@pytest.mark.parametrize("case", range(len(CASES)))
def test_accumulators_and_times_of_random_tiles(simulate, rng, case):
    params, pace, maximum = CASES[case]
    # Columns of no entry, of a few, and of several weight words; no more of the long ones than the time allows.
    densities = (0, 0, 2 / params.rows, 8 / params.rows, 30 / params.rows)
    weights = Weights.random(params, rng, 12, densities=densities, padding=not maximum)
    tiles = [Tile.random(params, rng, 12, n, maximum=maximum, vectors=20) for n in range(5)]
    seen = run(simulate, rng, weights, tiles, pace=pace)
    check_sums(weights, tiles, seen)
    check_times(weights, tiles, seen)
    work = [weights.columns(vector) for tile in tiles for vector in tile.vectors]
    assert any(not columns for columns in work) or params.rows > 64  # some vectors are dropped
    assert bool(seen.padding) == (params.index_bits == 4 and not maximum and params.rows > 16)


@pytest.mark.verifies("pe-latencies-idle-dropped-vectors")
@pytest.mark.parametrize("depth", [6, 7, 32])
def test_vectors_of_one_entry_pass_one_a_cycle(simulate, rng, depth):
    params = SMALL.replace(queue_depth=depth)
    weights = Weights.random(params, rng, 4, densities=(0.2,))
    tiles = [Tile.random(params, rng, 4, 0, vectors=0)]
    single = [(block, lane) for block in range(4) for lane in range(8) if weights.lengths[block][lane] == 1]
    tiles[0].vectors = [Vector(block, 1 << lane, [7] * 8) for block, lane in single * 20]
    seen = run(simulate, rng, weights, tiles)
    check_sums(weights, tiles, seen)
    check_times(weights, tiles, seen)
    length = seen.selected[-1][0] - seen.selected[0][0] + 1
    # The least queue counts the one vector that is always in it, and closes: 7 vectors are the least for full speed.
    assert (length == len(seen.selected)) == (depth >= 7)


@pytest.mark.verifies("pe-latencies-idle-dropped-vectors")
def test_an_idle_pe_takes_the_stated_cycles(simulate, rng):
    weights = Weights.random(SMALL, rng, 4, densities=(0.3,))
    tiles = [Tile(1, 1, 2, False, [Vector(2, 0xFF, [100 + n for n in range(8)])])]
    seen = run(simulate, rng, weights, tiles)
    check_sums(weights, tiles, seen)
    (fired,) = seen.fired
    arrives = fired + 1  # behind the register of the broadcast
    entries = sum(weights.lengths[2])
    assert seen.selected == [(arrives + ProcessingElement.TO_SELECT + n, 1) for n in range(entries)]
    busy = [cycle for cycle, bits in enumerate(seen.busy) if bits]
    assert busy == list(range(arrives + 1, seen.selected[-1][0] + ProcessingElement.SELECT_TO_WRITE + 1))
    assert (ProcessingElement.TO_QUEUE, ProcessingElement.TO_SELECT, ProcessingElement.SELECT_TO_WRITE) == (3, 9, 3)


@pytest.mark.verifies("pe-latencies-idle-dropped-vectors")
def test_a_vector_without_work_leaves_after_four_cycles(simulate, rng):
    weights = Weights.random(SMALL, rng, 1, densities=(0,))
    tiles = [Tile(0, 0, 1, False, [Vector(0, 0xFF, [7] * 8)])]
    seen = run(simulate, rng, weights, tiles)
    (fired,) = seen.fired
    assert [cycle for cycle, bits in enumerate(seen.busy) if bits] == [fired + 2, fired + 3, fired + 4]
    assert not seen.selected
    assert seen.tile_busy == seen.busy


@pytest.mark.verifies("hops-host-words")
@pytest.mark.parametrize("hops", [0, 1, 2])
def test_a_vector_reads_what_was_written_in_the_cycle_before_it(simulate, hops):
    params = SMALL.replace(hops=hops, queue_depth=16)
    dut = ProcessingElement(params)
    entries = []

    def word(length):
        return pointer_block(params).const({"base": 0, "lengths": [length, *[0] * 7]}).as_value().value

    async def bench(ctx):
        for length in (0, 3, 0, 2):  # each is written over the one before, which no vector may see
            ctx.set(dut.host.valid, 1)
            ctx.set(dut.host.payload, {"memory": Memory.POINTERS.value, "address": 1, "data": word(length)})
            await ctx.tick()
            ctx.set(dut.host.valid, 0)
            ctx.set(dut.i.valid, 1)
            ctx.set(dut.i.payload, {"pointers": 1, "mask": 1})
            found = 0
            for _ in range(hops + 20):
                await ctx.tick()
                ctx.set(dut.i.valid, 0)
                found += ctx.get(dut.activity.entry)
            entries.append(found)

    simulate(dut, bench)
    assert entries == [0, 3, 0, 2]


class Bubble(wiring.Component):
    """An expander that takes no vector in the cycle after one: right sums, but late."""

    def __init__(self, params):
        self.inner = Expander(params)
        super().__init__(self.inner.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = self.inner
        wiring.connect(m, inner.o, wiring.flipped(self.o))
        waits = Signal()
        m.d.sync += waits.eq(self.i.valid & self.i.ready)
        m.d.comb += [
            inner.i.payload.eq(self.i.payload), inner.i.valid.eq(self.i.valid & ~waits),
            self.i.ready.eq(inner.i.ready & ~waits),
        ]  # fmt: skip
        return m


def without_bypass(select, yes, no, original=hw.mac.Mux):
    return no if getattr(select, "name", "") == "forward" else original(select, yes, no)


PLANTED = {
    "no bypass": (hw.mac, "Mux", without_bypass),
    "prefix sum off by one": (hw.expander, "_offsets", late_offsets),
    "columns without entries stay": (hw.pointer_read, "Cat", lambda _: Const(0xFF, 8)),
    "bubble": (hw.pe, "Expander", Bubble),
    "credit one late": (hw.activation_queue, "ROUND_TRIP", ROUND_TRIP - 1),
}


def faulty(simulate, rng, monkeypatch, name):
    """A run with a fault; returns weights, tiles and what was seen."""
    if name in PLANTED:
        monkeypatch.setattr(*PLANTED[name])
    params = SMALL.replace(rows=17) if name == "no bypass" else SMALL  # fewer are read in the cycle of the write
    weights = Weights.random(params, rng, 12, densities=(0, 0, 0, 0.05, 0.3))
    tiles = [Tile.random(params, rng, 12, n) for n in range(3)]

    def mask(sent):
        return 0xFF if name == "mask ignored" else sent

    return (
        weights,
        tiles,
        run(simulate, rng, weights, tiles, sent_mask=mask, watchdog=3_000, early=name == "activations early"),
    )


@pytest.mark.verifies("pe-accumulators-random-tiles-event")
def test_without_a_fault_all_is_as_it_should_be(simulate, rng, monkeypatch):
    weights, tiles, seen = faulty(simulate, rng, monkeypatch, "none")
    check_sums(weights, tiles, seen)
    check_times(weights, tiles, seen)


@pytest.mark.verifies("planted-faults-sums-times-columns")
@pytest.mark.parametrize("name", ["no bypass", "prefix sum off by one", "mask ignored", "activations early"])
def test_fault_in_the_sums(simulate, rng, monkeypatch, name):
    weights, tiles, seen = faulty(simulate, rng, monkeypatch, name)
    with pytest.raises(AssertionError):
        check_sums(weights, tiles, seen)


@pytest.mark.verifies("planted-faults-sums-times-columns")
@pytest.mark.parametrize("name", ["bubble", "mask ignored"])
def test_fault_in_the_times(simulate, rng, monkeypatch, name):
    weights, tiles, seen = faulty(simulate, rng, monkeypatch, name)
    with pytest.raises(AssertionError):
        check_times(weights, tiles, seen)


@pytest.mark.verifies("planted-faults-sums-times-columns")
def test_fault_columns_without_entries_stop_the_pe(simulate, rng, monkeypatch):
    with pytest.raises(AssertionError, match="watchdog"):
        faulty(simulate, rng, monkeypatch, "columns without entries stay")


@pytest.mark.verifies("planted-faults-sums-times-columns")
def test_fault_credit_one_late(simulate, rng, monkeypatch):
    with pytest.raises(AssertionError):  # the queue's own assertion, or the times of the credit flag
        check_times(*faulty(simulate, rng, monkeypatch, "credit one late"))
