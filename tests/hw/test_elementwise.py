"""The elementwise unit with the products of one group, against plain loops: every read, every product, its cycle."""

from __future__ import annotations

import pytest
from amaranth import Elaboratable, Module

from hw.elementwise import Elementwise
from hw.lane_product import LaneProduct
from hw.params import Params

LINES = 200


class Joined(Elaboratable):
    """Steering and the products of one bank, joined as the core does. swapped : the second products' factors are."""

    def __init__(self, params, swapped=False):
        self.params, self.swapped = params, swapped
        self.unit, self.product = Elementwise(params), LaneProduct(params)

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit, m.submodules.product = unit, product = self.unit, self.product
        m.d.comb += [
            product.put.valid.eq(unit.put.valid), product.put.payload.eq(unit.put.payload),
            product.step.valid.eq(unit.step.valid), product.step.payload.eq(unit.step.payload),
            product.job.eq(unit.job),
        ]  # fmt: skip
        if self.swapped:
            m.d.comb += product.put.p.second.eq(unit.put.p.second & ~unit.put.p.factor)
        return m


def random_job(rng):
    has_c = int(rng.integers(2))
    job = {name: int(rng.integers(0, LINES // 2)) for name in "abce"}
    return job | {
        "has_b": int(rng.integers(2)), "has_c": has_c, "has_e": int(has_c and rng.integers(2)),
        "scale_a": int(rng.integers(-32768, 32768)), "scale_c": int(rng.integers(-32768, 32768)),
        "lines": int(rng.integers(1, 9)), "frame": int(rng.integers(0, 30)),
    }  # fmt: skip


def play(simulate, dut, jobs, bank):
    """[(start, reads, steps, products, end)] of each job, all with their cycles. jobs : (job, samples, pause)."""
    runs = []

    async def bench(ctx):
        cycle, answer, made = 0, None, {}
        unit = dut.unit
        for job, samples, pause in jobs:
            start, reads, steps, products, end = cycle, [], [], [], None
            ctx.set(unit.job, job)
            ctx.set(unit.samples, samples)
            ctx.set(unit.start, 1)
            while end is None or cycle < end + LaneProduct.LATENCY + 1 + pause:
                assert cycle < start + 20_000, "watchdog"
                if answer is not None:
                    ctx.set(dut.product.acts, sum((value & 0xFFFF) << 16 * n for n, value in enumerate(bank[answer])))
                answer = ctx.get(unit.r_addr) if ctx.get(unit.r_en) else None
                if answer is not None:
                    reads.append((cycle, answer))
                step = ctx.get(unit.step.payload)
                if ctx.get(unit.step.valid):
                    steps.append((cycle, step.lane, step.second, step.last, step.flush))
                    made[cycle + LaneProduct.LATENCY] = True
                if made.pop(cycle, False):
                    products.append(ctx.get(dut.product.product))
                if ctx.get(unit.ends):
                    end = cycle
                assert not ctx.get(unit.fault)
                await ctx.tick()
                ctx.set(unit.start, 0)
                cycle += 1
            runs.append((start, reads, steps, products, end))

    simulate(dut, bench, watchdog=50_000)
    return runs


def expected(job, samples, bank, start):
    """The same from the docstring of `Elementwise`."""
    names = ["a", *(name for name in "bce" if job[f"has_{name}"])]
    per_lane = 1 + job["has_c"]
    first = start + len(names) + 2
    reads, steps, products = [], [], []
    offsets = [b * job["frame"] + n for b in range(samples) for n in range(job["lines"])]
    for n, offset in enumerate(offsets):
        begin = start if n == 0 else first + 8 * per_lane * (n - 1)
        reads += [(begin + 1 + k, job[name] + offset) for k, name in enumerate(names)]
        line = {name: bank[job[name] + offset] for name in names}
        for lane in range(8):
            factors = [(line["a"][lane], line["b"][lane] if job["has_b"] else job["scale_a"])]
            if job["has_c"]:
                factors.append((line["c"][lane], line["e"][lane] if job["has_e"] else job["scale_c"]))
            for second, (x, y) in enumerate(factors):
                last = second == len(factors) - 1
                at = first + 8 * per_lane * n + per_lane * lane + second
                steps.append((at, lane, second, last, last and lane == 7))
                products.append(x * y)
    return start, reads, steps, products, steps[-1][0]


def draw(rng, number):
    bank = rng.integers(-32768, 32768, (4 * LINES, 8)).tolist()
    jobs = [(random_job(rng), int(rng.integers(1, 4)), int(rng.choice([0, 0, 5]))) for _ in range(number)]
    return jobs, bank


@pytest.mark.verifies("elementwise-unit-read-product-cycle")
@pytest.mark.parametrize("number", range(4))
def test_reads_and_products_come_in_the_stated_cycles(simulate, rng, number):
    dut = Joined(Params(pes=1, act_lines=4 * LINES))
    jobs, bank = draw(rng, 12)
    runs = play(simulate, dut, jobs, bank)
    for (job, samples, _), run in zip(jobs, runs, strict=True):
        assert run == expected(job, samples, bank, run[0])


@pytest.mark.verifies("planted-fault-order-operands-block")
def test_fault_the_order_of_operands_is_caught(simulate, rng):
    """The planted fault: operand e takes the place of operand b."""
    dut = Joined(Params(pes=1, act_lines=4 * LINES), swapped=True)
    job = random_job(rng) | {"has_b": 1, "has_c": 1, "has_e": 1}
    _, bank = draw(rng, 1)
    (run,) = play(simulate, dut, [(job, 1, 0)], bank)
    assert run[3] != expected(job, 1, bank, run[0])[3]


@pytest.mark.verifies("elementwise-unit-lines-beyond-memory")
def test_a_line_beyond_the_memory_is_a_fault(simulate):
    dut = Elementwise(Params(pes=1, act_lines=10))
    seen = []

    async def bench(ctx):
        ctx.set(dut.job, {"a": 8, "lines": 3})
        ctx.set(dut.samples, 1)
        ctx.set(dut.start, 1)
        for _ in range(40):
            if ctx.get(dut.r_en):
                seen.append(ctx.get(dut.fault))
            await ctx.tick()
            ctx.set(dut.start, 0)

    simulate(dut, bench)
    assert seen == [0, 0, 1]
