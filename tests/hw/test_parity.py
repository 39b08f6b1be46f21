"""Parity: a flipped bit of each kind of memory is told, by its name and no other, when the word is used."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from amaranth import Module
from amaranth.hdl import UnusedElaboratable
from amaranth.sim import Simulator

from hw.core import PE_MODULE, Core
from hw.export import without_memory_init
from hw.layouts import identity
from hw.params import PRESETS, Params
from hw.parity import KINDS, ParityBeside, ParityCheck, found, with_parity
from hw.pe import ProcessingElement
from hw.platform import convert
from tests.hw.core_run import load_all
from tests.hw.program_operators import Loop, Operation
from tests.hw.programs import Program, random_program

FLIP_TO_TOLD = 8
"""Cycles from the read of a word until the core tells of it, at most."""


def memories(core: Core) -> dict[str, list[tuple[Any, Any]]]:
    """Of each kind, the memories and what says that a word of one is used in this cycle, which was read before."""
    pe, writeback = core.pes[0], core.writebacks[0]
    inside: dict[str, list[Any]] = {
        "WEIGHTS": [pe.weight_read.memory], "POINTERS": [pe.pointer_read.memory],
        "CODEBOOK": [pe.weight_decode.memory], "ACTIVATIONS": core.acts, "OUTPUTS": [writeback.memory],
        "DESCRIPTORS": [core.descriptors.memory if core.params.slim else core.descriptors],
        "RECORDS": [core.records.memory],
    }  # fmt: skip
    if core.params.tables:
        inside["TABLES"] = [writeback.table.memory]
    if core.params.elementwise:
        inside["OPERANDS"] = writeback.product.memories
    kinds = {name: [(each, each.used) for each in found] for name, found in inside.items()}
    if core.params.near:
        kinds["QUEUE"] = [(check.of, check.used) for check in pe.queue.checks]
    else:
        kinds["QUEUE"] = [(pe.queue.memory, pe.queue.memory.used)]
    kinds["ACCUMULATORS"] = [(check.of, check.used) for check in pe.mac.checks]
    return kinds


def reported(program: Program, kinds: Sequence[str], rng: np.random.Generator) -> dict[str, int]:
    """For each kind that is there: a bit of a word of it is flipped in the cycle in which a run reads it; what is told.

    The run up to there is the same each time: first it is watched, to find words that are used.
    """
    array = Core(program.params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        simulator = Simulator(array)
        gc.collect()
    simulator.add_clock(1e-9)
    told: dict[str, int] = {}

    async def bench(ctx: Any) -> None:
        there = memories(array)

        async def start() -> None:
            ctx.set(array.restart, 1)
            await ctx.tick()
            ctx.set(array.restart, 0)
            await ctx.tick().until(~array.busy)
            load_all(ctx, array, program)
            ctx.set(array.batch, program.batch)
            ctx.set(array.start, 1)
            await ctx.tick()
            ctx.set(array.start, 0)

        await start()
        uses: dict[str, list[tuple[int, Any, int]]] = {name: [] for name in kinds}
        before: dict[tuple[str, int], int] = {}
        cycle = 0
        while any(len(uses[name]) < 3 for name in kinds) and not ctx.get(array.done):
            for name in kinds:
                for n, (memory, used) in enumerate(there[name]):
                    if ctx.get(used) and (address := before.get((name, n))) is not None:
                        uses[name].append((cycle - 1, memory, address))
                    reads = not hasattr(memory, "r_en") or ctx.get(memory.r_en)
                    before.pop((name, n), None)
                    if reads:
                        before[name, n] = ctx.get(memory.r_addr)
            assert not ctx.get(array.wrong), found(ctx.get(array.wrong))
            await ctx.tick()
            cycle += 1
        for name in kinds:
            assert uses[name], f"no word of {name} is used; expected a program that needs it"
            at, memory, address = uses[name][rng.integers(min(3, len(uses[name])))]
            await start()
            for _ in range(at):
                await ctx.tick()
            word = ctx.get(memory.data[address])
            ctx.set(memory.data[address], word ^ 1 << int(rng.integers(len(memory.w_data))))
            for _ in range(FLIP_TO_TOLD):
                told[name] = ctx.get(array.wrong)
                if told[name]:
                    break
                await ctx.tick()
            ctx.set(memory.data[address], word)

    simulator.add_testbench(bench)
    simulator.run()
    return told


def everything() -> Program:
    """A short program that uses every kind: operations of two operands, functions, a loop that adds to records."""
    program = random_program(
        24, operators=True, layers=3, batch=1, parity=True, pes=1, refill=False, tables=2, hops=0, rows=24
    )
    operations = [item.step for item in program.items if isinstance(item, Operation)]
    assert any(step["has_b"] for step in operations)
    assert any(isinstance(item, Loop) and item.step["count"] > 1 for item in program.items)
    return program


@pytest.mark.verifies("parity-flips-told-by-name")
def test_a_flipped_bit_of_each_kind_is_told(rng: np.random.Generator) -> None:
    told = reported(everything(), KINDS, rng)
    assert {name: found(wrong) for name, wrong in told.items()} == {name: name for name in KINDS}


NEAR = ("QUEUE", "ACCUMULATORS", "DESCRIPTORS")
"""Kinds that are made in another way in a small array: near ones, and a slim one."""


def near_told(rng: np.random.Generator) -> dict[str, str]:
    """What is told of these."""
    program = random_program(
        13, kind="full", layers=1, batch=1, parity=True, pes=1, refill=False, rows=16, queue_depth=8, slim=True
    )
    assert program.params.near
    return {name: found(wrong) for name, wrong in reported(program, NEAR, rng).items()}


@pytest.mark.verifies("parity-flips-told-by-name")
def test_near_and_slim_memories_are_checked_too(rng: np.random.Generator) -> None:
    assert near_told(rng) == {name: name for name in NEAR}


def silent(check: ParityBeside, platform: object) -> Module:
    """The bits are there, and nobody looks at them."""
    m = Module()
    m.submodules.bits = check.bits
    return m


@pytest.mark.verifies("parity-flips-told-by-name")
def test_a_check_that_is_missing_is_noticed(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ParityCheck, "elaborate", lambda check, platform: Module())
    monkeypatch.setattr(ParityBeside, "elaborate", silent)
    assert near_told(rng) == dict.fromkeys(NEAR, "")


@pytest.mark.verifies("parity-array-without-unchanged")
def test_an_array_without_parity_is_what_it_was(rng: np.random.Generator) -> None:
    """Images and Verilog of before fit: the parameter is only told where it is set."""
    assert "parity" not in Params().stored()
    assert identity(Params()) != identity(Params(parity=True))
    assert Params.from_dict(Params().stored()) == Params()
    assert Params.from_dict(Params(parity=True).stored()) == Params(parity=True)
    for word in map(int, rng.integers(0, 1 << 60, 20)):
        assert with_parity(word, 60).bit_count() % 2 == 0
        assert with_parity(word, 60) & (1 << 60) - 1 == word


@pytest.mark.verifies("parity-verilog-starts-with-anything")
def test_near_memories_start_with_anything_in_verilog() -> None:
    """Also with their parity bits: contents that simulation knew and silicon does not would hide a missing write."""
    text = convert(ProcessingElement(PRESETS["BOARD_MIN"].replace(parity=True)), PE_MODULE)
    assert text.count("initial") == 8  # queue and accumulators, in two memories each, and the bits beside these
    assert "initial" not in without_memory_init(text)
