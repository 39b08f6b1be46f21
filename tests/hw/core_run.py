"""A random program on `hw.core.Core` in Amaranth's simulator."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from amaranth.hdl import UnusedElaboratable
from amaranth.sim import Simulator
from numpy.typing import NDArray

from hw.core import Core
from hw.layouts import ACT_BITS, REFILL_BITS, Error, Memory, fields, record
from hw.params import LANES, Params
from hw.parity import with_parity
from hw.recorder import stored_record
from sim.tiles import tile_ends
from tests.hw.programs import Program

__all__ = ["Outcome", "load_all", "play", "run_core"]


@dataclass
class Outcome:
    """What is left of a run.

    Attributes
    ----------
    error, index : status, and the descriptor that ended the run. cycles : length of the run.
    acts : (groups, lines, 8) activation memory. records : one a layer.
    left : accumulators that are not zero. beats : how many of the refill stream were taken. taken : how many beats of
    maps that stream in. sent : beats of maps that stream out, and whether they were marked as the last of one.
    wrong : kinds of memory whose parity was wrong, a bit each.
    """

    error: Error = Error.NONE
    index: int = 0
    cycles: int = 0
    acts: NDArray[np.int16] = field(default_factory=lambda: np.zeros((0, 0, LANES), np.int16))
    records: list[dict[str, int]] = field(default_factory=list)
    left: int = 0
    beats: int = 0
    taken: int = 0
    sent: list[tuple[int, int]] = field(default_factory=list)
    wrong: int = 0


def described(params: Params, words: list[int]) -> list[int]:
    """What the descriptor memory holds: a slim one the first parts of all descriptors, then the second ones, and on."""
    if not params.slim:
        return words
    places = 1 << (params.descriptors - 1).bit_length()
    rest = [0] * (places - len(words))
    return [each for part in range(24) for each in [*(word >> 32 * part & 0xFFFFFFFF for word in words), *rest]]


def load_all(ctx: Any, array: Core, program: Program) -> None:
    """Put the words of a program into the memories.

    With parity the words have their bit, and all others a wrong one: to use one would be told.
    """
    params = program.params

    def load(memory: Any, content: list[int]) -> None:
        width = len(memory.w_data)
        for address, word in enumerate(content):
            ctx.set(memory.data[address], with_parity(word, width) if params.parity else word)
        if params.parity:
            for address in range(len(content), memory.data.depth):
                ctx.set(memory.data[address], 1)

    for n, pe in enumerate(array.pes):
        load(pe.weight_read.memory, program.memories[Memory.WEIGHTS][n])
        load(pe.pointer_read.memory, program.memories[Memory.POINTERS][n])
        load(pe.weight_decode.memory, program.memories[Memory.CODEBOOK][0])
    for n, writeback in enumerate(array.writebacks):
        load(writeback.memory, program.memories[Memory.OUTPUTS][n])
        if params.tables:
            load(writeback.table.memory, program.memories[Memory.TABLES][0])
    for n, bank in enumerate(array.acts):
        load(bank, program.memories[Memory.ACTIVATIONS][n])
    load(array.descriptors, described(params, program.memories[Memory.DESCRIPTORS][0]))
    if params.parity:
        load(array.records.memory, [])
        for pe in () if params.near else array.pes:
            load(pe.queue.memory, [])


def play(
    program: Program, *, limit: int = 100_000, core: type[Core] = Core, gaps: np.random.Generator | None = None,
    watch: Callable[[Core, Any], None] | None = None, before: Callable[[Core, Any], Awaitable[None]] | None = None,
) -> Outcome:  # fmt: skip
    """Run a program.

    core : class of the array, to plant a fault. gaps : random cycles in which streams have nothing, or are not taken.
    watch : called in every cycle of the run with the array and ``ctx.get``.
    before : called with the array and the simulator's context when the memories are loaded.
    """
    params, outcome = program.params, Outcome()
    array = core(params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        simulator = Simulator(array)
        if core is not Core:
            gc.collect()  # a block that a planted one took the place of goes here, and not in another test
    simulator.add_clock(1e-9)

    async def bench(ctx: Any) -> None:
        load_all(ctx, array, program)
        await ctx.tick().until(~array.busy)
        if before:
            await before(array, ctx)
        ctx.set(array.batch, program.batch)
        ctx.set(array.start, 1)
        await ctx.tick()
        ctx.set(array.start, 0)
        for _ in range(limit):
            if watch:
                watch(array, ctx.get)
            if params.parity:
                outcome.wrong |= ctx.get(array.wrong)
            if ctx.get(array.done):
                break
            await ctx.tick()
        else:
            raise AssertionError(f"program {program.seed}: not done within {limit} cycles")
        outcome.error, outcome.index = Error(ctx.get(array.error)), ctx.get(array.index)
        outcome.cycles = ctx.get(array.now)
        await ctx.tick()
        line = (1 << ACT_BITS * LANES) - 1
        words = [int(ctx.get(bank.data[n])) & line for bank in array.acts for n in range(params.act_lines)]
        raw = b"".join(word.to_bytes(2 * LANES, "little") for word in words)
        outcome.acts = np.frombuffer(raw, "<i2").reshape(params.groups, params.act_lines, LANES)
        await ctx.tick().until(~array.settling)
        for first in program.first:
            word = stored_record(params, first, lambda at: int(ctx.get(array.records.memory.data[at])))
            outcome.records.append({name: word >> at & (1 << bits) - 1 for name, at, bits in fields(record(params))})
        unused = params.acc_bits if params.near else 0  # of a near sum, the bit that says whether there is one
        outcome.left = sum(
            ctx.get(bank.data[n]) >> unused != 0
            for pe in array.pes
            for bank in pe.mac.banks
            for n in range(params.rows)
        )

    async def refill(ctx: Any) -> None:
        beats = np.frombuffer(b"".join(beat.to_bytes(REFILL_BITS // 8, "little") for beat in program.beats), np.uint8)
        ends = tile_ends(params, beats.reshape(-1, REFILL_BITS // 8))
        for beat, last in zip(program.beats, ends, strict=True):
            while gaps is not None and gaps.random() < 0.3:
                ctx.set(array.tiles.valid, 0)
                await ctx.tick()
            ctx.set(array.tiles.valid, 1)
            ctx.set(array.tiles.payload, {"data": beat, "last": int(last)})
            taken = False
            while not taken:  # `until` does not like to be given up, as it is where a run ends before its stream
                taken = bool(ctx.get(array.tiles.ready))
                await ctx.tick()
            outcome.beats += 1
        ctx.set(array.tiles.valid, 0)

    async def bring(ctx: Any) -> None:
        for beat in program.taken:
            while gaps is not None and gaps.random() < 0.3:
                ctx.set(array.acts_in.valid, 0)
                await ctx.tick()
            ctx.set(array.acts_in.valid, 1)
            ctx.set(array.acts_in.payload, beat)
            await ctx.tick().until(array.acts_in.ready)
            outcome.taken += 1
        ctx.set(array.acts_in.valid, 0)

    async def take(ctx: Any) -> None:
        port = array.acts_out
        while True:
            ready = gaps is None or gaps.random() < 0.6
            ctx.set(port.ready, ready)
            *_, valid, beat, last = await ctx.tick().sample(port.valid, port.p.data, port.p.last)
            if valid and ready:
                outcome.sent.append((beat, last))

    simulator.add_testbench(bench)
    if params.streams:
        simulator.add_testbench(bring, background=True)
        simulator.add_testbench(take, background=True)
    if program.beats:
        simulator.add_testbench(refill, background=True)
    simulator.run()
    return outcome


def run_core(
    program: Program, *, limit: int = 100_000, core: type[Core] = Core, watch: Callable[[Core, Any], None] | None = None
) -> tuple[NDArray[np.int16], list[dict[str, int]]]:
    """Activation memory (groups, lines, 8) after a run that ends without an error, and the record of each layer."""
    outcome = play(program, limit=limit, core=core, watch=watch)
    assert outcome.error is Error.NONE, f"program {program.seed}: {outcome.error} at descriptor {outcome.index}"
    return outcome.acts, outcome.records
