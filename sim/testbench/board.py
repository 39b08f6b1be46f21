"""Cocotb bench that stands for a board: it answers the requests of a driver, which come through a socket."""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiResp, AxiStreamFrame

from hw.frames import BEATS, GIVE, READ, TAKE
from hw.params import Params
from hw.registers import mask, offset
from sim.driver.frames import Answer, Receiver, Request, done
from sim.testbench.job import ACT_BYTES, Bench

PORT = "port"
"""Name of the socket in the job folder."""
AHEAD = 100
"""Cycles that a run goes on between two looks for a request."""


class Maps:
    """Rows of maps that wait at the pins, as `Bench.outside` takes and gives them."""

    def __init__(self) -> None:
        self.given: deque[bytes] = deque()
        self.taken: deque[bytes] = deque()
        self._begun = False

    def begin(self, bench: Bench) -> None:
        """From the first request on: looking at pins in every cycle takes the simulator's time."""
        if not self._begun:
            cocotb.start_soon(bench.outside(self, 0.0, 0))
            self._begun = True

    def offer(self) -> bytes | None:
        """The next beat for the pins, which stays there until it is taken."""
        return self.given.popleft() if self.given else None

    def sent(self) -> None:
        """It was taken."""

    def take(self, beat: bytes) -> None:
        """A beat of the array."""
        self.taken.append(beat)


async def forget(bench: Bench, maps: Maps) -> None:
    """Begin the streams anew: a tile that has begun goes on to its end, and the array drops it."""
    maps.given.clear()
    maps.taken.clear()
    if bench.tiles is not None:
        bench.tiles.clear()
        while not bench.tiles.idle():
            await bench.host.command("RESTART")
            await ClockCycles(bench.dut.aclk, AHEAD)


async def carry_out(bench: Bench, request: Request, held: bytearray, maps: Maps) -> Answer:
    """One request at the pins. held : beats of a tile that is not whole yet."""
    if request.operation in (GIVE, TAKE):
        maps.begin(bench)
    if request.operation == BEATS:
        assert bench.tiles is not None
        held += b"".join(word.to_bytes(4, "little") for word in request.words)
        if request.last:
            bench.tiles.send_nowait(AxiStreamFrame(bytes(held)))
            held.clear()
        return done(request, request.count // 4)
    if request.operation == GIVE:
        given = b"".join(word.to_bytes(4, "little") for word in request.words)
        maps.given.extend(given[n : n + ACT_BYTES] for n in range(0, len(given), ACT_BYTES))
        return done(request, request.count // 4)
    if request.operation == TAKE:
        beats = [maps.taken.popleft() for _ in range(min(request.count // 4, len(maps.taken)))]
        return done(request, len(beats), np.frombuffer(b"".join(beats), "<u4").tolist())
    words: list[int] = []
    for n in range(request.count):
        to = request.offset + 4 * n * request.increment
        if request.operation == READ:
            found = await bench.host.master.read(to, 4)
            words.append(int.from_bytes(found.data, "little"))
            response = found.resp
        else:
            if to == offset("CONTROL") and request.words[n] & mask("CONTROL", "NEW_STREAM"):
                held.clear()
                await forget(bench, maps)
            response = (await bench.host.master.write(to, request.words[n].to_bytes(4, "little"))).resp
        if response != AxiResp.OKAY:
            return done(request, n, words[:n])
    return done(request, request.count, words)


@cocotb.test()
async def serve(dut: Any) -> None:
    """Answer until the driver closes the socket. Time passes during accesses, and while the array is busy."""
    folder = Path(os.environ["EIE_JOB"])
    params = Params.from_dict(json.loads((folder / "params.json").read_text()))
    bench, receiver, held = Bench(dut, params, 0), Receiver(params.refill, params.streams), bytearray()
    maps = Maps()
    await bench.reset()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(folder / PORT))
        while True:
            connection.setblocking(False)
            while True:
                try:
                    received = connection.recv(1 << 16)
                    break
                except BlockingIOError:
                    if (await bench.host.status())["busy"]:
                        await ClockCycles(dut.aclk, AHEAD)
                    else:
                        connection.setblocking(True)
            if not received:
                return
            connection.setblocking(True)
            for request in receiver.feed(received):
                answer = request if isinstance(request, Answer) else await carry_out(bench, request, held, maps)
                connection.sendall(answer.pack())
