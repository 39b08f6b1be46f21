"""Cocotb bench that stands for a board: it answers the requests of a driver, which come through a socket."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiResp, AxiStreamFrame

from hw.frames import BEATS, READ
from hw.params import Params
from hw.registers import mask, offset
from sim.driver.frames import Answer, Receiver, Request, done
from sim.testbench.job import Bench

PORT = "port"
"""Name of the socket in the job folder."""
AHEAD = 100
"""Cycles that a run goes on between two looks for a request."""


async def forget(bench: Bench) -> None:
    """Begin the stream anew: a tile that has begun goes on to its end, and the array drops it."""
    if bench.tiles is not None:
        bench.tiles.clear()
        while not bench.tiles.idle():
            await bench.host.command("RESTART")
            await ClockCycles(bench.dut.aclk, AHEAD)


async def carry_out(bench: Bench, request: Request, held: bytearray) -> Answer:
    """One request at the pins. held : beats of a tile that is not whole yet."""
    if request.operation == BEATS:
        assert bench.tiles is not None
        held += b"".join(word.to_bytes(4, "little") for word in request.words)
        if request.last:
            bench.tiles.send_nowait(AxiStreamFrame(bytes(held)))
            held.clear()
        return done(request, request.count // 4)
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
                await forget(bench)
            response = (await bench.host.master.write(to, request.words[n].to_bytes(4, "little"))).resp
        if response != AxiResp.OKAY:
            return done(request, n, words[:n])
    return done(request, request.count, words)


@cocotb.test()
async def serve(dut: Any) -> None:
    """Answer until the driver closes the socket. Time passes during accesses, and while the array is busy."""
    folder = Path(os.environ["EIE_JOB"])
    params = Params.from_dict(json.loads((folder / "params.json").read_text()))
    bench, receiver, held = Bench(dut, params, 0), Receiver(params.refill), bytearray()
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
                answer = request if isinstance(request, Answer) else await carry_out(bench, request, held)
                connection.sendall(answer.pack())
