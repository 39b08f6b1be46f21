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

from hw.layouts import Memory, fields, memory_shape, refill_header
from hw.params import Params
from hw.registers import mask, offset
from sim.testbench.job import Bench, packets

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
        self.most = 1 << 62  # that are offered

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

    def stop(self) -> None:
        """Take the source of the refill stream away, in the middle of a tile or not."""
        source = self.bench.tiles
        assert source is not None
        source.clear()
        source.assert_reset()

    def offer(self, network: int, share: float = 1.0, pauses: float = 0.0) -> None:
        """Offer a share of the beats of a network's tiles, from the first one on."""
        source = self.bench.tiles
        assert source is not None
        tiles = packets(self.params, bytes.fromhex(self.job["networks"][network]["tiles"]))
        beat = len(source.bus.tdata) // 8
        self.beats, self.most = 0, int(sum(map(len, tiles)) // beat * share)
        chosen = random.Random(self.job["seed"])
        source.set_pause_generator((chosen.random() < pauses for _ in itertools.count()) if pauses else None)
        source.pause = not self.most
        for tile in tiles:
            source.send_nowait(tile)

    async def count_beats(self) -> None:
        """Count the beats that the array takes, for as long as this runs, and offer no more than are wanted."""
        assert self.bench.tiles is not None
        source = self.bench.tiles
        while True:
            await ReadOnly()
            self.beats += int(source.bus.tvalid.value) & int(source.bus.tready.value)
            if self.beats >= self.most:
                source.pause = True
            await RisingEdge(self.dut.aclk)

    async def plain(self, network: int) -> Observed:
        """Load a network and run it. What another one left in the stream is given up."""
        await self.load(network)
        await self.renew(network)
        return await self.whole(network)

    async def idle(self) -> None:
        """Wait until the accumulators are clear."""
        for _ in range(self.params.rows + 50):
            if not (await self.host.status())["busy"]:
                return
        raise AssertionError("the array stays busy after reset")

    async def renew(self, network: int) -> None:
        """Begin the refill stream anew, on both sides."""
        self.stop()
        await self.host.command("RESTART", "NEW_STREAM")
        await self.idle()
        self.offer(network)

    async def begin(self) -> None:
        """Start the last network without waiting."""
        await self.inputs(self.job["last"])
        await self.host.write("BATCH", self.job["networks"][self.job["last"]]["batch"])
        await self.host.command("START")

    async def restarted(self, cycles: int, how: str, share: float = 1.0) -> Observed:
        """Abandon a run after some cycles, and run it again from the start, with a stream that is offered anew.

        how : "reset" by the reset line, "new" by RESTART with NEW_STREAM, in both cases with a source that stops;
            "dropped" by RESTART with a source that ends the tile that it is in.
        share : of the stream that the abandoned run is offered.
        """
        source = self.bench.tiles
        assert source is not None
        self.offer(self.job["last"], share)
        await self.begin()
        await ClockCycles(self.dut.aclk, cycles)
        during = await self.host.status()
        taken = self.beats
        if how == "dropped":
            source.clear()  # all but the tile that it is in
            inside = 1
            while inside:  # and perhaps the one whose first beat was waiting
                await self.host.command("RESTART")
                await self.idle()
                inside = (await self.host.status())["in_tile"]
        else:
            self.stop()
            if how == "reset":
                await self.bench.reset()
            else:
                await self.host.command("RESTART", "NEW_STREAM")
        await self.idle()
        status = await self.host.status()
        assert not status["done"], "an abandoned run counts as done"
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
        moments, ways = self.job["moments"], ("new", "reset", "dropped")
        restarted = [
            await self.restarted(cycles * n // (moments + 1), ways[n % 3]) for n in range(1, moments + 1)
        ]  # fmt: skip
        starved = [await self.restarted(2 * cycles, how, share) for how, share in (("new", 0.6), ("reset", 0.0))]
        wrong = [await self.wrong(network, name) for name in ("unit", "early", "late", "twice")]
        counting.cancel()
        return {"whole": [whole], "paused": [paused], "restarted": restarted, "starved": starved, "wrong": wrong}

    async def wrong(self, network: int, name: str) -> Observed:
        """A run whose stream is wrong from its second tile on ends by itself; then the same with the right one."""
        source = self.bench.tiles
        assert source is not None
        first, second, *rest = packets(self.params, bytes.fromhex(self.job["networks"][network]["tiles"]))
        beat = len(source.bus.tdata) // 8
        at = {field: place for field, place, _ in fields(refill_header(self.params))}
        match name:
            case "unit":  # of a PE that is not there
                head = int.from_bytes(second[:beat], "little") | 0xFF << at["unit"]
                bad = [first, head.to_bytes(beat, "little") + second[beat:], *rest]
            case "early":  # TLAST after the first beat
                bad = [first, second[:beat], second[beat:], *rest]
            case "late":  # none between two tiles
                bad = [first + second, *rest]
            case _:  # a second tile for the buffer of the first
                bad = [first, first, *rest]
        await self.renew(network)
        self.stop()
        await self.host.command("RESTART", "NEW_STREAM")
        await self.idle()
        self.beats, self.most = 0, 1 << 62
        source.pause = False
        for tile in bad:
            source.send_nowait(tile)
        await self.inputs(network)
        ended = await self.bench.run(self.job["networks"][network]["batch"])
        await self.renew(network)
        return {**await self.whole(network), "ended": ended, "name": name}

    async def refused(self) -> Observed:
        """Start and memory access while busy are refused and change nothing."""
        await self.begin()
        await self.host.select(Memory.DESCRIPTORS, 0, 0)
        before = await self.host.status()
        assert before["busy"], "the network is too small to be caught busy"
        for register, value in (("BATCH", 7), ("FIRST", 1)):  # as they are when a run starts
            await self.host.write(register, value)
        await self.host.command("START")
        await self.host.write("DATA", 0xFFFFFFFF)
        during = await self.host.status()
        assert during["busy"], "the network is too small to be caught busy twice"
        await self.host.read("DATA")
        while (await self.host.status())["busy"]:
            pass
        status = await self.host.status()
        flags = []
        for name in ("REFUSED", "DONE"):
            await self.host.acknowledge(name)
            now = await self.host.status()
            flags.append([now["done"], now["refused"]])
        await self.host.write("FIRST", 0)
        return {**await self.outcome(self.job["last"], status), "during": during, "flags": flags}

    async def illegal(self, words: list[str], batch: int, restart: bool) -> Observed:
        """A program with an illegal descriptor ends with a status; the watchdog in `run` catches a hang.

        Clear the accumulators behind one that adds up what no word of the output table reads.
        """
        await self.host.load(Memory.DESCRIPTORS, 0, 0, [int(word, 16) for word in words])
        status = await self.bench.run(batch)
        if restart:
            await self.host.command("RESTART")
            await self.idle()
        return {"status": status}

    async def bus_errors(self) -> Observed:
        """Unknown offsets, byte strobes and words that are not there are answered with SLVERR and change nothing."""
        await self.host.write("FIRST", 3)
        answers = {
            "unknown": await self.host.master.write(0xF0, b"\x01\x02\x03\x04"),
            "partial": await self.host.master.write(offset("FIRST"), b"\x07"),
            "missing": await self.host.master.read(0xF0, 4),
            "illegal": await self.host.master.write(offset("FIRST"), (1 << 16).to_bytes(4, "little")),
        }
        kept = await self.host.read("FIRST")
        await self.host.write("FIRST", 0)
        return {
            "refused": {name: answer.resp == AxiResp.SLVERR for name, answer in answers.items()},
            "kept": kept,
            "beyond": [await self.beyond(memory) for memory in Memory],
            "id": [await self.host.read(name) for name in ("ID", "HASH_LOW", "HASH_HIGH", "PES")],
        }

    async def beyond(self, memory: Memory) -> Observed:
        """Write and read one word behind the end, and in a unit too many; what the first and the last lines hold."""
        units, words, _ = memory_shape(self.params, memory)
        held = []
        refused = []
        for unit, address in ((0, words), (units, 0), (255, 0)):
            if memory in (Memory.ACTIVATIONS, Memory.DESCRIPTORS):
                held.append([hex(word) for at in (0, words - 1) for word in await self.host.fetch(memory, 0, at, 1)])
            await self.host.select(memory, unit, address)
            for _ in range(self.host.parts(memory)):
                written = await self.host.master.write(offset("DATA"), b"\xff" * 4)
                read = await self.host.master.read(offset("DATA"), 4)
                refused.append(written.resp == read.resp == AxiResp.SLVERR)
            held.append(held[-1] if held else [])
        return {"memory": memory.name, "refused": all(refused), "kept": all(one == held[0] for one in held)}

    async def interrupt(self) -> Observed:
        """Without enable the interrupt stays low; enabling it afterwards raises it; clearing DONE clears it.

        With REFUSED enabled alone, a command that is refused raises it, and DONE does not.
        """
        await self.host.write("INTERRUPT", 0)
        await self.begin()
        while not (await self.host.status())["done"]:
            pass
        silent = int(self.dut.irq.value)
        await self.host.write("INTERRUPT", mask("INTERRUPT", "DONE"))
        await ClockCycles(self.dut.aclk, 2)
        raised = int(self.dut.irq.value)
        await self.host.acknowledge("DONE")
        await ClockCycles(self.dut.aclk, 2)
        found = {"silent": silent, "raised": raised, "cleared": int(self.dut.irq.value)}
        await self.host.write("INTERRUPT", mask("INTERRUPT", "REFUSED"))
        await self.begin()
        await self.host.command("START")
        while not (await self.host.status())["done"]:
            pass
        found["refused"] = int(self.dut.irq.value)
        await self.host.acknowledge("REFUSED")
        await ClockCycles(self.dut.aclk, 2)
        found["quiet"] = int(self.dut.irq.value)
        await self.host.acknowledge("DONE")
        return found


@cocotb.test()
async def corners(dut: Any) -> None:
    """All scenarios on one array, one after the other."""
    folder = Path(os.environ["EIE_JOB"])
    run = Corners(dut, folder)
    await run.bench.reset()
    cycles = await run.host.read("CYCLES")
    observed: dict[str, Any] = {"cycles": cycles, "plain": [await run.plain(network) for network in (0, 1, 0)]}
    run.job["last"] = 0
    observed["refused"] = await run.refused()
    observed["interrupt"] = await run.interrupt()
    observed["restarted"] = [await run.restarted(cycles, how) for cycles in (1, 9, 40, 90) for how in ("new", "reset")]
    observed["bus"] = await run.bus_errors()
    observed["illegal"] = [await run.illegal(*program) for program in run.job["illegal"]]
    observed["tiles"] = await run.tiles(2)
    observed["after"] = await run.plain(1)
    await RisingEdge(dut.aclk)
    (folder / "results.json").write_text(json.dumps(observed))
