"""Run an image in Amaranth's own simulator: no C++ compiler needed, a few vectors at most."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from amaranth.hdl import UnusedElaboratable
from amaranth.sim import Simulator
from numpy.typing import NDArray

from compiler.errors import EieError
from compiler.image.image import Image
from compiler.image.words import memory_words
from hw.core import Core
from hw.layouts import Memory, fields, record
from hw.params import LANES
from sim.program import chunks, layer_outputs, layer_records, record_numbers, words

__all__ = ["run_amaranth"]


class SimulationError(EieError):
    """The array hung or ended with an error status."""

    exit_code = 1


def run_amaranth(
    image: Image,
    x: NDArray[np.int16],
    *,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[Core, Callable[[Any], int]], None] | None = None,
) -> tuple[list[NDArray[np.int16]], list[list[dict[str, int]]]]:
    """Outputs of every layer (int16 (batch, outputs), neuron order) and all layer records of a batch.

    Parameters
    ----------
    watch : called in every cycle of a run with the array and a function that gives a signal's value.

    Raises
    ------
    SimulationError
        The run does not end, or ends with an error status.
    """
    params = image.params
    core = Core(params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        simulator = Simulator(core)
    simulator.add_clock(1e-9)
    stored = memory_words(image)
    parts = list(chunks(image, x))
    outputs: list[list[NDArray[np.int16]]] = []
    records: list[dict[str, int]] = []
    places = fields(record(params))
    limit = 20_000 + 8 * sum(layer.nonzeros + layer.padding + layer.columns for layer in image.layers) * len(x)
    limit += 8 * len(image.tiles) * len(x)

    async def bench(ctx: Any) -> None:
        def load(memory: Any, content: list[int]) -> None:
            for address, word in enumerate(content):
                ctx.set(memory.data[address], word)

        for n, pe in enumerate(core.pes):
            load(pe.weight_read.memory, stored[Memory.WEIGHTS][n])
            load(pe.pointer_read.memory, stored[Memory.POINTERS][n])
            load(pe.weight_decode.memory, stored[Memory.CODEBOOK][0])
        for n, writeback in enumerate(core.writebacks):
            load(writeback.memory, stored[Memory.BIAS][n])
        await ctx.tick().until(~core.busy)
        for chunk in parts:
            inputs = words(chunk.inputs)
            for n, acts in enumerate(core.acts):
                load(acts, [int.from_bytes(bytes(line), "little") for line in inputs[n]])
            load(core.descriptors, chunk.descriptors)
            ctx.set(core.start, 1)
            await ctx.tick()
            ctx.set(core.start, 0)
            for _ in range(limit):
                if watch:
                    watch(core, ctx.get)
                if ctx.get(core.done):
                    break
                await ctx.tick()
            else:
                raise SimulationError(f"the array did not finish within {limit} cycles")
            if error := ctx.get(core.error).value:
                raise SimulationError(f"the array ended with error {error} at descriptor {ctx.get(core.index)}")
            await ctx.tick()
            lines = len(chunk.inputs)
            memory = np.zeros((lines, params.groups, LANES), np.int16)
            for group, acts in enumerate(core.acts):
                for line in range(lines):
                    raw = int(ctx.get(acts.data[line])).to_bytes(2 * LANES, "little")
                    memory[line, group] = np.frombuffer(raw, "<i2")
            outputs.append(layer_outputs(image, memory, chunk))
            for n in record_numbers(image, chunk.count):
                word = int(ctx.get(core.records.data[n]))
                records.append({name: (word >> first) & ((1 << width) - 1) for name, first, width in places})
            if progress:
                progress(chunk.first + chunk.count, len(x))

    async def refill(ctx: Any) -> None:
        beats = [int.from_bytes(beat.tobytes(), "little") for beat in image.tiles]
        ctx.set(core.tiles.valid, 1)
        for beat in beats * len(x):
            ctx.set(core.tiles.payload, beat)
            await ctx.tick().until(core.tiles.ready)
        ctx.set(core.tiles.valid, 0)

    simulator.add_testbench(bench)
    if len(image.tiles):
        simulator.add_testbench(refill, background=True)
    simulator.run()
    return (
        [np.concatenate([chunk[n] for chunk in outputs]) for n in range(len(image.layers))],
        layer_records(image, records),
    )
