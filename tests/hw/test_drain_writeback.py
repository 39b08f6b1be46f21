"""Drain, write-back and the accumulators joined as the core joins them: layer after layer, banks in turn."""

from __future__ import annotations

import pytest
from amaranth import Elaboratable, Module
from amaranth.sim import Simulator

from hw.drain import Drain
from hw.layouts import Function
from hw.mac import Mac
from hw.params import Params
from hw.writeback import Writeback

BIAS_WORDS = 256


class Joined(Elaboratable):
    """One write-back group. With `lose`, each accumulator of a split row begins anew: only the last one counts."""

    def __init__(self, params, lose=False):
        self.params, self.lose = params, lose
        self.drain, self.writeback = Drain(params), Writeback(params)
        self.macs = [Mac(params) for _ in range(params.group)]

    def elaborate(self, platform):
        m = Module()
        m.submodules.drain, m.submodules.writeback = drain, writeback = self.drain, self.writeback
        m.d.comb += [
            writeback.i.valid.eq(drain.step.valid), writeback.i.payload.eq(drain.step.payload),
            drain.write.eq(writeback.o.valid),
        ]  # fmt: skip
        if self.lose:
            m.d.comb += writeback.i.p.first.eq(1)
        for n, mac in enumerate(self.macs):
            m.submodules[f"mac_{n}"] = mac
            m.d.comb += [mac.drain.eq(drain.request), writeback.sums[n].eq(mac.sum)]
        return m


def random_layer(rng, params, split, bias):
    """(what drain is told, products (PE, row, weight, act), outputs in order, what completes each, saturated)."""
    slots = int(rng.integers(1, params.rows + 1))
    fragment_slots = int(rng.integers(0, slots + 1)) if split > 1 else 0
    shift, relu = int(rng.choice([0, 7, 14, 17])), bool(rng.random() < 0.5)
    products = [
        (int(pe), int(row), int(w), int(a))
        for pe, row, w, a in zip(rng.integers(0, params.group, 3 * slots * params.group),
                                 rng.integers(0, slots, 3 * slots * params.group),
                                 rng.integers(-32768, 32768, 3 * slots * params.group),
                                 rng.integers(-32768, 32768, 3 * slots * params.group), strict=True)
    ]  # fmt: skip
    sums = [[0] * params.group for _ in range(slots)]
    for pe, row, weight, act in products:
        sums[row][pe] += weight * act
    totals, ends = [], []  # of each output: its sum without bias, and which accumulator completes it
    for slot in range(slots):
        share = split if slot >= slots - fragment_slots else 1
        for pe in range(0, params.group, share):
            totals.append(sum(sums[slot][pe : pe + share]))
            ends.append(slot * params.group + pe + share - 1)
    first = int(rng.integers(0, BIAS_WORDS - len(totals) + 1))
    results, saturated = [], 0
    for n, total in enumerate(totals):
        total += bias[first + n]
        scaled = (max(total, 0) if relu else total) + ((1 << shift) >> 1) >> shift
        results.append(max(-32768, min(32767, scaled)))
        saturated += results[-1] != scaled
    layer = {
        "destination": int(rng.integers(0, 1000)), "slots": slots, "fragment_slots": fragment_slots,
        "fragment_log2": split.bit_length() - 1, "bias": first, "shift": shift,
        "function": Function.RELU if relu else Function.NONE,
    }  # fmt: skip
    return layer, products, results, ends, saturated


def random_bias(rng):
    return [int(v) for v in rng.integers(-(1 << 30), 1 << 30, BIAS_WORDS)]


def play(dut, layers, bias, rng):
    """Compute layer after layer in alternate banks, each while the one before is written back.

    Returns lists over the layers: cycles in which `computed` rose, of `written`, [(cycle, line, activation vector)]
    and saturated outputs; and the sums left in the accumulators at the end.
    """
    params = dut.params
    drain, writeback, macs = dut.drain, dut.writeback, dut.macs
    computed, written, act_vectors, saturated = [], [], [[] for _ in layers], [0] * (len(layers) + 1)

    async def bench(ctx):
        for slot in range(params.rows):
            for mac in macs:
                for bank in mac.banks:
                    ctx.set(bank.data[slot], 0)
        for address, value in enumerate(bias):
            ctx.set(writeback.memory.data[address], value)
        cycle = 0

        async def step():
            nonlocal cycle
            assert cycle < 20_000, "watchdog"
            if ctx.get(writeback.o.valid):
                act_vector = [ctx.get(writeback.o.payload[lane]) for lane in range(8)]
                act_vectors[len(written)].append((cycle, ctx.get(drain.line), act_vector))
            saturated[len(written)] += ctx.get(writeback.saturated)
            bank, over = ctx.get(drain.bank), ctx.get(drain.written)
            await ctx.tick()
            if over:
                written.append(cycle)
                ctx.set(drain.computed[bank], 0)
            cycle += 1

        for n, (layer, products, *_) in enumerate(layers):
            while len(written) < n - 1:  # as control does: the bank must be free
                await step()
            ctx.set(drain.layer[n % 2], layer)
            waiting = list(products)
            while waiting:
                for pe, mac in enumerate(macs):
                    mine = next((product for product in waiting if product[0] == pe), None)
                    here = mine is not None and rng.random() < 0.7
                    ctx.set(mac.i.valid, here)
                    if here:
                        waiting.remove(mine)
                        _, row, weight, act = mine
                        ctx.set(mac.i.payload, {"weight": {"raw": weight & 0xFFFF}, "act": act & 0xFFFF, "row": row,
                                                "tag": {"bank": n % 2}, "last": 1})  # fmt: skip
                await step()
            for mac in macs:
                ctx.set(mac.i.valid, 0)
            await step()  # the last sum is written in this cycle
            ctx.set(drain.computed[n % 2], 1)
            computed.append(cycle)
        while len(written) < len(layers):
            await step()
        await step()
        return [
            [ctx.get(bank.data[slot]) for bank in mac.banks for slot in range(params.rows)] for mac in macs
        ]  # fmt: skip

    left = []
    simulator = Simulator(dut)
    simulator.add_clock(1e-9)

    async def whole(ctx):
        left.extend(await bench(ctx))

    simulator.add_testbench(whole)
    simulator.run()
    return computed, written, act_vectors, saturated, left


@pytest.mark.parametrize(
    ("group", "split"), [(group, split) for group in (1, 2, 4, 8) for split in (1, 2, 4, 8) if split <= group]
)
def test_layers_are_written_back_while_the_next_is_computed(rng, group, split):
    params = Params(pes=group, rows=6, bias_words=BIAS_WORDS)
    bias = random_bias(rng)
    layers = [random_layer(rng, params, split, bias) for _ in range(8)]
    computed, written, act_vectors, saturated, left = play(Joined(params), layers, bias, rng)
    checked = fragments = 0
    for n, (layer, _, results, ends, clipped) in enumerate(layers):
        # The first accumulator is read 1 cycle after `computed` is seen, which is at the earliest one after `written`.
        first_read = max(computed[n], written[n - 1] + 1 if n else 0) + 1
        packed = [value & 0xFFFF for value in results] + [0] * (-len(results) % 8)
        expected = []
        for line in range(len(packed) // 8):
            completes = ends[min(8 * line + 7, len(ends) - 1)]
            at = first_read + completes + 1 + Writeback.LATENCY
            expected.append((at, layer["destination"] + line, packed[8 * line : 8 * line + 8]))
        assert act_vectors[n] == expected
        assert saturated[n] == clipped
        assert written[n] == first_read + layer["slots"] * group - 1 + Drain.FLUSH == act_vectors[n][-1][0]
        checked += len(results)
        fragments += layer["fragment_slots"]
    assert checked >= 8
    assert any(computed[n] < written[n - 1] for n in range(1, len(layers))) or group < 4  # computed while written back
    assert fragments > 0 or split == 1
    assert not any(any(sums) for sums in left)  # cleared behind the reader


def test_fault_a_lost_fragment_is_caught(rng):
    """The planted fault: only the last accumulator of a split row reaches its output."""
    params = Params(pes=4, rows=6, bias_words=BIAS_WORDS)
    bias = random_bias(rng)
    layers = [random_layer(rng, params, 4, bias) for _ in range(6)]
    _, written, act_vectors, *_ = play(Joined(params, lose=True), layers, bias, rng)
    assert len(written) == len(layers)
    wrong = 0
    for (layer, _, results, *_), got in zip(layers, act_vectors, strict=True):
        values = [value for _, _, act_vector in got for value in act_vector][: len(results)]
        whole = (layer["slots"] - layer["fragment_slots"]) * 4
        assert values[:whole] == [value & 0xFFFF for value in results[:whole]]  # rows that are not split
        wrong += values[whole:] != [value & 0xFFFF for value in results[whole:]]
    assert wrong > 0
