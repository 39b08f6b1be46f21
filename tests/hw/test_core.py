"""The core against numpy: random programs, every line of the activation memory, planted faults, restarts, errors."""

from __future__ import annotations

import numpy as np
import pytest

from hw.control import Control
from hw.core import Core
from hw.layouts import Error, Memory, descriptor
from tests.hw.core_run import play
from tests.hw.program_words import packed
from tests.hw.programs import KINDS, random_program


def right(program, seen):
    """The run made of the memory what numpy says, and left no sum behind."""
    end = sum(len(layer) for layer in program.layers)
    return (
        (seen.error, seen.index) == (Error.NONE, end)
        and np.array_equal(seen.acts, program.final)
        and not seen.left
        and [one["saturated"] for one in seen.records] == program.saturated
    )


@pytest.mark.verifies("core-random-programs-against-numpy")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(4))
def test_random_programs(seed, rng, kind, number):
    program = random_program(1000 * seed + number, kind=kind)
    seen = play(program, gaps=rng)
    assert right(program, seen), program.seed
    assert seen.beats == len(program.beats)
    for layer, one in zip(program.layers, seen.records, strict=True):
        assert one["accepted"] < one["finished"] < one["written"] <= seen.cycles
        assert one["refill"] == 0 or any(segment.step["refill"] for segment in layer)
    cycles = max(one["finished"] for one in seen.records) - seen.records[0]["accepted"]
    counted = sum(one["entries"] + one["starved"] for one in seen.records)
    assert counted == program.params.pes * cycles, program.seed


# Faults, each on a program in which it must show.


class Wider(Core):
    """Maps are one pixel wider than they are."""

    def _run(self, m):
        super()._run(m)
        m.d.comb += self.scan.request.width.eq(self.control.scan.width + 1)


class LimitIgnored(Core):
    """A chained layer does not wait for the lines that it reads."""

    def _run(self, m):
        super()._run(m)
        m.d.comb += self.scan.open.eq(1)


class ClearMissing(Core):
    """What was written back stays in the accumulators."""

    def _write_back(self, m):
        super()._write_back(m)
        for pe in self.pes:
            m.d.comb += pe.drain.clear.eq(0)


class LinesInARow(Core):
    """The rows of a tile follow one another without the lines between them."""

    def _run(self, m):
        super()._run(m)
        for tile in self.drain.tile:
            m.d.comb += tile.row_pitch.eq(tile.row_lines)


class SecondRow(Core):
    """The second row of tiles reads where the first one does."""

    def _run(self, m):
        super()._run(m)
        m.d.comb += self.control.r_data.tile_pitch_y.eq(0)


class SegmentLost(Core):
    """The first segment of a layer that has several is not scanned."""

    def _run(self, m):
        super()._run(m)
        with m.If(self.control.r_data.first & ~self.control.r_data.last):
            m.d.comb += self.scan.start.eq(0)


class EarlyRelease(Control):
    """A bank takes a new tile when its sums are computed, not when they are written."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.pending.eq(self.banks.pending & ~self.banks.computed)
        return m


def tall(program):
    return any(segments[0].step["tiles_y"] > 1 for segments in program.layers)


SHOWS = {  # kind of the layers, and what a program must have
    Wider: ("window", lambda program: True),
    LimitIgnored: ("full", lambda program: len(program.layers) > 2),
    ClearMissing: ("window", lambda program: tall(program)),
    LinesInARow: ("window", lambda program: any(
        step["row_pitch"] > step["row_lines"] and step["tile_lines"] > step["row_pitch"]
        for step in (layer[0].step for layer in program.layers)
    )),
    SecondRow: ("window", tall),
    SegmentLost: ("window", lambda program: any(len(layer) > 1 for layer in program.layers)),
    EarlyRelease: ("window", tall),
}  # fmt: skip


@pytest.mark.verifies("planted-faults-border-limit-clear")
@pytest.mark.parametrize("fault", SHOWS)
def test_faults_are_caught(seed, monkeypatch, fault):
    """At the latest by the fifth program in which it may show: products may all be zero where it does."""
    kind, shows = SHOWS[fault]
    core = fault
    if issubclass(fault, Control):
        core = Core
        monkeypatch.setattr("hw.core.Control", fault)
    tried, number = 0, 2000 * seed
    while tried < 5:
        program = random_program(number, kind=kind, pes=2)
        number += 1
        if shows(program):
            tried += 1
            if not right(program, play(program, core=core, limit=20_000)):
                return
    raise AssertionError(f"{fault.__name__} did not show in {tried} programs")


@pytest.fixture(scope="module")
def unbroken(request):
    """A program of several layers, and the cycles that it takes."""
    number, program = 3000 * request.config.getoption("seed"), None
    while program is None or len(program.layers) < 2 or not tall(program):
        program = random_program(number, kind="window", pes=2)
        number += 1
    return program, play(program).cycles


@pytest.mark.verifies("core-restart-mid-layer")
@pytest.mark.parametrize("cycle", [4, 60, 150, 260])
def test_a_restart_in_mid_layer_leaves_nothing_behind(unbroken, cycle):
    """The next run finds the memories as the host left them, and the array as after reset."""
    program, cycles = unbroken

    async def restarted(core, ctx):
        ctx.set(core.batch, 1)
        ctx.set(core.start, 1)
        await ctx.tick()
        ctx.set(core.start, 0)
        for _ in range(cycle):
            assert ctx.get(core.busy)
            await ctx.tick()
        ctx.set(core.restart, 1)
        await ctx.tick()
        ctx.set(core.restart, 0)
        await ctx.tick().until(~core.busy)
        for bank, words in zip(core.acts, program.memories[Memory.ACTIVATIONS], strict=True):
            for address, word in enumerate(words):
                ctx.set(bank.data[address], word)

    seen = play(program, before=restarted)
    assert right(program, seen)
    assert seen.cycles == cycles


@pytest.mark.verifies("core-errors-run-after")
@pytest.mark.parametrize(("change", "error"), [
    ({"destination": 0xFFF0}, Error.RANGE), ({"source": 0xFFFF00, "y0": 0, "x0": 0}, Error.RANGE),
    ({"codebook": 255}, Error.RANGE), ({"op": 4}, Error.OPCODE), ({"reserved4": 1}, Error.RESERVED),
])  # fmt: skip
def test_errors_end_the_run_and_the_next_one_is_not_concerned(seed, change, error):
    program = random_program(4000 * seed, kind="full", layers=2, pes=2)
    words = program.memories[Memory.DESCRIPTORS][0]
    wrong = [packed(descriptor(program.params), **{**program.layers[0][0].step, **change}), *words[1:]]
    seen = []

    async def fails(core, ctx):
        for address, word in enumerate(wrong):
            ctx.set(core.descriptors.data[address], word)
        ctx.set(core.batch, 1)
        ctx.set(core.start, 1)
        await ctx.tick()
        ctx.set(core.start, 0)
        await ctx.tick().until(core.done)
        seen.append((Error(ctx.get(core.error)), ctx.get(core.index)))
        await ctx.tick()
        for address, word in enumerate(words):
            ctx.set(core.descriptors.data[address], word)
        # Lines within the memory may have been written before the one that was not.
        for bank, content in zip(core.acts, program.memories[Memory.ACTIVATIONS], strict=True):
            for address, word in enumerate(content):
                ctx.set(bank.data[address], word)

    assert right(program, play(program, before=fails))
    assert seen == [(error, 0)]
