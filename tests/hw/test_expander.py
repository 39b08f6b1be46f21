from __future__ import annotations

import pytest
from amaranth import Cat

import hw.expander
from hw.expander import Expander
from hw.params import Params
from tests.hw.altered import late_offsets

PARAMS = Params(pes=1, rows=64, weight_words=512)


def random_vectors(rng, count):
    """(base, lengths, mask): any column may have entries, those of the mask have some."""
    vectors = []
    for _ in range(count):
        lengths = [int(n) for n in rng.integers(0, 65, 8) * (rng.random(8) < 0.7)]
        mask = sum(1 << n for n in range(8) if lengths[n] and rng.random() < 0.6)
        if mask:
            vectors.append((int(rng.integers(0, 3000)), lengths, mask))
    return vectors


def columns_of(vectors):
    """What must come out: (word, lane, count, take, last, act, bank) of each column."""
    columns = []
    for j, (base, lengths, mask) in enumerate(vectors):
        for lane in (n for n in range(8) if mask >> n & 1):
            start, count = base + sum(lengths[:lane]), lengths[lane]
            last = not mask >> (lane + 1)
            columns.append((
                start // 8, start % 8, count, min(count, 8 - start % 8), int(last), 8 * j + lane, j & 1,
            ))  # fmt: skip
    return columns


def times(vectors, offered, ready):
    """Cycles in which vectors are taken and columns leave: the recurrences of the docstring.

    `offered`: gap in cycles before each vector is offered, behind the one before. `ready(t)`: weight read's side.
    """
    taken, entered, left = [], [], []
    for (_, _, mask), gap in zip(vectors, offered, strict=True):
        taken.append(max(taken[-1] + 1 + gap, entered[-1]) if taken else gap)
        for n in range(mask.bit_count()):
            cycle = taken[-1] + 1 if n == 0 else 0
            if entered:
                cycle = max(cycle, entered[-1] + 1)
            if len(left) >= 2:
                cycle = max(cycle, left[-2] + 1)
            entered.append(cycle)
            cycle = max(cycle + 1, left[-1] + 1 if left else 0)
            while not ready(cycle):
                cycle += 1
            left.append(cycle)
    return taken, left


def expand(simulate, vectors, offered, ready):
    """Run the block; what came out, and when vectors were taken and columns left."""
    dut = Expander(PARAMS)
    total = sum(mask.bit_count() for _, _, mask in vectors)
    got, taken, left = [], [], []

    async def bench(ctx):
        cycle = waited = sent = 0
        while len(got) < total:
            offer = sent < len(vectors) and waited >= offered[sent]
            ctx.set(dut.i.valid, offer)
            if offer:
                base, lengths, mask = vectors[sent]
                ctx.set(dut.i.payload, {
                    "base": base, "lengths": lengths, "mask": mask, "acts": [8 * sent + n for n in range(8)],
                    "tag": {"bank": sent & 1},
                })  # fmt: skip
            ctx.set(dut.o.ready, ready(cycle))
            if offer and ctx.get(dut.i.ready):
                taken.append(cycle)
                sent, waited = sent + 1, 0
            else:
                waited += 1
            if ctx.get(dut.o.valid) and ready(cycle):
                o = ctx.get(dut.o.payload)
                got.append((o.word, o.lane, o.count, o.take, o.last, o.act, o.tag.bank))
                left.append(cycle)
            await ctx.tick()
            cycle += 1

    simulate(dut, bench)
    return got, taken, left


@pytest.mark.verifies("expander-columns-order-starts-cycle")
@pytest.mark.parametrize(("gap", "pace"), [(0, 1.0), (0, 0.5), (6, 1.0), (4, 0.4), (0, 0.1)])
def test_columns_in_order_at_the_stated_cycles(simulate, rng, gap, pace):
    vectors = random_vectors(rng, 120)
    offered = [int(n) for n in rng.integers(0, gap + 1, len(vectors))]
    pattern = rng.random(20_000) < pace

    def ready(cycle):
        return bool(pattern[cycle])

    got, taken, left = expand(simulate, vectors, offered, ready)
    assert got == columns_of(vectors)
    assert (taken, left) == times(vectors, offered, ready)


@pytest.mark.verifies("expander-columns-order-starts-cycle")
def test_vectors_of_one_column_pass_one_a_cycle(simulate, rng):
    vectors = [(int(rng.integers(0, 3000)), [1] * 8, 1 << int(rng.integers(0, 8))) for _ in range(60)]
    got, taken, left = expand(simulate, vectors, [0] * 60, lambda _: True)
    assert got == columns_of(vectors)
    assert taken == list(range(60))
    assert left == [cycle + Expander.LATENCY for cycle in taken]
    assert Expander.LATENCY == 2


def highest(mask):
    return Cat(mask[n] & ~mask[n + 1 :].any() for n in range(len(mask)))


@pytest.mark.verifies("planted-faults-columns-swapped-start")
@pytest.mark.parametrize(("name", "fault"), [("_lowest", highest), ("_offsets", late_offsets)])
def test_fault_order_swapped_or_sum_off_by_one(simulate, rng, monkeypatch, name, fault):
    monkeypatch.setattr(hw.expander, name, fault)
    vectors = random_vectors(rng, 40)
    got, _, _ = expand(simulate, vectors, [0] * len(vectors), lambda _: True)
    assert got != columns_of(vectors)
