"""Recorder: records part by part, what a loop adds up, and how soon the next one may come."""

from __future__ import annotations

from collections import Counter

import pytest

from hw.layouts import COUNTER_MOST, COUNTERS
from hw.params import Params
from hw.recorder import PARTS, Recorder, stored_record
from hw.writeback import Writeback
from sim.formal.planted import planted

PARAMS = Params(pes=1, descriptors=5)
NAMES = ("accepted", "finished", "written", *COUNTERS)


def play(simulate, rng, kind=Recorder, rounds=40, pause=PARTS):
    """Random records one behind the other; returns how many words are right and wrong at the end."""
    dut = kind(PARAMS)
    model, found = {}, Counter()

    async def bench(ctx):
        for _ in range(rounds):
            number = int(rng.integers(0, PARAMS.descriptors))
            again = number in model and rng.random() < 0.7
            new = {
                name: int(rng.choice([rng.integers(0, 1000), rng.integers(1 << 30, 1 << 32)], p=[0.6, 0.4]))
                for name in NAMES
            }
            if again:
                old = model[number]
                model[number] = {
                    **new, "accepted": old["accepted"],
                    **{name: min(old[name] + new[name], COUNTER_MOST) for name in COUNTERS},
                }  # fmt: skip
            else:
                model[number] = new
            for port, value in ((dut.number, number), (dut.again, again), (dut.record, new), (dut.write, 1)):
                ctx.set(port, value)
            await ctx.tick()
            ctx.set(dut.write, 0)
            for _ in range(pause - 1 + int(rng.integers(0, 4)) * int(rng.random() < 0.3)):
                await ctx.tick()
        cycles = 0
        while ctx.get(dut.settling):
            await ctx.tick()
            cycles += 1
        found["late"] = cycles
        for number, wanted in model.items():
            for part, name in enumerate(NAMES):
                ctx.set(dut.r_en, 1)
                ctx.set(dut.r_number, number)
                ctx.set(dut.r_part, part)
                await ctx.tick()
                found[ctx.get(dut.r_data) == wanted[name]] += 1
            whole = stored_record(PARAMS, number, lambda at: ctx.get(dut.memory.data[at]))
            found[whole == sum(wanted[name] << 32 * n for n, name in enumerate(NAMES))] += 1

    simulate(dut, bench)
    return found


@pytest.mark.verifies("recorder-records-and-sums")
def test_records_and_sums_are_in_memory(simulate, rng):
    found = play(simulate, rng)
    assert found[True] > 20
    assert not found[False]
    assert found["late"] <= Recorder.LATENCY


@pytest.mark.verifies("recorder-no-record-too-soon")
def test_no_tile_is_written_sooner_than_a_record():
    """Idle, one word of the output table, and what it takes to write the last vector."""
    assert 1 + 1 + Writeback.LATENCY >= PARTS == len(NAMES)


@pytest.mark.verifies("planted-faults-recorder")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mine.eq(0), before.eq(memory.r_data)", "before.eq(memory.r_data)"),  # accepted of the first round
        ("(total > COUNTER_MOST).replicate(32)", "0"),  # counters wrap
        ("adds.eq(self.again)", "adds.eq(1)"),  # records of an earlier run
        ("memory.w_addr.eq(places[-1])", "memory.w_addr.eq(places[-2])"),  # the next part
        ("for name in COUNTERS).any()", "for name in COUNTERS[1:]).any()"),  # a counter is left out
    ],
)
def test_faults_are_caught(simulate, rng, old, new):
    assert play(simulate, rng, planted(Recorder, old, new))[False]


@pytest.mark.verifies("planted-faults-recorder")
def test_a_record_too_soon_spoils_the_one_before(simulate, rng):
    assert play(simulate, rng, pause=PARTS - 3)[False]
