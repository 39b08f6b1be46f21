"""Counters: what is counted for which of two layers under way, and when a record is handed out."""

from __future__ import annotations

import pytest

from hw.counters import Counters
from hw.layouts import COUNTERS
from hw.params import Params


def play(dut, rng, length):
    """Random events in every cycle; tiles of random layers through the banks. Returns records seen and expected.

    expected : by plain sums over what was driven, an event being counted for the layer of its bank in that cycle.
    """
    params = dut.params
    seen, expected = [], []

    async def bench(ctx):
        sums, accepted, finished = {}, {}, {}  # layer → counts
        of = [None, None]  # layer of each bank
        parity, layer, bank, last = 0, -1, 1, True
        step, saturated = 0, 0
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for cycle in range(length):
            now = cycle
            # A tile of three phases: it is accepted, later finished, later written; one a bank, in turn.
            for signal in (dut.accept_layer, dut.finished, dut.written):
                ctx.set(signal, 0)
            quiet = step % 12 > 8  # entries of a tile come before it is finished
            if step % 12 == 0:
                bank, begins = 1 - bank, last
                last = rng.random() < 0.4
                if begins:
                    layer += 1
                    accepted[layer] = now
                    sums[layer] = dict.fromkeys(COUNTERS, 0)
                    ctx.set(dut.accept_layer, 1)
            if step % 12 == 1:
                of[bank] = layer
                if begins:
                    parity = 1 - parity
                ctx.set(dut.front_layer, parity)
                ctx.set(dut.layer_of[bank], parity)
                ctx.set(dut.ends, last << bank | (ctx.get(dut.ends) & ~(1 << bank)))
            if step % 12 == 10:
                ctx.set(dut.finished, 1 << bank)
                finished[layer] = now - 1
            active = of[bank] is not None and 1 < step % 12 and not quiet
            front = layer - (step % 12 == 0 and begins)
            ctx.set(dut.counting, cycle > 0)
            entries = [bool(active and rng.random() < 0.5) for _ in range(params.pes)]
            padding = [entry and rng.random() < 0.3 for entry in entries]
            for pe in range(params.pes):
                ctx.set(dut.activity[pe], {"entry": entries[pe], "padding": padding[pe], "bank": bank})
            blocked, skipped = (bool(active and rng.random() < 0.5) for _ in range(2))
            refill = bool(rng.random() < 0.2 and active)
            clipped = int(rng.integers(0, 1 << params.groups)) if active else 0
            ctx.set(dut.blocked, blocked)
            ctx.set(dut.skipped, skipped)
            ctx.set(dut.scan_bank, bank)
            ctx.set(dut.refill, refill)
            ctx.set(dut.saturated, clipped)
            saturated += clipped.bit_count()
            if active:
                mine = sums[of[bank]]
                mine["entries"] += sum(entries)
                mine["padding"] += sum(padding)
                mine["blocked"] += blocked
                mine["skipped"] += skipped
            if front >= 0 and cycle > 0:
                sums[front]["refill"] += refill
                sums[front]["starved"] += params.pes - sum(entries)
            ctx.set(dut.written_bank, bank)
            if step % 12 == 11:
                ctx.set(dut.written, 1)
                if last:
                    expected.append((layer % 2, {
                        **sums[layer], "saturated": saturated, "accepted": accepted[layer],
                        "finished": finished[layer], "written": now + 1,
                    }))  # fmt: skip
                    saturated = 0
            if ctx.get(dut.write):
                record = ctx.get(dut.record)
                seen.append((1 - ctx.get(dut.layer), {name: record[name] for name in expected[0][1]}))
            step += 1
            await ctx.tick()

    return bench, seen, expected


@pytest.mark.verifies("counters-events-layers-under-way")
@pytest.mark.parametrize("pes", [1, 16])
def test_a_record_sums_over_the_tiles_of_its_layer(simulate, rng, pes):
    dut = Counters(Params(pes=pes))
    bench, seen, expected = play(dut, rng, 600)
    simulate(dut, bench)
    assert len(seen) > 10
    # `starved` is added two cycles late: those of a layer that is written at once are not all in its record.
    for (parity, got), (right, wanted) in zip(seen, expected, strict=False):
        assert parity == right
        assert {**got, "starved": 0} == {**wanted, "starved": 0}
        assert 0 <= wanted["starved"] - got["starved"] <= 3 * pes


@pytest.mark.verifies("counters-stop-largest-value-hardware")
@pytest.mark.parametrize("width", [3, 5])
def test_a_counter_stops_and_does_not_wrap(simulate, rng, monkeypatch, width):
    monkeypatch.setattr("hw.counters.WIDTH", width)
    most = (1 << width) - 1
    dut = Counters(Params(pes=16))
    bench, seen, expected = play(dut, rng, 600)
    simulate(dut, bench)
    assert len(seen) > 10
    stopped = 0
    for (_, got), (_, wanted) in zip(seen, expected, strict=False):
        for name in COUNTERS:
            assert got[name] <= most
            if name != "starved":
                assert got[name] == min(wanted[name], most)
                stopped += wanted[name] > most
    assert stopped > 10
