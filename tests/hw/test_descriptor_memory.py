"""Descriptors of a slim array, fetched by words of 32 bits."""

from __future__ import annotations

import pytest
from amaranth import Cat

import hw.descriptor_memory
from hw.descriptor_memory import SlimDescriptors
from hw.layouts import descriptor
from hw.params import DESCRIPTOR_PARTS, Params, ParamsError

PARAMS = Params(pes=1, descriptors=5, slim=True, elementwise=False, streams=False, refill=False)
LATENCY = DESCRIPTOR_PARTS + 2


def wrong_after(simulate, rng, fetches=12):
    """Fetches random descriptors, some given up; how often one was not there in time, or not what was written."""
    dut = SlimDescriptors(PARAMS)
    words = [int.from_bytes(rng.bytes(96), "little") for _ in range(PARAMS.descriptors)]
    wrong = 0

    async def bench(ctx):
        nonlocal wrong
        ctx.set(dut.w_en, 1)
        for number, word in enumerate(words):
            for part in range(DESCRIPTOR_PARTS):
                ctx.set(dut.w_number, number)
                ctx.set(dut.w_part, part)
                ctx.set(dut.w_data, word >> 32 * part & 0xFFFFFFFF)
                await ctx.tick()
        ctx.set(dut.w_en, 0)

        async def fetch(number, cycles):
            ctx.set(dut.r_en, 1)
            ctx.set(dut.r_number, number)
            await ctx.tick()
            ctx.set(dut.r_en, 0)
            ctx.set(dut.r_number, int(rng.integers(PARAMS.descriptors)))
            early = 0
            for _ in range(cycles - 1):
                early += ctx.get(dut.ready)
                await ctx.tick()
            return early

        for _ in range(fetches):
            if rng.random() < 0.5:
                wrong += await fetch(int(rng.integers(PARAMS.descriptors)), int(rng.integers(1, LATENCY)))
            number = int(rng.integers(PARAMS.descriptors))
            wrong += await fetch(number, LATENCY)
            for _ in range(3):  # it stands
                wrong += not ctx.get(dut.ready) or ctx.get(dut.r_data.as_value()) != words[number]
                await ctx.tick()
            part = int(rng.integers(DESCRIPTOR_PARTS))
            ctx.set(dut.p_en, 1)
            ctx.set(dut.p_number, number)
            ctx.set(dut.p_part, part)
            await ctx.tick()
            ctx.set(dut.p_en, 0)
            wrong += ctx.get(dut.p_data) != words[number] >> 32 * part & 0xFFFFFFFF

    simulate(dut, bench)
    return wrong


@pytest.mark.verifies("slim-descriptors-fetched")
def test_a_descriptor_is_there_after_its_words_and_stands(simulate, rng):
    assert wrong_after(simulate, rng) == 0


@pytest.mark.verifies("slim-descriptors-fetched")
@pytest.mark.parametrize("fault", ["a word less", "the first word on top"])
def test_fault_in_a_fetch_is_seen(simulate, rng, monkeypatch, fault):
    if fault == "a word less":
        monkeypatch.setattr(hw.descriptor_memory, "DESCRIPTOR_PARTS", DESCRIPTOR_PARTS - 1)
    else:
        last = descriptor(PARAMS).size - 32
        monkeypatch.setattr(hw.descriptor_memory, "Cat", lambda a, b: Cat(b, a) if len(a) == last else Cat(a, b))
    assert wrong_after(simulate, rng, fetches=3)


@pytest.mark.verifies("slim-descriptors-fetched")
@pytest.mark.parametrize("unit", ["streams", "refill", "elementwise"])
def test_a_slim_array_has_no_units_of_large_ones(unit):
    with pytest.raises(ParamsError, match=f"slim is true with {unit}; expected false"):
        PARAMS.replace(**{unit: True})
