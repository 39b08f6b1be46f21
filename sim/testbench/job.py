"""Cocotb bench that runs a job folder: it starts the array, lets it run, and reads back.

The job folder (environment variable ``EIE_JOB``) holds ``job.json`` and the arrays that it names. The
design runs freely between start and interrupt: Python is not in the loop.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import re
import time
from pathlib import Path
from typing import Any, Protocol

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, First, RisingEdge, Timer
from cocotb.utils import get_sim_time
from cocotbext.axi import AxiStreamBus, AxiStreamSource

from hw.layouts import REFILL_BITS, Memory
from hw.params import Params
from hw.parity import with_parity
from hw.recorder import PARTS, Recorder, stored_record
from hw.registers import mask
from sim.streams import Outside, Transfer
from sim.testbench.host import HostPort
from sim.tiles import tile_ends

ACT_BYTES = 16  # bytes of an activation word: eight int16

CLOCK_NS = 2
FLIPS = 8
"""Memories of which a word gets a wrong parity in a cycle, where some are to."""


class Host(Protocol):
    """What sends and takes rows of maps: the next beat or None, it was taken, a beat that came."""

    def offer(self) -> bytes | None:
        """The next beat."""

    def sent(self) -> None:
        """It was taken."""

    def take(self, beat: bytes) -> None:
        """A beat of the array."""


def packets(params: Params, tiles: bytes) -> list[bytes]:
    """The tiles of a refill stream, each a packet with TLAST."""
    beats = np.frombuffer(tiles, np.uint8).reshape(-1, REFILL_BITS // 8)
    return [tile.tobytes() for tile in np.split(beats, np.flatnonzero(tile_ends(params, beats)) + 1) if len(tile)]


class Bench:
    """One array under test: clock, reset, watchdog, and both ways to its memories."""

    def __init__(self, dut: Any, params: Params, watchdog: int) -> None:
        self.dut, self.params, self.watchdog = dut, params, watchdog
        Clock(dut.aclk, CLOCK_NS, unit="ns").start()
        self.host = HostPort(dut, params)
        self.still()
        self.tiles = (
            AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis_weights"), dut.aclk) if params.refill else None
        )

    def stream(self, tiles: bytes, pauses: float, seed: int) -> None:
        """Offer the beats of `tiles` to the refill port, in a share of cycles (`pauses`) not."""
        if not tiles:
            return
        assert self.tiles is not None
        for tile in packets(self.params, tiles):
            self.tiles.send_nowait(tile)
        if pauses:
            chosen = random.Random(seed)
            self.tiles.set_pause_generator(chosen.random() < pauses for _ in itertools.count())

    def still(self) -> None:
        """Offer no rows of maps, and take none."""
        if self.params.streams:
            self.dut.s_axis_acts_tvalid.value = self.dut.m_axis_acts_tready.value = 0

    async def outside(self, host: Host, pauses: float, seed: int) -> None:
        """Send and take the rows of maps off chip, in a share of cycles (`pauses`) nothing; until cancelled."""
        dut, chosen = self.dut, random.Random(seed)
        beat: bytes | None = None
        while True:
            if beat is None and chosen.random() >= pauses:
                beat = host.offer()
            dut.s_axis_acts_tvalid.value = int(beat is not None)
            if beat is not None:
                dut.s_axis_acts_tdata.value = int.from_bytes(beat, "little")
                dut.s_axis_acts_tlast.value = chosen.getrandbits(1)  # which nobody looks at
            ready = chosen.random() >= pauses
            dut.m_axis_acts_tready.value = int(ready)
            await RisingEdge(dut.aclk)
            if beat is not None and dut.s_axis_acts_tready.value:
                host.sent()
                beat = None
            if ready and dut.m_axis_acts_tvalid.value:
                host.take(int(dut.m_axis_acts_tdata.value).to_bytes(ACT_BYTES, "little"))

    async def flip(self, rams: list[str], seed: int) -> None:
        """Make the parity of all words of these memories wrong, and then of any as long as this runs.

        By the parity bit, the highest, while the clock falls: nothing else changes a memory then.
        """
        chosen = random.Random(seed)
        memories = [self.inside(ram).mem for ram in rams]
        words = [word for memory in memories for word in memory]
        while True:
            await FallingEdge(self.dut.aclk)
            for word in words:
                if not (value := int(word.value)).bit_count() & 1:
                    word.value = value ^ 1 << len(word) - 1
            words = [memory[chosen.randrange(len(memory))] for memory in chosen.sample(memories, min(FLIPS, len(rams)))]

    async def reset(self) -> None:
        """Pull the reset line and wait until the accumulators are clear."""
        self.dut.aresetn.value = 0
        await ClockCycles(self.dut.aclk, 4)
        self.dut.aresetn.value = 1
        while (await self.host.status())["busy"]:
            pass

    async def run(self, batch: int = 1, first: int = 0) -> dict[str, int]:
        """Start, wait for the interrupt or the watchdog, acknowledge; returns the status at the end."""
        await self.host.write("INTERRUPT", mask("INTERRUPT", "DONE"))
        await self.host.write("FIRST", first)
        await self.host.write("BATCH", batch)
        # For the simulator's main program, which writes a waveform of some cycles (sim/rtl/main_waves.cpp).
        os.environ["EIE_RUN_BEGAN"] = str(get_sim_time("step"))
        await self.host.command("START")
        if not self.dut.irq.value:
            # A timer, because ClockCycles would call Python in every cycle.
            await First(RisingEdge(self.dut.irq), Timer(self.watchdog * CLOCK_NS, unit="ns"))
        status = await self.host.status()
        assert status["done"], f"watchdog: the array did not finish within {self.watchdog} cycles; status {status}"
        await self.host.acknowledge("DONE")
        return status

    def inside(self, path: str) -> Any:
        """Handle of something inside, by the names on the way to it, that of the top first."""
        return functools.reduce(_child, path.split(".")[1:], self.dut)

    def memory(self, memory: Memory, unit: int) -> Any:
        """Handle of the words of a memory, for loading and reading without the bus."""
        core = self.dut.core
        match memory:
            case Memory.ACTIVATIONS:
                block = getattr(core, f"acts_{unit}")
            case Memory.RECORDS:
                block = core.records.memory
            case _:
                raise ValueError(f"{memory} is loaded through the bus or preloaded")
        return block.ram.mem

    async def read(self, memory: Memory, unit: int, addresses: list[int], bus: bool) -> list[int]:
        """Words of a memory at ascending addresses, through the host port or without."""
        if not bus:
            words = self.memory(memory, unit)
            if memory is Memory.RECORDS:
                await ClockCycles(self.dut.aclk, PARTS + Recorder.LATENCY)  # the last one is in memory then
                return [stored_record(self.params, n, lambda at: int(words[at].value)) for n in addresses]
            return [int(words[address].value) & (1 << 8 * ACT_BYTES) - 1 for address in addresses]
        found: list[int] = []
        at = 0
        while at < len(addresses):
            size = 1
            while at + size < len(addresses) and addresses[at + size] == addresses[at] + size:
                size += 1
            found += await self.host.fetch(memory, unit, addresses[at], size)
            at += size
        return found


def _child(handle: Any, name: str) -> Any:
    """What is inside by that name, or, where a signal has the name too, by the name with a number behind it."""
    if hasattr(handle, name):
        return getattr(handle, name)
    return next(child for child in handle if re.fullmatch(rf"\\?{name}[_$]\d+ ?", child._name))


async def load_by_bus(bench: Bench, folder: Path) -> None:
    """Weights, pointers, codebooks, output table and descriptors through the host port."""
    loads = json.loads((folder / "words.json").read_text())
    for name, units in loads.items():
        for unit, words in enumerate(units):
            await bench.host.load(Memory[name], unit, 0, [int(word, 16) for word in words])


@cocotb.test()
async def run_job(dut: Any) -> None:
    """Every chunk of the job: inputs in, start, outputs and records out."""
    folder = Path(os.environ["EIE_JOB"])
    job = json.loads((folder / "job.json").read_text())
    params = Params.from_dict(job["params"])
    bench = Bench(dut, params, job["watchdog"])
    await bench.reset()
    if job["bus"]:
        await load_by_bus(bench, folder)
    results = []
    for number, (batch, lines) in enumerate(zip(job["batches"], job["reads"], strict=True)):
        inputs = np.load(folder / f"inputs_{number}.npy")
        words = [[int.from_bytes(line.tobytes(), "little") for line in bank] for bank in inputs]
        for unit, bank in enumerate(words):
            if job["bus"]:
                await bench.host.load(Memory.ACTIVATIONS, unit, 0, bank)
                continue
            memory = bench.memory(Memory.ACTIVATIONS, unit)
            for address, word in enumerate(bank):
                memory[address].value = with_parity(word, 8 * ACT_BYTES) if params.parity else word
        await ClockCycles(dut.aclk, 1)
        for ram, address, bit in job["flips"]:
            word = bench.inside(ram).mem[address]
            word.value = int(word.value) ^ 1 << bit
            await ClockCycles(dut.aclk, 1)
        bench.stream(np.load(folder / f"tiles_{number}.npy").tobytes(), job["pauses"], job["seed"])
        plan = [Transfer.of(each) for each in job["transfers"]]
        given = {n: np.load(folder / f"given_{number}_{n}.npy") for n in job["given"]}
        host = Outside(plan, batch, given)
        task = cocotb.start_soon(bench.outside(host, job["pauses"], job["seed"])) if plan else None
        flipping = cocotb.start_soon(bench.flip(job["flipping"], job["seed"])) if job["flipping"] else None
        begun = time.perf_counter()
        status = await bench.run(batch)
        seconds = time.perf_counter() - begun
        if task is not None:
            task.cancel()
            bench.still()
        for n in {each.writes for each in plan} & set(job["takes"]):
            np.save(folder / f"taken_{number}_{n}.npy", host.maps[n])
        banks = [await bench.read(Memory.ACTIVATIONS, unit, lines, job["bus"]) for unit in range(params.groups)]
        records = await bench.read(Memory.RECORDS, 0, job["records"], job["bus"])
        if flipping is not None:
            flipping.cancel()
        raw = b"".join(word.to_bytes(ACT_BYTES, "little") for bank in banks for word in bank)
        np.save(folder / f"outputs_{number}.npy", np.frombuffer(raw, "<i2").reshape(params.groups, len(lines), 8))
        results.append({"status": status, "records": [hex(word) for word in records],
                        "cycles": await bench.host.read("CYCLES"), "seconds": seconds, "left": host.left,
                        "parity": await bench.host.read("PARITY") if params.parity else 0})  # fmt: skip
        if flipping is not None:
            await bench.host.write("PARITY", mask("PARITY"))
            assert not await bench.host.read("PARITY"), "PARITY is not cleared"
        if job["stop_on_error"] and status["error"]:
            break
    (folder / "results.json").write_text(json.dumps(results))
