"""Cocotb bench of edges: offsets, bits of registers, words at and beyond the ends of memories, headers, streams.

What is expected follows from the register map and the layouts alone, and is checked here. The first thing that is wrong
goes to ``results.json``, with counts of what was tried.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiResp

from hw.core import READABLE
from hw.host import WRITABLE
from hw.layouts import REFILL_BITS, Error, Memory, fields, memory_shape, refill_header
from hw.params import Params
from hw.registers import mask, offset, registers
from sim.testbench.job import Bench

PAGE = 1 << 12


class Edges:
    """The scenarios; each leaves the array idle."""

    def __init__(self, dut: Any, folder: Path) -> None:
        self.dut = dut
        self.job = json.loads((folder / "job.json").read_text())
        self.params = Params.from_dict(self.job["params"])
        self.bench = Bench(dut, self.params, 100_000)
        self.host = self.bench.host
        self.seen: Counter[str] = Counter()
        self.places = (21, 42) if self.params.descriptors > 48 else (0, 0)  # of programs: each bit of an index changes

    async def answers(self, at: int, value: int | None = None, size: int = 4) -> bool:
        """Whether a read, or a write of `value`, is carried out."""
        if value is None:
            answer = await self.host.master.read(at, size)
        else:
            answer = await self.host.master.write(at, value.to_bytes(size, "little"))
        return bool(answer.resp == AxiResp.OKAY)

    def check(self, kind: str, found: object, expected: object, what: str) -> None:
        """Count one thing that was tried."""
        assert found == expected, f"{kind}: {what} gives {found}; expected {expected}"
        self.seen[kind] += 1

    async def offsets(self) -> None:
        """Each word of the page is a register, or is refused."""
        known = {register.offset: register for register in registers(self.params)}
        await self.host.select(Memory.ACTIVATIONS, 0, 0)
        for at in range(0, PAGE, 4):
            self.check("reads", await self.answers(at), at in known, f"offset {at:#x}")
            if at not in known or known[at].access == "RO":
                self.check("writes", await self.answers(at, 0), False, f"offset {at:#x}")

    async def bits(self) -> None:
        """A bit that means something is kept, another one is refused and changes nothing."""
        for register in registers(self.params):
            if register.name == "DATA" or register.access in ("RO", "W1C"):
                continue
            for bit in range(32):
                legal = bool(register.mask >> bit & 1)
                if register.name == "CONTROL":
                    if not legal:
                        self.check("bits", await self.answers(register.offset, 1 << bit), False, f"CONTROL bit {bit}")
                    continue
                await self.host.write(register.name, 0)
                self.check("bits", await self.answers(register.offset, 1 << bit), legal, f"{register.name} bit {bit}")
                kept = await self.host.read(register.name)
                self.check("bits", kept, legal << bit, f"{register.name} after bit {bit}")
                if legal:  # and all others stay alone
                    await self.host.write(register.name, register.mask & ~(1 << bit))
                    kept = await self.host.read(register.name)
                    self.check("bits", kept, register.mask & ~(1 << bit), f"{register.name} but bit {bit}")
            await self.host.write(register.name, 0) if register.name != "CONTROL" else None
        await self.host.write("BATCH", 1)
        if self.params.parity:  # of what was read and never written
            await self.host.write("PARITY", mask("PARITY"))
            self.check("bits", await self.host.read("PARITY"), 0, "PARITY when it is cleared")
        for lanes in range(1, 4):
            for first in range(5 - lanes):
                done = await self.answers(offset("FIRST") + first, 0, lanes)
                self.check("strobes", done, False, f"{lanes} bytes from {first} on")
        self.check("strobes", await self.host.read("FIRST"), 0, "FIRST")

    async def windows(self) -> None:
        """Words at the end of each unit, behind it, and in units that are not there."""
        for number in range(16):
            memory = Memory(number) if number < len(Memory) else None
            units, words, _ = memory_shape(self.params, memory) if memory else (0, 0, 0)
            ends = {0, 1, words - 1, words, words + 1, *(1 << bit for bit in range(20)), (1 << 20) - 1} - {-1}
            places = [(0, at) for at in sorted(ends)]
            places += [(unit, 0) for unit in sorted({units - 1, units, *(1 << bit for bit in range(8)), 255} - {-1})]
            for unit, at in places:
                there = unit < units and at < words
                await self.host.write("SELECT", number | unit << 8)
                await self.host.write("ADDRESS", at)
                found = await self.answers(offset("DATA"))
                self.check("words", found, there and memory in READABLE, f"a read of {number}, {unit}, {at}")
                await self.host.write("ADDRESS", at)
                found = await self.answers(offset("DATA"), 0)
                self.check("words", found, there and memory in WRITABLE, f"a write to {number}, {unit}, {at}")

    async def slow(self) -> None:
        """A host that stops now and then between the parts of a word: what it reads is what it has written."""
        chosen = random.Random(1)
        write, read = self.host.master.write_if, self.host.master.read_if
        channels = (write.aw_channel, write.w_channel, read.ar_channel)
        for channel in channels:
            channel.set_pause_generator(chosen.random() < 0.6 for _ in itertools.count())
        for memory in (Memory.DESCRIPTORS, Memory.ACTIVATIONS):
            words = [chosen.getrandbits(memory_shape(self.params, memory)[2]) for _ in range(6)]
            await self.host.load(memory, 0, 0, words)
            found = await self.host.fetch(memory, 0, 0, len(words))
            self.check("pauses", found == words, True, f"{memory.name} read back")
        for channel in channels:
            channel.set_pause_generator(None)
            channel.pause = False

    async def interrupts(self) -> None:
        """The interrupt is there for each flag that is set and enabled."""
        for unit in range(self.params.groups):  # what the long program reads; it adds nothing
            await self.host.load(Memory.ACTIVATIONS, unit, self.params.act_lines - 1, [0])
        await self.host.load(Memory.DESCRIPTORS, 0, 0, [int(word, 16) for word in self.job["long"]])
        both = ("DONE", "REFUSED")
        for wanted in ((), both[:1], both[1:], both):
            await self.host.acknowledge(*both)
            await self.host.write("INTERRUPT", 0)
            if wanted:
                await self.host.command("START")
                if "REFUSED" in wanted:
                    await self.host.command("START")
                while (await self.host.status())["busy"]:
                    pass
            if "DONE" not in wanted:
                await self.host.acknowledge("DONE")
            status = await self.host.status()
            self.check("flags", (status["done"], status["refused"]), tuple(int(n in wanted) for n in both), str(wanted))
            for enabled in ((), both[:1], both[1:], both):
                await self.host.write("INTERRUPT", mask("INTERRUPT", *enabled) if enabled else 0)
                await ClockCycles(self.dut.aclk, 2)
                await self.host.status()
                expected = int(bool(set(enabled) & set(wanted)))
                self.check("interrupts", int(self.dut.irq.value), expected, f"{wanted} with {enabled}")
        await self.host.write("INTERRUPT", 0)
        await self.host.acknowledge(*both)

    async def settles(self) -> None:
        """A word that is read right behind the end of a run is there, while the last record is still being written."""
        word = random.Random(2).getrandbits(memory_shape(self.params, Memory.ACTIVATIONS)[2])
        await self.host.load(Memory.ACTIVATIONS, 0, 2, [word])
        await self.program("short")
        await self.host.select(Memory.ACTIVATIONS, 0, 2)
        await self.host.write("INTERRUPT", mask("INTERRUPT", "DONE"))
        await self.host.write("FIRST", self.places[0])
        await self.host.command("START")
        assert not self.dut.irq.value, "the program is too short"
        await RisingEdge(self.dut.irq)
        self.check("settles", await self.host.read("DATA"), word & 0xFFFFFFFF, "a word read at the end of a run")
        self.check("settles", (await self.host.status())["error"], Error.NONE.value, "the run")
        await self.host.write("INTERRUPT", 0)
        await self.host.acknowledge("DONE")

    async def firsts(self) -> None:
        """A run that begins behind the last descriptor ends there."""
        for first in sorted({self.params.descriptors, *(1 << bit for bit in range(16)), (1 << 16) - 1}):
            if first >= self.params.descriptors:
                status = await self.bench.run(first=first)
                self.check("firsts", (status["error"], status["index"]), (Error.RANGE.value, first), f"FIRST {first}")

    def headers(self) -> Iterator[tuple[dict[str, int], bool, bool]]:
        """Fields of a header, whether it comes with TLAST, and whether it is right."""
        units = self.params.pes
        yield {"last": 1}, True, True
        yield {"last": 1}, False, False
        yield {}, True, False
        yield {"buffer": 1, "last": 1}, True, False  # comes twice, while the other buffer is waited for
        for memory in range(2, 16):
            yield {"memory": memory, "last": 1}, True, False
        for unit in sorted({units - 1, units, *(1 << bit for bit in range(8)), 255}):
            yield {"unit": unit, "last": 1}, True, unit < units
        for kind in (Memory.WEIGHTS, Memory.POINTERS):
            size = memory_shape(self.params, kind)[1]
            for at in sorted({0, size - 1, size, size + 1, *(1 << bit for bit in range(20)), (1 << 20) - 1}):
                yield {"memory": kind.value, "address": at, "last": 1}, True, at <= size
                if at > size:
                    yield {"memory": kind.value, "words": at, "last": 1}, False, False
            yield {"memory": kind.value, "address": 1, "words": size, "last": 1}, False, False
        yield {"address": (1 << 20) - 1, "words": 1, "last": 1}, False, False
        yield {"address": (1 << 20) - 1, "words": (1 << 20) - 1, "last": 1}, False, False
        (reserved,) = (width for name, _, width in fields(refill_header(self.params)) if name == "reserved")
        for bit in range(reserved):
            yield {"reserved": 1 << bit, "last": 1}, True, False

    async def refills(self) -> None:
        """A header that cannot be ends the run; a tile of no words is a tile."""
        await self.program("refill")
        for values, last, right in self.headers():
            head = self.header(**values)
            tiles = [[head]] * (1 + values.get("buffer", 0)) if last else [[head, 0, 0]]
            await self.refill(tiles, right, f"{values}, TLAST {last}")
        first, other = self.header(), self.header(buffer=1, last=1)
        await self.refill([[first, other]], False, "a tile for two buffers")
        whole = self.header(last=1)
        await self.program("other")
        await self.refill([[whole], [whole]], False, "two tiles for a buffer while the other is waited for")
        assert self.bench.tiles is not None
        self.bench.tiles.clear()
        self.bench.tiles.assert_reset()
        await self.host.command("RESTART", "NEW_STREAM")

    def header(self, **values: int) -> int:
        """The first beat of a packet."""
        return sum(values.get(name, 0) << first for name, first, _ in fields(refill_header(self.params)))

    async def program(self, name: str) -> None:
        """Load a program of the job at both places, when the array is idle."""
        while (await self.host.status())["busy"]:
            pass
        for first in set(self.places):
            await self.host.load(Memory.DESCRIPTORS, 0, first, [int(word, 16) for word in self.job[name]])

    async def refill(self, tiles: list[list[int]], right: bool, what: str) -> None:
        """Run the program that is loaded, with these tiles from a source that begins anew."""
        source = self.bench.tiles
        assert source is not None
        source.clear()
        source.assert_reset()
        await self.host.command("RESTART", "NEW_STREAM")
        while (await self.host.status())["busy"]:
            pass
        source.assert_reset(False)
        for beats in tiles:
            source.send_nowait(b"".join(beat.to_bytes(REFILL_BITS // 8, "little") for beat in beats))
        status = await self.bench.run(first=self.places[self.seen["headers"] % 2])
        self.check("headers", status["error"], (Error.NONE if right else Error.STREAM).value, what)

    async def faults(self) -> None:
        """What is beyond a memory, or can never come, ends the run."""
        while (await self.host.status())["busy"]:
            pass
        for unit in range(self.params.groups):  # each tile writes a line
            await self.host.load(Memory.OUTPUTS, unit, 0, [int(self.job["output"], 16)])
        for number, (words, batch, index) in enumerate(self.job["faults"]):
            first = self.places[number % 2]
            if first + len(words) > self.params.descriptors:
                first = 0
            while (await self.host.status())["busy"]:
                pass
            await self.host.load(Memory.DESCRIPTORS, 0, first, [int(word, 16) for word in words])
            if self.params.streams:
                self.dut.s_axis_acts_tdata.value = 0
                self.dut.s_axis_acts_tvalid.value = self.dut.m_axis_acts_tready.value = 1
            status = await self.bench.run(batch, first)
            self.bench.still()
            found = Error(status["error"]).name, status["index"]
            self.check("faults", found, ("RANGE", first + index), f"program {number}")
            await self.host.command("RESTART", "NEW_STREAM")

    async def held_up(self) -> None:
        """A source that gives nothing for long, and a host that takes nothing, hold the array up and change nothing."""
        await self.program("waits")
        run = cocotb.start_soon(self.bench.run(first=self.places[0]))
        for cycles in (0xAAA, 0x555, 0x555, 0xAAA):
            await ClockCycles(self.dut.aclk, cycles)
            self.dut.s_axis_acts_tvalid.value = 1
            await ClockCycles(self.dut.aclk, self.params.groups)
            self.dut.s_axis_acts_tvalid.value = 0
        self.check("held up", (await run)["error"], Error.NONE.value, "a stream in")
        await self.program("fills")
        run = cocotb.start_soon(self.bench.run(first=self.places[0]))
        await ClockCycles(self.dut.aclk, 3000)
        self.check("held up", (await self.host.status())["busy"], 1, "a stream out")
        self.dut.m_axis_acts_tready.value = 1
        self.check("held up", (await run)["error"], Error.NONE.value, "a stream out")
        self.bench.still()


@cocotb.test()
async def edges(dut: Any) -> None:
    """All scenarios; what is wrong is kept."""
    folder = Path(os.environ["EIE_JOB"])
    run = Edges(dut, folder)
    await run.bench.reset()
    wrong = None
    try:
        await run.offsets()
        await run.bits()
        await run.windows()
        await run.slow()
        await run.interrupts()
        await run.settles()
        await run.firsts()
        if run.params.refill:
            await run.refills()
        await run.faults()
        if run.params.streams:
            await run.held_up()
    except AssertionError as error:
        wrong = str(error).splitlines()[0]
    (folder / "results.json").write_text(json.dumps({"wrong": wrong, "seen": run.seen}))
