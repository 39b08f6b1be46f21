from __future__ import annotations

import gc

import pytest

from hw.uart import UartReceiver, UartTransmitter


def waveform(frames, divider, pace):
    """Levels of the line, one a cycle. frames : (idle cycles before it, bits); pace : the sender's cycles a cycle."""
    levels, at = [], 0.0
    for idle, bits in frames:
        at += idle
        levels += [1] * (int(at) - len(levels))
        for bit in bits:
            at += divider * pace
            levels += [bit] * (int(at) - len(levels))
    return levels + [1] * (2 * divider)


def frame(byte, stop=1):
    return [0, *(byte >> n & 1 for n in range(8)), stop]


def receive(simulate, dut, levels, ready=lambda cycle: True):
    """Bytes that the receiver hands out."""
    found = []

    async def bench(ctx):
        for cycle, level in enumerate(levels):
            ctx.set(dut.pin, level)
            takes = ready(cycle)
            ctx.set(dut.o.ready, takes)
            if takes and ctx.get(dut.o.valid):
                found.append(ctx.get(dut.o.payload))
            await ctx.tick()

    simulate(dut, bench, watchdog=len(levels) + 10)
    return found


@pytest.mark.verifies("uart-senders-clocks-jitter-gaps")
@pytest.mark.parametrize(("divider", "drift"), [(4, 0.0), (5, 0.0), (16, 0.04), (16, -0.04), (87, 0.03)])
def test_bytes_at_any_distance_by_a_sender_with_another_clock(simulate, rng, divider, drift):
    sent = [int(byte) for byte in rng.integers(0, 256, 24)]
    frames = [(float(rng.choice([0, 0.3, 1, 40.7])), frame(byte)) for byte in sent]
    assert receive(simulate, UartReceiver(divider), waveform(frames, divider, 1 + drift)) == sent


@pytest.mark.verifies("uart-senders-clocks-jitter-gaps")
def test_edges_with_jitter(simulate, rng):
    """Each edge up to an eighth of a bit early or late."""
    sent = [int(byte) for byte in rng.integers(0, 256, 24)]
    levels = [1] * 20
    for byte in sent:
        edges = [16 * n + int(rng.integers(-2, 3)) for n in range(1, 10)]
        bits, start = frame(byte), 0
        for bit, end in zip(bits, [*edges, 160], strict=True):
            levels += [bit] * (end - start)
            start = end
        levels += [1] * int(rng.integers(0, 20))
    assert receive(simulate, UartReceiver(16), levels + [1] * 40) == sent


@pytest.mark.verifies("uart-senders-clocks-jitter-gaps")
def test_short_pulses_and_bytes_without_a_stop_bit_are_dropped(simulate):
    levels = [1] * 10 + [0] * 5 + [1] * 40 + waveform([(0, frame(0x5A, stop=0)), (50, frame(0xC3))], 16, 1)
    assert receive(simulate, UartReceiver(16), levels) == [0xC3]


@pytest.mark.verifies("uart-senders-clocks-jitter-gaps")
def test_a_byte_waits_until_the_next_is_complete(simulate):
    levels = waveform([(3, frame(0x11)), (0, frame(0x22)), (0, frame(0x33))], 8, 1)
    assert receive(simulate, UartReceiver(8), levels, ready=lambda cycle: cycle > 140) == [0x11, 0x22, 0x33]
    assert receive(simulate, UartReceiver(8), levels, ready=lambda cycle: cycle > 250) == [0x33]


@pytest.mark.verifies("planted-fault-receiver-another-rate")
def test_fault_a_receiver_of_another_rate_is_seen(simulate, rng):
    sent = [int(byte) for byte in rng.integers(0, 256, 24)]
    levels = waveform([(5, frame(byte)) for byte in sent], 16, 1)
    assert receive(simulate, UartReceiver(18), levels) != sent


@pytest.mark.verifies("uart-senders-clocks-jitter-gaps")
@pytest.mark.parametrize("divider", [4, 7, 16])
@pytest.mark.parametrize("gaps", [0.0, 0.05])
def test_bytes_are_sent_one_behind_the_other(simulate, rng, divider, gaps):
    dut = UartTransmitter(divider)
    sent = [int(byte) for byte in rng.integers(0, 256, 12)]
    levels = []

    async def bench(ctx):
        left, offered = list(sent), False
        for _ in range(len(sent) * 10 * divider * (2 if gaps else 1) + 2 * divider):
            offered = offered or (bool(left) and (not gaps or rng.random() < gaps))
            ctx.set(dut.i.valid, offered)
            if offered:
                ctx.set(dut.i.payload, left[0])
                if ctx.get(dut.i.ready):
                    left.pop(0)
                    offered = False
            levels.append(ctx.get(dut.pin))
            await ctx.tick()
            ctx.set(dut.i.valid, 0)

    simulate(dut, bench)
    if not gaps:
        assert levels[: 10 * divider * len(sent) + 1] == [
            1,
            *(b for x in sent for bit in frame(x) for b in [bit] * divider),
        ]
    found, at = [], 0
    while at < len(levels):
        if levels[at]:
            at += 1
            continue
        bits = [levels[at + divider * n + divider // 2] for n in range(10)]
        assert (bits[0], bits[9]) == (0, 1)
        found.append(sum(bit << n for n, bit in enumerate(bits[1:9])))
        at += 10 * divider - divider // 2
    assert found == sent


@pytest.mark.filterwarnings("ignore:.*created but never used")  # what was refused, and goes before the test ends
@pytest.mark.parametrize("kind", [UartReceiver, UartTransmitter])
def test_bits_that_are_too_short_are_refused(kind):
    with pytest.raises(ValueError, match="3 cycles") as caught:
        kind(3)
    del caught
    gc.collect()
