"""A run whose refill stream is wrong ends, with an error and clear accumulators, whatever is wrong with it."""

from __future__ import annotations

import dataclasses

import pytest

from hw.core import Core
from hw.layouts import Error, refill_header
from tests.hw.core_run import play
from tests.hw.program_words import packed
from tests.hw.programs import random_program


def streamed(seed):
    """A program whose weights come through the stream."""
    programs = (random_program(3000 * seed + number, kind="stream", pes=2) for number in range(50))
    return next(program for program in programs if len(program.beats) > 12)


def wrong_header(program):
    """The same with a first header for a PE that does not exist."""
    bad = packed(refill_header(program.params), memory=0, unit=255, address=0, words=1, buffer=0, last=1)
    return dataclasses.replace(program, beats=[bad, *program.beats[1:]])


class Deaf(Core):
    """The run does not end."""

    def _refill(self, m):
        super()._refill(m)
        m.d.comb += self.abandon.eq(self.restart)


@pytest.mark.verifies("core-wrong-stream-ends-run")
def test_a_wrong_header_ends_the_run(seed):
    program = streamed(seed)
    assert play(program).error is Error.NONE
    seen = play(wrong_header(program), limit=5_000)
    assert seen.error is Error.STREAM
    assert seen.left == 0
    assert seen.beats == 1


@pytest.mark.verifies("planted-fault-run-does-end")
def test_planted_fault_a_run_that_does_not_end_is_caught(seed):
    with pytest.raises(AssertionError, match="not done"):
        play(wrong_header(streamed(seed)), core=Deaf, limit=2_000)
