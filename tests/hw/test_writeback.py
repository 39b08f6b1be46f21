from __future__ import annotations

import pytest

from hw.drain import Drain
from hw.layouts import Function
from hw.params import Params
from hw.writeback import Writeback


def requantize(total, shift, relu, acc_bits):
    """The write-back formula of docs/numerics.md in Python integers."""
    wrap = 1 << acc_bits
    total = (total + wrap // 2) % wrap - wrap // 2
    if relu:
        total = max(total, 0)
    scaled = (total + ((1 << shift) >> 1)) >> shift
    return max(-32768, min(32767, scaled)), not -32768 <= scaled <= 32767


def edges(shift):
    """Sums around rounding ties and saturation for one shift."""
    half, one = (1 << shift) >> 1, 1 << shift
    return [0, -1, 1, half, half - 1, -half, -half - 1, one, 32767 * one, 32767 * one + half - 1, 32767 * one + half,
            -32768 * one - half, -32768 * one - half - 1, (1 << 39) - 1, -(1 << 39)]  # fmt: skip


@pytest.mark.parametrize("pes", [1, 4, 8])
def test_writeback_rounds_saturates_and_packs(simulate, rng, pes):
    params = Params(pes=pes, bias_words=512)
    dut = Writeback(params)
    steps = []
    for shift in (0, 1, 5, 16, 31):
        for value in edges(shift):
            bias = int(rng.integers(-(1 << 39), 1 << 39)) if rng.random() < 0.5 else 0
            steps.append((value, bias, shift, bool(rng.random() < 0.4)))
    while len(steps) % 8 != 5:  # the last activation vector is not full
        steps.append((int(rng.integers(-(1 << 39), 1 << 39)), 0, 20, False))
    got, saturated = [], 0

    async def bench(ctx):
        nonlocal saturated
        for address, (_, bias, _, _) in enumerate(steps):
            ctx.set(dut.w_en, 1)
            ctx.set(dut.w_addr, address)
            ctx.set(dut.w_data, bias & ((1 << 40) - 1))
            await ctx.tick()
        ctx.set(dut.w_en, 0)
        for cycle in range(len(steps) + 6):
            ctx.set(dut.i.valid, cycle < len(steps))
            if cycle < len(steps):
                value, bias, shift, relu = steps[cycle]
                lane = cycle % 8
                ctx.set(dut.i.payload, {
                    "pe": cycle % pes, "lane": lane, "first": 1, "last": 1,
                    "flush": int(lane == 7 or cycle == len(steps) - 1),
                    "bias": cycle, "shift": shift, "relu": int(relu),
                })  # fmt: skip
                for pe in range(pes):
                    ctx.set(dut.sums[pe], (value - bias) if pe == cycle % pes else 12345)
            saturated += ctx.get(dut.saturated)
            if ctx.get(dut.o.valid):
                got.append((cycle, [ctx.get(dut.o.payload[lane]) for lane in range(8)]))
            await ctx.tick()

    simulate(dut, bench)
    outputs = [requantize(value, shift, relu, 40) for value, _, shift, relu in steps]
    packed = [out & 0xFFFF for out, _ in outputs] + [0] * (-len(outputs) % 8)
    completes = [min(8 * n + 7, len(steps) - 1) for n in range(len(packed) // 8)]
    assert got == [(at + 4, packed[8 * n : 8 * n + 8]) for n, at in enumerate(completes)]  # LATENCY 4
    assert saturated == sum(clipped for _, clipped in outputs) > 5


@pytest.mark.parametrize(("pes", "split"), [(2, 2), (4, 2), (4, 4), (8, 2), (8, 4), (8, 8)])
def test_fragments_are_summed_with_one_bias(simulate, rng, pes, split):
    params = Params(pes=pes, bias_words=64)
    dut = Writeback(params)
    outputs = 13
    parts = [[int(v) for v in rng.integers(-(1 << 39), 1 << 39, split)] for _ in range(outputs)]
    bias = [int(v) for v in rng.integers(-(1 << 20), 1 << 20, outputs)]
    got, saturated = [], 0

    async def bench(ctx):
        nonlocal saturated
        for address, value in enumerate(bias):
            ctx.set(dut.w_en, 1)
            ctx.set(dut.w_addr, address)
            ctx.set(dut.w_data, value & ((1 << 40) - 1))
            await ctx.tick()
        ctx.set(dut.w_en, 0)
        for cycle in range(outputs * split + 6):
            output, part = divmod(cycle, split)
            ctx.set(dut.i.valid, output < outputs)
            if output < outputs:
                lane, last = output % 8, part == split - 1
                ctx.set(dut.i.payload, {
                    "pe": cycle % pes, "lane": lane, "first": part == 0, "last": last,
                    "flush": last and (lane == 7 or output == outputs - 1), "bias": output, "shift": 20, "relu": 0,
                })  # fmt: skip
                ctx.set(dut.sums[cycle % pes], parts[output][part])
            saturated += ctx.get(dut.saturated)
            if ctx.get(dut.o.valid):
                got.append((cycle, [ctx.get(dut.o.payload[lane]) for lane in range(8)]))
            await ctx.tick()

    simulate(dut, bench)
    right = [requantize(sum(part) + b, 20, False, 40) for part, b in zip(parts, bias, strict=True)]
    packed = [out & 0xFFFF for out, _ in right] + [0] * (-outputs % 8)
    assert got == [(8 * split - 1 + 4, packed[:8]), (outputs * split - 1 + 4, packed[8:])]
    assert saturated == sum(clipped for _, clipped in right)


def test_fault_round_half_down_is_caught():
    """The reference of the test above tells rounding half up from half down."""
    half_down = [(value + ((1 << 5) >> 1) - 1) >> 5 for value in edges(5)]
    half_up = [(value + ((1 << 5) >> 1)) >> 5 for value in edges(5)]
    assert half_down != half_up


@pytest.mark.parametrize("pes", [1, 2, 8, 16])
def test_drain_walks_slots_and_pes_and_clears_behind(simulate, pes):
    params = Params(pes=pes, rows=32)
    dut = Drain(params)
    slots, reads, steps, clears, written, lines = 5, [], [], [], [], []

    async def bench(ctx):
        ctx.set(dut.layer[0], {"destination": 40, "slots": slots, "bias": 7, "shift": 3, "function": Function.RELU})
        pending = []
        ctx.set(dut.computed, 1)
        for cycle in range(120):
            # Writeback's part: an activation vector is written LATENCY cycles after the step that completes it.
            ctx.set(dut.write, cycle in pending)
            if cycle in pending:
                lines.append((cycle, ctx.get(dut.line)))
            if ctx.get(dut.step.valid):
                step = ctx.get(dut.step.payload)
                assert (step.shift, step.relu) == (3, 1)
                steps.append((cycle, step.pe, step.lane, step.bias, step.flush))
                reads.append((cycle - 1, None))
                if step.flush:
                    pending.append(cycle + Writeback.LATENCY)
            if ctx.get(dut.request.clear):
                clears.append((cycle, ctx.get(dut.request.clear_slot)))
            if ctx.get(dut.written):
                written.append(cycle)
                ctx.set(dut.computed, 0)
            await ctx.tick()

    simulate(dut, bench)
    total = slots * params.group
    # computed seen in cycle 0, read from 1 on, step one cycle after the read.
    assert [s[0] for s in steps] == list(range(2, 2 + total))
    assert [s[1] for s in steps] == [n % params.group for n in range(total)]
    assert [s[2] for s in steps] == [n % 8 for n in range(total)]
    assert [s[3] for s in steps] == [7 + n for n in range(total)]
    assert [s[4] for s in steps] == [int(n % 8 == 7 or n == total - 1) for n in range(total)]
    assert clears == [(1 + params.group * (slot + 1), slot) for slot in range(slots)]
    assert written == [total + Drain.FLUSH]
    assert [line for _, line in lines] == [40 + n for n in range(-(-total // 8))]
    assert lines[-1][0] == written[0]


@pytest.mark.parametrize(("pes", "split"), [(2, 2), (4, 4), (8, 2), (8, 4), (8, 8), (16, 8)])
def test_drain_ends_an_output_with_the_last_of_its_fragments(simulate, pes, split):
    params = Params(pes=pes, rows=32)
    dut = Drain(params)
    slots, fragment_slots, steps, written = 5, 3, [], []

    async def bench(ctx):
        ctx.set(dut.layer[0], {
            "slots": slots, "fragment_slots": fragment_slots, "fragment_log2": split.bit_length() - 1, "bias": 7,
        })  # fmt: skip
        ctx.set(dut.computed, 1)
        for cycle in range(120):
            if ctx.get(dut.step.valid):
                step = ctx.get(dut.step.payload)
                steps.append((cycle, step.pe, step.lane, step.bias, step.first, step.last, step.flush))
            if ctx.get(dut.written):
                written.append(cycle)
                ctx.set(dut.computed, 0)
            await ctx.tick()

    simulate(dut, bench)
    group = params.group
    shares = [1] * ((slots - fragment_slots) * group) + [split] * (fragment_slots * group // split)
    expected, read = [], 0
    for output, share in enumerate(shares):
        for part in range(share):
            last = part == share - 1
            flush = last and (output % 8 == 7 or output == len(shares) - 1)
            expected.append((2 + read, read % group, output % 8, 7 + output, part == 0, last, flush))
            read += 1
    assert steps == expected
    assert written == [slots * group + Drain.FLUSH]
