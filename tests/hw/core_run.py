"""A random program on `hw.core.Core` in Amaranth's simulator."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from amaranth.hdl import UnusedElaboratable
from amaranth.sim import Simulator
from numpy.typing import NDArray

from hw.core import Core
from hw.layouts import Memory, fields, record
from hw.params import LANES
from tests.hw.programs import Program

__all__ = ["run_core"]


def run_core(
    program: Program, *, limit: int = 100_000, core: type[Core] = Core, watch: Callable[[Core, Any], None] | None = None
) -> tuple[NDArray[np.int16], list[dict[str, int]]]:
    """Activation memory (groups, lines, 8) after the run, and the record of each layer.

    core : class of the array, to plant a fault. watch : called in each cycle of the run with the array and ``ctx.get``.
    """
    params = program.params
    array = core(params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        simulator = Simulator(array)
    simulator.add_clock(1e-9)
    acts = np.zeros((params.groups, params.act_lines, LANES), np.int16)
    records: list[dict[str, int]] = []

    def load(ctx: Any, memory: Any, content: list[int]) -> None:
        for address, word in enumerate(content):
            ctx.set(memory.data[address], word)

    async def bench(ctx: Any) -> None:
        for n, pe in enumerate(array.pes):
            load(ctx, pe.weight_read.memory, program.memories[Memory.WEIGHTS][n])
            load(ctx, pe.pointer_read.memory, program.memories[Memory.POINTERS][n])
            load(ctx, pe.weight_decode.memory, program.memories[Memory.CODEBOOK][0])
        for n, writeback in enumerate(array.writebacks):
            load(ctx, writeback.memory, program.memories[Memory.OUTPUTS][n])
        for n, bank in enumerate(array.acts):
            load(ctx, bank, program.memories[Memory.ACTIVATIONS][n])
        load(ctx, array.descriptors, program.memories[Memory.DESCRIPTORS][0])
        await ctx.tick().until(~array.busy)
        ctx.set(array.batch, program.batch)
        ctx.set(array.start, 1)
        await ctx.tick()
        ctx.set(array.start, 0)
        for _ in range(limit):
            if watch:
                watch(array, ctx.get)
            if ctx.get(array.done):
                break
            await ctx.tick()
        else:
            raise AssertionError(f"program {program.seed}: not done within {limit} cycles")
        error = ctx.get(array.error)
        assert not error.value, f"program {program.seed}: {error} at descriptor {ctx.get(array.index)}"
        await ctx.tick()
        for n, bank in enumerate(array.acts):
            for line in range(params.act_lines):
                acts[n, line] = np.frombuffer(int(ctx.get(bank.data[line])).to_bytes(2 * LANES, "little"), "<i2")
        for first in program.first:
            word = int(ctx.get(array.records.data[first]))
            records.append({name: word >> at & (1 << width) - 1 for name, at, width in fields(record(params))})

    async def refill(ctx: Any) -> None:
        ctx.set(array.tiles.valid, 1)
        for beat in program.beats:
            ctx.set(array.tiles.payload, beat)
            await ctx.tick().until(array.tiles.ready)
        ctx.set(array.tiles.valid, 0)

    simulator.add_testbench(bench)
    if program.beats:
        simulator.add_testbench(refill, background=True)
    simulator.run()
    return acts, records
