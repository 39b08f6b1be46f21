"""Maps that stream in and out on the core: random programs against numpy, planted faults, restarts, errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw.core import Core
from hw.layouts import Error, Memory, descriptor
from tests.hw.core_run import play
from tests.hw.program_words import packed
from tests.hw.programs import random_program


def right(program, seen):
    """Whether every line of the memory and every beat is as numpy says, and all beats were taken."""
    return (
        seen.error is Error.NONE
        and np.array_equal(seen.acts, program.final)
        and (seen.taken, seen.sent) == (len(program.taken), program.sent)
        and [one["saturated"] for one in seen.records] == program.saturated
        and not seen.left
    )


@pytest.mark.verifies("core-random-programs-streamed-maps")
@pytest.mark.parametrize("number", range(8))
def test_random_programs(seed, rng, number):
    """With random waits on both sides."""
    program = random_program(1000 * seed + number, streams=True, pes=(1, 2, 4, 16)[number % 4], layers=3)
    assert right(program, play(program, gaps=rng)), f"program {program.seed}"


@pytest.mark.verifies("core-random-programs-streamed-maps")
@pytest.mark.parametrize("number", range(3))
def test_random_programs_with_operators(seed, rng, number):
    program = random_program(1000 * seed + number, streams=True, operators=True, pes=2)
    assert right(program, play(program, gaps=rng)), f"program {program.seed}"


# Faults: an array that goes wrong in one place.


class RowsNotWaitedFor(Core):
    """Segments are accepted a row early."""

    def _streams(self, m):
        super()._streams(m)
        m.d.comb += self.control.received.eq(self.stream_in.received + 1)


class ReleasedEarly(Core):
    """A row of the ring is let go that is still read."""

    def _streams(self, m):
        super()._streams(m)
        m.d.comb += self.stream_in.limit.eq(self.control.in_limit + 1)


class RingOffByOne(Core):
    """Windows wrap a row late."""

    def _run(self, m):
        super()._run(m)
        m.d.comb += self.scan.request.edge.eq(self.control.scan.edge + 1)


class RowLost(Core):
    """Vectors that come while write-back writes are lost."""

    def _streams(self, m):
        super()._streams(m)
        m.d.comb += self.stream_in.blocked.eq(0)


class SentEarly(Core):
    """A row of tiles is sent when its first tile begins to be written."""

    def _streams(self, m):
        super()._streams(m)
        m.d.comb += self.stream_out.row_ends.eq(self.drain.row_begins)


class RowOverwritten(Core):
    """Write-back does not wait until a row is sent."""

    def _streams(self, m):
        super()._streams(m)
        m.d.comb += self.drain.room.eq(1)


class WordLost(Core):
    """The scan takes what stands at the output of the memory although the out-stream has read."""

    def _streams(self, m):
        super()._streams(m)
        m.d.comb += self.scan.claimed.eq(0)


class NotQuiet(Core):
    """A layer that streams does not wait until what the layers before stream out is sent."""

    def _streams(self, m):
        super()._streams(m)
        m.d.comb += self.control.out_active.eq(0)


def steps(program):
    return [layer[0].step for layer in program.layers]


def waits_for_rows(program):
    return any(
        step["stream_in"] and step["tiles_y"] > 1 and step["ring_rows"] < step["height"] for step in steps(program)
    )


def sends_rows(program):
    return any(step["stream_out"] and step["tiles_y"] * program.batch > step["out_rows"] for step in steps(program))


def both(program):
    return waits_for_rows(program) and sends_rows(program)


FAULTS = {
    RowsNotWaitedFor: waits_for_rows, ReleasedEarly: waits_for_rows, RingOffByOne: waits_for_rows, RowLost: both,
    SentEarly: sends_rows, RowOverwritten: sends_rows, WordLost: both, NotQuiet: both,
}  # fmt: skip

FIRST = {RowsNotWaitedFor: 7, ReleasedEarly: 7, RingOffByOne: 7, RowLost: 26}
"""Number of the first program that is tried: in those before it these faults do not show."""


@pytest.mark.verifies("planted-faults-rows-waited-released")
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_caught(fault, rng):
    """Each of the planted faults is seen in one of twelve programs in which it may show."""
    number, tried = FIRST.get(fault, 0), 0
    while tried < 12:
        program = random_program(number, streams=True, pes=2, kind="window", layers=2)
        number += 1
        if FAULTS[fault](program):
            tried += 1
            try:
                if not right(program, play(program, core=fault, limit=8_000, gaps=rng)):
                    return
            except AssertionError:
                return  # it does not end
    raise AssertionError(f"{fault.__name__} is not seen in {tried} programs")


class Feed(list):
    """Beats, which begin again when `again` is called."""

    at = 0

    def __iter__(self):
        while self.at < len(self):
            self.at += 1
            yield self[self.at - 1]

    def again(self, core, ctx):
        self.at = 1
        ctx.set(core.acts_in.payload, self[0])
        ctx.set(core.acts_in.valid, 1)


def found(seed, fits):
    """The first small program that `fits`, with beats that can begin again."""
    number = 1000 * seed
    while True:
        program = random_program(number, streams=True, pes=2, kind="window", layers=2)
        number += 1
        if fits(program):
            return replace(program, taken=Feed(program.taken))


def reload(program, core, ctx):
    for bank, words in zip(core.acts, program.memories[Memory.ACTIVATIONS], strict=True):
        for address, word in enumerate(words):
            ctx.set(bank.data[address], word)


@pytest.mark.verifies("core-restart-errors-streams-under")
@pytest.mark.parametrize("cycle", [30, 80, 140, 200])
def test_a_restart_leaves_nothing_in_the_streams(seed, cycle):
    program = found(seed, lambda program: both(program) and steps(program)[0]["stream_in"])

    async def restarted(core, ctx):
        ctx.set(core.batch, program.batch)
        ctx.set(core.start, 1)
        await ctx.tick()
        ctx.set(core.start, 0)
        for _ in range(cycle):
            if program.taken.at > len(program.taken) // 2:
                break
            assert ctx.get(core.busy)
            await ctx.tick()
        ctx.set(core.restart, 1)
        await ctx.tick()
        ctx.set(core.restart, 0)
        await ctx.tick()
        program.taken.again(core, ctx)
        await ctx.tick().until(~core.busy)
        reload(program, core, ctx)

    seen = play(program, before=restarted)
    before = len(seen.sent) - len(program.sent)
    assert seen.sent[:before] == program.sent[:before]
    assert np.array_equal(seen.acts, program.final)
    assert seen.sent[before:] == program.sent
    program.taken.at = 0
    assert seen.cycles == play(program).cycles


@pytest.mark.verifies("segments-together-need-more-ring")
def test_segments_that_need_more_than_their_ring_end_the_run(seed):
    """The second segment begins so far below the first one that its rows never come: an error, and the next run."""

    def fits(each):
        of = [segment.step for segment in each.layers[0]]
        rings = len(of) > 1 and of[0].get("ring") and of[1].get("ring")
        return rings and of[0]["y0"] <= 0 and of[1]["height"] > of[1]["ring_rows"]

    program = found(seed, fits)
    seen = failing(program, {1: {"y0": program.layers[0][1].step["ring_rows"]}})
    assert seen == [(Error.RANGE, 1)]


@pytest.mark.verifies("core-restart-errors-streams-under")
@pytest.mark.parametrize(("field", "fits"), [
    ("ring_base", lambda program: steps(program)[0]["stream_in"]),
    ("destination", lambda program: steps(program)[0]["stream_out"] and steps(program)[0]["stream_in"]),
])  # fmt: skip
def test_an_address_beyond_the_memory_ends_the_run(seed, field, fits):
    program = found(seed, fits)
    ((error, index),) = failing(program, {n: {field: 0xFFF0} for n in range(len(program.layers[0]))})
    assert error is Error.RANGE
    assert index < len(program.layers[0])


def failing(program, changes):
    """Error and descriptor of a run with changes of the first layer; the array can be used again after a restart."""
    words = program.memories[Memory.DESCRIPTORS][0]
    wrong = [
        packed(descriptor(program.params), **each.step | changes.get(n, {})) for n, each in enumerate(program.layers[0])
    ]
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
        ctx.set(core.restart, 1)
        await ctx.tick()
        ctx.set(core.restart, 0)
        await ctx.tick()
        program.taken.again(core, ctx)
        await ctx.tick().until(~core.busy)
        for address, word in enumerate(words):
            ctx.set(core.descriptors.data[address], word)
        reload(program, core, ctx)

    outcome = play(program, before=fails)
    assert np.array_equal(outcome.acts, program.final)
    assert outcome.sent[len(outcome.sent) - len(program.sent) :] == program.sent
    return seen
