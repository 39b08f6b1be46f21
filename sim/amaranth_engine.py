"""Run an image in Amaranth's own simulator: no C++ compiler needed, a few vectors at most."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from amaranth.hdl import UnusedElaboratable
from amaranth.sim import Simulator
from numpy.typing import NDArray

from compiler.image.image import Image
from compiler.image.words import stored_words
from hw.core import Core
from hw.layouts import Memory, fields, record
from hw.params import LANES
from hw.parity import found, with_parity
from hw.recorder import stored_record
from sim.golden_array import Program
from sim.program import (
    SimulationError,
    WriteLog,
    chunks,
    cycle_limit,
    joined,
    layer_records,
    layer_values,
    layer_words,
    record_numbers,
    refill_stream,
    words,
)  # fmt: skip
from sim.streams import BEAT, Outside, given_maps, transfers
from sim.tiles import tile_ends

__all__ = ["run_amaranth"]


def run_amaranth(
    image: Image,
    inputs: Sequence[NDArray[np.int16]],
    program: Program,
    *,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[Core, Callable[[Any], int]], None] | None = None,
) -> tuple[dict[str, NDArray[np.int16]], list[list[dict[str, int]]]]:
    """Every map that layers write (int16 (batch, H, W, C), by name), and the records of each run.

    Parameters
    ----------
    inputs : int16 (batch, H, W, C) of each input of the image.
    program : the image, decoded.
    watch : called in every cycle of a run with the array and a function that gives a signal's value.

    Raises
    ------
    SimulationError
        The run does not end, ends with an error status, writes other lines than its descriptors say, or meets a word
        whose parity is wrong.
    """
    params = image.params
    core = Core(params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        simulator = Simulator(core)
    simulator.add_clock(1e-9)
    stored = stored_words(image)
    parts = list(chunks(image, inputs))
    values: list[dict[str, NDArray[np.int16]]] = []
    records: list[dict[str, int]] = []
    places = fields(record(params))
    host: list[Outside] = []  # of the present run
    beats = [
        {"data": int.from_bytes(beat.tobytes(), "little"), "last": int(last)}
        for tiles in (refill_stream(image, part.count) for part in parts)
        for beat, last in zip(tiles, tile_ends(params, tiles), strict=True)
    ]

    async def bench(ctx: Any) -> None:
        def load(memory: Any, content: list[int]) -> None:
            for address, word in enumerate(content):
                ctx.set(memory.data[address], word)

        for n, pe in enumerate(core.pes):
            load(pe.weight_read.memory, stored[Memory.WEIGHTS][n])
            load(pe.pointer_read.memory, stored[Memory.POINTERS][n])
            load(pe.weight_decode.memory, stored[Memory.CODEBOOK][0])
        for n, writeback in enumerate(core.writebacks):
            load(writeback.memory, stored[Memory.OUTPUTS][n])
            if Memory.TABLES in stored:
                load(writeback.table.memory, stored[Memory.TABLES][0])
        load(core.descriptors, stored[Memory.DESCRIPTORS][0])
        await ctx.tick().until(~core.busy)
        for chunk in parts:
            host[:] = [Outside(transfers(image), chunk.count, given_maps(image, chunk.memory))]
            given = words(chunk.inputs)
            for n, acts in enumerate(core.acts):
                lines_in = [int.from_bytes(bytes(line), "little") for line in given[n]]
                load(acts, [with_parity(word, acts.width) for word in lines_in] if params.parity else lines_in)
            written: list[tuple[list[int], list[int]]] = [([], []) for _ in core.acts]
            ctx.set(core.batch, chunk.count)
            ctx.set(core.start, 1)
            await ctx.tick()
            ctx.set(core.start, 0)
            limit = cycle_limit(image, program, chunk.count)
            for _ in range(limit):
                if watch:
                    watch(core, ctx.get)
                if params.parity and (wrong := ctx.get(core.wrong)):
                    raise SimulationError(f"the parity of a word was wrong: {found(wrong)}")
                for acts, (lines, data) in zip(core.acts, written, strict=True):
                    if ctx.get(acts.w_en):
                        lines.append(ctx.get(acts.w_addr))
                        data.append(ctx.get(acts.w_data))
                if ctx.get(core.done):
                    break
                await ctx.tick()
            else:
                raise SimulationError(f"the array did not finish within {limit} cycles")
            if error := ctx.get(core.error).value:
                raise SimulationError(f"the array ended with error {error} at descriptor {ctx.get(core.index)}")
            await ctx.tick()
            if host[0].left != (0, 0):
                raise SimulationError(f"beats that were not taken, and that did not come: {host[0].left}")
            values.append(layer_values(image, program, layer_words(image, program, chunk.count, _log(written))))
            await ctx.tick().until(~core.settling)
            for n in record_numbers(image):
                word = stored_record(params, n, lambda at: int(ctx.get(core.records.memory.data[at])))
                records.append({name: (word >> first) & ((1 << width) - 1) for name, first, width in places})
            if progress:
                progress(chunk.first + chunk.count, len(inputs[0]))

    async def refill(ctx: Any) -> None:
        ctx.set(core.tiles.valid, 1)
        for beat in beats:
            ctx.set(core.tiles.payload, beat)
            taken = False
            while not taken:  # `until` does not like to be given up, as it is where a run ends before its stream
                taken = bool(ctx.get(core.tiles.ready))
                await ctx.tick()
        ctx.set(core.tiles.valid, 0)

    async def streams(ctx: Any) -> None:
        ctx.set(core.acts_out.ready, 1)
        while True:
            beat = host[0].offer() if host else None
            ctx.set(core.acts_in.valid, beat is not None)
            if beat is not None:
                ctx.set(core.acts_in.payload, int.from_bytes(beat, "little"))
            _, _, taken, comes, word = await ctx.tick().sample(
                core.acts_in.ready, core.acts_out.valid, core.acts_out.p.data
            )
            if beat is not None and taken:
                host[0].sent()
            if comes:
                host[0].take(word.to_bytes(BEAT, "little"))

    if transfers(image):
        simulator.add_testbench(streams, background=True)
    simulator.add_testbench(bench)
    if beats:
        simulator.add_testbench(refill, background=True)
    simulator.run()
    return joined(values), layer_records(image, records)


def _log(written: list[tuple[list[int], list[int]]]) -> WriteLog:
    """What was written, as arrays."""
    return [
        (
            np.array(lines, np.int64),
            np.frombuffer(b"".join(word.to_bytes(2 * LANES, "little") for word in data), "<i2").reshape(-1, LANES),
        )
        for lines, data in written
    ]
