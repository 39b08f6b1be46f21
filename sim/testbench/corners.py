"""Cocotb bench of what may go wrong around a run: resets, refused commands, illegal descriptors.

Everything goes through the host port. The job folder holds the programs (``job.json``); what was observed
goes to ``results.json`` and is judged by the test that started the bench.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, ReadOnly, RisingEdge
from cocotbext.axi import AxiResp

from hw.layouts import Memory
from hw.params import Params
from hw.registers import offset
from sim.testbench.job import Bench

Observed = dict[str, Any]


class Corners:
    """The scenarios, each of which leaves the array ready for the next."""

    def __init__(self, dut: Any, folder: Path) -> None:
        self.dut = dut
        self.job = json.loads((folder / "job.json").read_text())
        self.params = Params.from_dict(self.job["params"])
        self.bench = Bench(dut, self.params, self.job["watchdog"])
        self.host = self.bench.host
        self.beats = 0  # taken from the refill stream since it was offered

    async def load(self, network: int) -> None:
        """Load everything of one network but its inputs."""
        for name, units in self.job["networks"][network]["words"].items():
            for unit, words in enumerate(units):
                await self.host.load(Memory[name], unit, 0, [int(word, 16) for word in words])

    async def inputs(self, network: int) -> None:
        """Load the frames of all samples; a run uses the lines of its inputs again."""
        for unit, words in enumerate(self.job["networks"][network]["inputs"]):
            await self.host.load(Memory.ACTIVATIONS, unit, 0, [int(word, 16) for word in words])

    async def whole(self, network: int) -> Observed:
        """Run a network whose memories are loaded, from its inputs to what it leaves."""
        await self.inputs(network)
        return await self.outcome(network, await self.bench.run(self.job["networks"][network]["batch"]))

    async def outcome(self, network: int, status: dict[str, int]) -> Observed:
        """Status, all activations and all records after a run."""
        program = self.job["networks"][network]
        lines = [
            await self.host.fetch(Memory.ACTIVATIONS, unit, 0, program["lines"]) for unit in range(self.params.groups)
        ]
        records = await self.host.fetch(Memory.RECORDS, 0, 0, program["records"])
        return {
            "network": network,
            "status": status,
            "lines": [[hex(word) for word in bank] for bank in lines],
            "records": [hex(word) for word in records],
        }

    def offer(self, network: int, share: float = 1.0, pauses: float = 0.0) -> None:
        """Drop what is left of the refill stream and offer a share of a network's tiles, from the first beat on."""
        source = self.bench.tiles
        assert source is not None
        source.clear()
        source.assert_reset()
        self.beats = 0
        tiles = bytes.fromhex(self.job["networks"][network]["tiles"])
        chosen = random.Random(self.job["seed"])
        source.set_pause_generator(chosen.random() < pauses for _ in itertools.count())
        beat = len(source.bus.tdata) // 8
        if part := tiles[: int(len(tiles) // beat * share) * beat]:
            source.send_nowait(part)

    async def count_beats(self) -> None:
        """Count the beats that the array takes, for as long as this runs."""
        assert self.bench.tiles is not None
        bus = self.bench.tiles.bus
        while True:
            await ReadOnly()
            self.beats += int(bus.tvalid.value) & int(bus.tready.value)
            await RisingEdge(self.dut.clk)

    async def plain(self, network: int) -> Observed:
        """Load a network and run it."""
        await self.load(network)
        self.offer(network)
        return await self.whole(network)

    async def idle(self) -> None:
        """Wait until the accumulators are clear."""
        for _ in range(self.params.rows + 50):
            if not (await self.host.status())["busy"]:
                return
        raise AssertionError("the array stays busy after reset")

    async def begin(self) -> None:
        """Start the last network without waiting."""
        await self.inputs(self.job["last"])
        await self.host.write("BATCH", self.job["networks"][self.job["last"]]["batch"])
        await self.host.write("CONTROL", 1)

    async def restarted(self, cycles: int, hard: bool, share: float = 1.0) -> Observed:
        """Abandon a run after some cycles, by command or by the reset line, and run it again from the start.

        The stream of tiles (of which the abandoned run is only offered a share) is offered anew.
        """
        self.offer(self.job["last"], share)
        await self.begin()
        await ClockCycles(self.dut.clk, cycles)
        during = await self.host.status()
        if hard:
            await self.bench.reset()
        else:
            await self.host.write("CONTROL", 2)
        await self.idle()
        status = await self.host.status()
        assert not status["done"], "an abandoned run counts as done"
        taken = self.beats
        self.offer(self.job["last"])
        return {**await self.whole(self.job["last"]), "during": during, "taken": taken}

    async def tiles(self, network: int) -> dict[str, list[Observed]]:
        """A network in tiles: whole, with gaps in its stream, abandoned all along its run, and with too few tiles."""
        counting = cocotb.start_soon(self.count_beats())
        self.job["last"] = network
        whole = await self.plain(network)
        whole["taken"] = self.beats
        cycles = await self.host.read("CYCLES")
        self.offer(network, pauses=0.5)
        paused = await self.whole(network)
        moments = self.job["moments"]
        restarted = [
            await self.restarted(cycles * n // (moments + 1), bool(n % 2)) for n in range(1, moments + 1)
        ]  # fmt: skip
        starved = [await self.restarted(2 * cycles, hard, share) for hard, share in ((False, 0.6), (True, 0.0))]
        counting.cancel()
        return {"whole": [whole], "paused": [paused], "restarted": restarted, "starved": starved}

    async def refused(self) -> Observed:
        """Start and memory access while busy are refused and change nothing."""
        await self.begin()
        await self.host.select(Memory.DESCRIPTORS, 0, 0)
        before = await self.host.status()
        assert before["busy"], "the network is too small to be caught busy"
        for register, value in (("BATCH", 7), ("FIRST", 1)):  # as they are when a run starts
            await self.host.write(register, value)
        await self.host.write("CONTROL", 1)
        await self.host.write("DATA", 0xFFFFFFFF)
        during = await self.host.status()
        assert during["busy"], "the network is too small to be caught busy twice"
        while (await self.host.status())["busy"]:
            pass
        status = await self.host.status()
        await self.host.write("CONTROL", 4)
        await self.host.write("FIRST", 0)
        cleared = await self.host.status()
        return {**await self.outcome(self.job["last"], status), "during": during, "cleared": cleared}

    async def illegal(self, words: list[str], batch: int, restart: bool) -> Observed:
        """A program with an illegal descriptor ends with a status; the watchdog in `run` catches a hang.

        Clear the accumulators behind one that adds up what no word of the output table reads.
        """
        await self.host.load(Memory.DESCRIPTORS, 0, 0, [int(word, 16) for word in words])
        status = await self.bench.run(batch)
        if restart:
            await self.host.write("CONTROL", 2)
            await self.idle()
        return {"status": status}

    async def bus_errors(self) -> Observed:
        """Unknown offsets and byte strobes are answered with SLVERR and change nothing."""
        await self.host.write("FIRST", 3)
        unknown = await self.host.master.write(0xF0, b"\x01\x02\x03\x04")
        partial = await self.host.master.write(offset("FIRST"), b"\x07")
        missing = await self.host.master.read(0xF0, 4)
        kept = await self.host.read("FIRST")
        await self.host.write("FIRST", 0)
        weights = await self.host.fetch(Memory.WEIGHTS, 0, 0, 2)
        return {
            "unknown": unknown.resp == AxiResp.SLVERR,
            "partial": partial.resp == AxiResp.SLVERR,
            "missing": missing.resp == AxiResp.SLVERR,
            "kept": kept,
            "weights": weights,
            "id": [await self.host.read(name) for name in ("ID", "HASH_LOW", "HASH_HIGH", "PES")],
        }

    async def interrupt(self) -> Observed:
        """Without enable the interrupt stays low; enabling it afterwards raises it; acknowledging clears it."""
        await self.host.write("INTERRUPT", 0)
        await self.begin()
        while not (await self.host.status())["done"]:
            pass
        silent = int(self.dut.irq.value)
        await self.host.write("INTERRUPT", 1)
        await ClockCycles(self.dut.clk, 2)
        raised = int(self.dut.irq.value)
        await self.host.write("CONTROL", 4)
        await ClockCycles(self.dut.clk, 2)
        return {"silent": silent, "raised": raised, "cleared": int(self.dut.irq.value)}


@cocotb.test()
async def corners(dut: Any) -> None:
    """All scenarios on one array, one after the other."""
    folder = Path(os.environ["EIE_JOB"])
    run = Corners(dut, folder)
    await run.bench.reset()
    observed: dict[str, Any] = {"plain": [await run.plain(network) for network in (0, 1, 0)]}
    run.job["last"] = 0
    observed["refused"] = await run.refused()
    observed["interrupt"] = await run.interrupt()
    observed["restarted"] = [await run.restarted(cycles, hard) for cycles in (1, 9, 40, 90) for hard in (False, True)]
    observed["bus"] = await run.bus_errors()
    observed["illegal"] = [await run.illegal(*program) for program in run.job["illegal"]]
    observed["tiles"] = await run.tiles(2)
    observed["after"] = await run.plain(1)
    await RisingEdge(dut.clk)
    (folder / "results.json").write_text(json.dumps(observed))
