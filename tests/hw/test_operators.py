"""Functions, elementwise operations and loops on the core: arrays without some of them, and planted faults.

Random programs of an array that has all: `tests.sim.test_cycles`.
"""

from __future__ import annotations

import numpy as np
import pytest
from amaranth import Value
from amaranth.lib import data

from hw.core import Core
from hw.layouts import Error, Op, loop
from hw.tile_loop import TileLoop
from tests.hw.core_run import Outcome, play
from tests.hw.program_operators import Loop, Operation
from tests.hw.programs import Program, random_program


def right(program: Program, seen: Outcome) -> bool:
    """Whether every line and every count of saturated numbers is as numpy says, and nothing is left."""
    return (
        seen.error is Error.NONE
        and np.array_equal(seen.acts, program.final)
        and [one["saturated"] for one in seen.records] == program.saturated
        and not seen.left
        and seen.beats == len(program.beats)
    )


def test_an_array_may_lack_either(seed):
    for changes in ({"tables": 0}, {"elementwise": False}, {"tables": 3, "elementwise": False}):
        program = random_program(1000 * seed + 9, operators=True, **changes)
        assert right(program, play(program)), f"program {program.seed}"


# Faults: an array that goes wrong in one place.


class BarrierIgnored(Core):
    """Segments do not wait for the operations before them."""

    def _run(self, m):
        super()._run(m)
        m.d.comb += self.control.r_data.barrier.eq(0)


class WordLost(Core):
    """The scan takes what stands at the output of the memory although an operation has read."""

    def _operations(self, m):
        super()._operations(m)
        m.d.comb += self.scan.claimed.eq(0)


class OperandsSwapped(Core):
    """Operand c takes the place of b."""

    def _operations(self, m):
        super()._operations(m)
        for writeback in self.writebacks:
            put = self.elementwise.put.p
            m.d.comb += [writeback.put.p.factor.eq(put.second), writeback.put.p.second.eq(put.factor)]


class StateLost(Core):
    """What is computed in later rounds of a loop is not written."""

    def _host(self, m):
        super()._host(m)
        with m.If(self.busy & self.control.writing_again):
            m.d.comb += [acts.w_en.eq(0) for acts in self.acts]


class RecordOfLastRound(Core):
    """The record of a layer in a loop is that of the last round alone."""

    def _run(self, m):
        super()._run(m)
        m.d.comb += self.counters.again.eq(0)


class FunctionsSwapped(Core):
    """Function 2 of a layer is function 1."""

    def _write_back(self, m):
        super()._write_back(m)
        for writeback in self.writebacks:
            if self.params.tables:
                m.d.comb += writeback.function_2.eq(self.drain.now.function_1)


class OffsetKept(TileLoop):
    """The loop offset goes on growing behind the loop."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        ending = data.View(loop(self.params), self.layer.as_value())
        with m.If(self.advance & (Value.cast(self.layer.op) == Op.LOOP.value)):
            m.d.sync += self.offset.eq(self.offset + ending.pitch)
        return m


class OffsetKeptCore(Core):
    """The array with `OffsetKept`."""

    def _run(self, m):
        self.control.loop = OffsetKept(self.params)
        super()._run(m)


def items(program: Program, kind: type) -> list[dict[str, int]]:
    return [item.step for item in program.items if isinstance(item, kind)]


def rounds(program: Program) -> list[int]:
    return [n for n, item in enumerate(program.items) if isinstance(item, Loop) and item.step["count"] > 1]


# What a program must have for a fault to show, beside luck.
FAULTS = {
    BarrierIgnored: lambda program: any(
        segment.step["barrier"] for layer in program.layers[1:] for segment in layer
    ) and items(program, Operation),
    WordLost: lambda program: len(items(program, Operation)) > 2 and len(program.layers) > 2,
    OperandsSwapped: lambda program: any(step["has_b"] and step["has_c"] for step in items(program, Operation)),
    StateLost: rounds,
    RecordOfLastRound: lambda program: rounds(program) and sum(program.saturated),
    FunctionsSwapped: lambda program: any(layer[0].step["functions"] for layer in program.layers),
    OffsetKeptCore: lambda program: len(rounds(program)) > 1,
}  # fmt: skip

FIRST = {WordLost: 57}
"""Number of the first program that is tried: a word is lost rarely."""


@pytest.mark.verifies("planted-faults-barrier-lost-word")
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_caught(fault):
    """Each of the planted faults is seen in one of twenty programs."""
    number, tried = FIRST.get(fault, 0), 0
    while tried < 20:
        program = random_program(number, operators=True, layers=4, batch=1, tables=2, pes=2)
        number += 1
        if FAULTS[fault](program):
            tried += 1
            try:
                if not right(program, play(program, core=fault, limit=20_000)):
                    return
            except AssertionError:
                return  # it does not end
    raise AssertionError(f"{fault.__name__} is not seen in {tried} programs")
