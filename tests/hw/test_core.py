"""The core against numpy: random programs, every line of the activation memory, every count of its records."""

from __future__ import annotations

import warnings

import pytest
from amaranth.hdl import UnusedElaboratable
from amaranth.sim import Simulator

from hw.core import Core
from hw.layouts import Error, Memory, fields, record
from tests.hw.programs import KINDS, random_program


class Run:
    """One program on a core: error, descriptor and cycles at the end, activation memory, records of its layers."""

    def __init__(self, core, program, rng=None, limit=30_000, batch=None):
        self.core, self.program, self.rng, self.limit = core, program, rng, limit
        self.batch = program.batch if batch is None else batch
        self.beats = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnusedElaboratable)
            simulator = Simulator(core)
        simulator.add_clock(1e-9)
        simulator.add_testbench(self.bench)
        if program.params.refill:
            simulator.add_testbench(self.refill, background=True)
        simulator.run()

    async def load(self, ctx):
        core, program = self.core, self.program

        def fill(memory, content):
            for address, word in enumerate(content):
                ctx.set(memory.data[address], word)

        for n, pe in enumerate(core.pes):
            fill(pe.weight_read.memory, program.memories[Memory.WEIGHTS][n])
            fill(pe.pointer_read.memory, program.memories[Memory.POINTERS][n])
            fill(pe.weight_decode.memory, program.memories[Memory.CODEBOOK][0])
        for n, writeback in enumerate(core.writebacks):
            fill(writeback.memory, program.memories[Memory.OUTPUTS][n])
            fill(core.acts[n], program.memories[Memory.ACTIVATIONS][n])
        fill(core.descriptors, program.memories[Memory.DESCRIPTORS][0])

    async def prepare(self, ctx):
        """What a test does between reset and start."""

    async def bench(self, ctx):
        core, program = self.core, self.program
        await self.load(ctx)
        await ctx.tick().until(~core.busy)
        await self.prepare(ctx)
        ctx.set(core.batch, self.batch)
        ctx.set(core.start, 1)
        await ctx.tick()
        ctx.set(core.start, 0)
        for _ in range(self.limit):
            if ctx.get(core.done):
                break
            await ctx.tick()
        else:
            raise AssertionError(f"watchdog: no end in {self.limit} cycles")
        self.error, self.index = Error(ctx.get(core.error)), ctx.get(core.index)
        self.cycles = ctx.get(core.now)
        await ctx.tick()
        await ctx.tick()
        self.acts = [[int(ctx.get(acts.data[line])) for line in range(program.params.act_lines)] for acts in core.acts]
        places = fields(record(program.params))
        words = [int(ctx.get(core.records.data[n])) for n in program.first]
        self.records = [{name: word >> at & ((1 << bits) - 1) for name, at, bits in places} for word in words]
        self.left = [
            ctx.get(bank.data[slot]) for pe in core.pes for bank in pe.mac.banks for slot in range(program.params.rows)
        ]

    async def refill(self, ctx):
        for beat in self.program.beats:
            while self.rng is not None and self.rng.random() < 0.3:
                ctx.set(self.core.tiles.valid, 0)
                await ctx.tick()
            ctx.set(self.core.tiles.valid, 1)
            ctx.set(self.core.tiles.payload, beat)
            await ctx.tick().until(self.core.tiles.ready)
            self.beats += 1
        ctx.set(self.core.tiles.valid, 0)


def differences(run):
    """Lines that do not hold what numpy says, as (bank, line)."""
    program = run.program
    return [
        (bank, line)
        for bank in range(program.params.groups)
        for line in range(program.params.act_lines)
        if run.acts[bank][line] != program.line(bank, line)
    ]


def check(run):
    """Everything that is known of a run without a model of its time."""
    program = run.program
    assert (run.error, run.index) == (Error.NONE, sum(len(layer) for layer in program.layers)), program.seed
    assert differences(run) == [], program.seed
    assert not any(run.left), program.seed
    assert run.beats == len(program.beats)
    for n, (layer, seen) in enumerate(zip(program.layers, run.records, strict=True)):
        assert seen["saturated"] == program.saturated[n], program.seed
        assert seen["accepted"] < seen["finished"] < seen["written"] <= run.cycles
        assert seen["refill"] == 0 or any(segment.step["refill"] for segment in layer)
    cycles = max(seen["finished"] for seen in run.records) - run.records[0]["accepted"]
    counted = sum(seen["entries"] + seen["starved"] for seen in run.records)
    assert counted == program.params.pes * cycles, program.seed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(6))
def test_random_programs(seed, rng, kind, number):
    program = random_program(1000 * seed + number, kind=kind)
    check(Run(Core(program.params), program, rng))
