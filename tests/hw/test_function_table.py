"""Function tables against the formula of docs/numerics.md: all numbers, shifts at random, ends of the tables."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth import signed
from amaranth.lib import data

from hw.function_table import FunctionTable
from hw.params import Params
from tests.hw.program_operators import draw_tables, look_up, table_words

EDGES = [-32768, -32767, -129, -128, -127, -1, 0, 1, 63, 64, 127, 128, 32639, 32640, 32641, 32766, 32767]


def play(simulate, dut, tables, step, numbers):
    """Results of (number, function) in successive cycles, each with its latency checked."""
    seen = []

    async def bench(ctx):
        for address, word in enumerate(table_words(dut.params, tables)):
            ctx.set(dut.memory.data[address], word)
        for n, port in enumerate((dut.function_1, dut.function_2), 1):
            ctx.set(port, {name: step[f"{name}_{n}"] for name in ("table", "left", "right")})
        for _ in range(2):
            await ctx.tick()
        for cycle in range(len(numbers) + FunctionTable.LATENCY):
            value, which = numbers[cycle] if cycle < len(numbers) else (77, 1)
            ctx.set(dut.value, value)
            ctx.set(dut.which, which)
            if cycle >= FunctionTable.LATENCY:
                seen.append(ctx.get(dut.result))
            await ctx.tick()

    simulate(dut, bench)
    return seen


def expected(tables, step, numbers):
    return [int(look_up(tables, step, which, np.array([value]))[0]) if which else value for value, which in numbers]


def draw(rng, tables, left, right):
    step = {"table_1": 0, "left_1": left, "right_1": right}
    step |= {"table_2": len(tables) - 1, "left_2": int(rng.integers(32)), "right_2": int(rng.integers(32))}
    values = [*EDGES, *(int(value) for value in rng.integers(-32768, 32768, 100))]
    return step, [(value, int(rng.choice([0, 1, 1, 2]))) for value in values]


@pytest.mark.verifies("function-tables-ends-edges-shifts")
@pytest.mark.parametrize("number", [1, 3, 8])
@pytest.mark.parametrize(
    "shifts", [(0, 0), (1, 0), (0, 1), (5, 4), (4, 5), (31, 0), (0, 31), (31, 31), (15, 0), (0, 16)]
)
def test_numbers_are_looked_up_as_the_formula_says(simulate, rng, number, shifts):
    dut = FunctionTable(Params(pes=1, tables=number))
    tables = draw_tables(rng, number)
    step, numbers = draw(rng, tables, *shifts)
    assert play(simulate, dut, tables, step, numbers) == expected(tables, step, numbers)


def test_the_formula_meets_every_end_of_a_piece(rng):
    """Where a number is at the beginning of a piece, the function is the number of the table there."""
    tables = draw_tables(rng, 2)
    step = {"table_1": 1, "left_1": 0, "right_1": 0}
    assert look_up(tables, step, 1, np.arange(-32768, 32768, 128)).tolist() == tables[1][:-1].tolist()


def unsigned_rise(params):
    return data.StructLayout({"value": signed(16), "step": 17})


@pytest.mark.verifies("planted-faults-first-last-piece")
@pytest.mark.parametrize(("name", "fault"), [("_MOST", 32639), ("_LEAST", -32640), ("table_word", unsigned_rise)])
def test_fault_of_the_pieces_is_caught(simulate, rng, monkeypatch, name, fault):
    """The planted faults: the last or the first piece of a table is not reached; a piece that falls rises."""
    tables = draw_tables(rng, 2)
    tables[:, 0], tables[:, 1] = 5000, 1000
    tables[:, 511], tables[:, 512] = -1000, 20000
    step, numbers = draw(rng, tables, 0, 0)
    numbers += [(32767, 1), (-32768, 1)]
    assert play(simulate, FunctionTable(Params(pes=1, tables=2)), tables, step, numbers) == expected(
        tables, step, numbers
    )
    dut = FunctionTable(Params(pes=1, tables=2))
    monkeypatch.setattr(f"hw.function_table.{name}", fault)
    assert play(simulate, dut, tables, step, numbers) != expected(tables, step, numbers)
