"""Cocotb bench of the host port under traffic: three hosts at once, random pauses on all five channels.

One uses the window to the memories, one reads and writes registers, one only reads. What each is answered is defined
however their accesses fall together, and is checked here; so is the protocol, cycle by cycle. A message of the first
thing that is wrong goes to ``results.json``, with counts of what was seen.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import Combine, ReadOnly, RisingEdge, SimTimeoutError, with_timeout

from hw.layouts import Memory, identity
from hw.params import Params
from hw.registers import ID, offset
from sim.testbench.job import CLOCK_NS, Bench

CHANNELS = {  # channel → (valid, ready, payload)
    "aw": ("awvalid", "awready", ("awaddr",)),
    "w": ("wvalid", "wready", ("wdata", "wstrb")),
    "b": ("bvalid", "bready", ("bresp",)),
    "ar": ("arvalid", "arready", ("araddr",)),
    "r": ("rvalid", "rready", ("rdata", "rresp")),
}


def _shares(chosen: random.Random, share: float) -> Iterator[bool]:
    while True:
        yield chosen.random() < share


class Traffic:
    """The three hosts, and the monitor of the protocol."""

    def __init__(self, dut: Any, folder: Path) -> None:
        self.dut = dut
        self.job = json.loads((folder / "job.json").read_text())
        self.params = Params.from_dict(self.job["params"])
        self.bench = Bench(dut, self.params, 10_000)
        self.host = self.bench.host
        self.random = random.Random(self.job["seed"])
        self.seen: Counter[str] = Counter()
        self.broken: str | None = None  # what the monitor found

    def pause(self, share: float) -> None:
        """Hold back each channel in a share of cycles, at random."""
        write, read = self.host.master.write_if, self.host.master.read_if
        for n, channel in enumerate(
            (write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel)
        ):
            chosen = random.Random(self.job["seed"] * 8 + n)
            channel.set_pause_generator(_shares(chosen, share) if share else None)
            channel.pause = False

    async def monitor(self) -> None:
        """Valid stays, and what it stands for, until it is taken; no response comes without its request."""
        signal = {name: getattr(self.dut, f"s_axi_{name}") for _, _, names in CHANNELS.values() for name in names}
        handshake = {
            channel: (getattr(self.dut, f"s_axi_{valid}"), getattr(self.dut, f"s_axi_{ready}"))
            for channel, (valid, ready, _) in CHANNELS.items()
        }
        held: dict[str, tuple[int, ...]] = {}
        taken: Counter[str] = Counter()
        while True:
            await ReadOnly()
            busy = set()
            for channel, (_, _, names) in CHANNELS.items():
                valid, ready = (int(one.value) for one in handshake[channel])
                payload = tuple(int(signal[name].value) for name in names)
                if channel in held:
                    assert valid, f"protocol: {channel}valid falls before it is taken"
                    assert payload == held[channel], f"protocol: {channel} changes before it is taken"
                    del held[channel]
                if valid and not ready:
                    held[channel] = payload
                    self.seen[f"{channel} waits"] += 1
                if valid and ready:
                    taken[channel] += 1
                    busy.add(channel)
            assert taken["b"] <= min(taken["aw"], taken["w"]), "protocol: a write is answered that was not asked for"
            assert taken["r"] <= taken["ar"], "protocol: a read is answered that was not asked for"
            self.seen["both channels"] += bool(busy & {"aw", "w"}) and "ar" in busy
            await RisingEdge(self.dut.aclk)

    async def watch(self) -> None:
        """Keep what the monitor finds."""
        try:
            await self.monitor()
        except AssertionError as error:
            self.broken = str(error).splitlines()[0]

    async def window(self) -> None:
        """Words of the activation memory, written and read back by one host in any order."""
        lines = min(16, self.params.act_lines)
        known: dict[int, int] = {}
        for _ in range(self.job["rounds"]):
            first = self.random.randrange(lines)
            count = self.random.randrange(1, lines - first + 1)
            if self.random.random() < 0.5:
                words = [self.random.getrandbits(128) for _ in range(count)]
                await self.host.load(Memory.ACTIVATIONS, 0, first, words)
                known.update(zip(range(first, first + count), words, strict=True))
            else:
                words = await self.host.fetch(Memory.ACTIVATIONS, 0, first, count)
                for line, word in zip(range(first, first + count), words, strict=True):
                    assert known.get(line, word) == word, f"window: line {line} holds {word:x}"
                    self.seen["words read"] += line in known
            assert await self.host.read("ADDRESS") == first + count, "window: the address is not behind the words"

    async def registers(self) -> None:
        """FIRST counts up while it is read: a read gives what stood there at some time between its two ends."""
        done = begun = 0
        await self.host.write("FIRST", 0)

        async def reads() -> None:
            nonlocal done
            for _ in range(self.job["rounds"] * 8):
                least = done
                value = await self.host.read("FIRST")
                assert least <= value <= begun, f"registers: FIRST reads {value}, expected {least} to {begun}"
                self.seen["reads during a write"] += begun != least

        async def writes() -> None:
            nonlocal done, begun
            for _ in range(self.job["rounds"] * 8):
                begun += 1
                await self.host.write("FIRST", begun)
                done = begun
                await self.refuse()

        await Combine(cocotb.start_soon(reads()), cocotb.start_soon(writes()))

    async def refuse(self) -> None:
        """A write that must not change anything."""
        if self.random.random() < 0.3:
            at, data = self.random.choice([(0xF0, bytes(4)), (offset("FIRST"), b"\1"), (offset("BATCH"), b"\0\0\1\0")])
            answer = await self.host.master.write(at, data)
            assert answer.resp.name == "SLVERR", f"registers: a write to {at:#x} is answered with {answer.resp.name}"
            self.seen["refused"] += 1

    async def reader(self) -> None:
        """Registers that never change."""
        digest = int(identity(self.params), 16)
        expected = {"ID": ID, "HASH_LOW": digest & 0xFFFFFFFF, "HASH_HIGH": digest >> 32, "PES": self.params.pes}
        for _ in range(self.job["rounds"] * 8):
            name = self.random.choice(list(expected))
            value = await self.host.read(name)
            assert value == expected[name], f"reader: {name} reads {value:#x}"

    async def all(self) -> None:
        """Traffic without pauses, then with."""
        for share in (0.0, 0.5, 0.9):
            self.pause(share)
            hosts = [cocotb.start_soon(one()) for one in (self.window, self.registers, self.reader)]
            await Combine(*hosts)


@cocotb.test()
async def overlap(dut: Any) -> None:
    """All traffic on one array; the first thing that is wrong is written down, not raised."""
    folder = Path(os.environ["EIE_JOB"])
    traffic = Traffic(dut, folder)
    await traffic.bench.reset()
    monitor = cocotb.start_soon(traffic.watch())
    wrong = None
    try:
        hosts = cocotb.start_soon(traffic.all())
        await with_timeout(hosts, CLOCK_NS * 60_000, "ns")
    except SimTimeoutError:
        wrong = "the port hangs"
    except AssertionError as error:
        wrong = str(error).splitlines()[0]
    monitor.cancel()
    wrong = traffic.broken or wrong
    (folder / "results.json").write_text(json.dumps({"wrong": wrong, "seen": traffic.seen}))
