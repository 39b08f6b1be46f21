"""What stands for a board in tests: accelerators at the other end of a pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import tty
from collections.abc import Iterator

import numpy as np

from hw.frames import BEATS, GIVE, READ, TAKE
from hw.params import Params
from hw.registers import mask, offset
from sim.driver.frames import Answer, Receiver, Request, done
from sim.driver.port import DriverError, Port
from sim.driver.simulated import SimulatedPort

__all__ = ["SMALL", "python_board"]

SMALL = Params(
    pes=1, index_bits=4, code_bits=2, rows=16, queue_depth=6, weight_words=32, pointer_blocks=16, act_lines=16,
    output_words=32, codebooks=2, descriptors=16, acc_bits=33, tables=0, elementwise=False,
)  # fmt: skip


def carry_out(port: Port, request: Request) -> Answer:
    """One request by an accelerator behind another port."""
    if request.operation == BEATS:
        beats = np.array(request.words, "<u4").view(np.uint8).reshape(-1, 16)
        ends = np.zeros(len(beats), np.bool_)
        ends[-1] = request.last
        return done(request, port.send(beats, ends))
    if request.operation == GIVE:
        return done(request, port.give(np.array(request.words, "<u4").view(np.uint8).reshape(-1, 16)))
    if request.operation == TAKE:
        beats = port.take(request.count // 4)
        return done(request, len(beats), beats.reshape(-1).view("<u4").tolist())
    words: list[int] = []
    for n in range(request.count):
        at = request.offset + 4 * n * request.increment
        try:
            words.append(port.read32(at)) if request.operation == READ else port.write32(at, request.words[n])
        except DriverError:
            return done(request, n, words)
    return done(request, request.count, words)


@contextlib.contextmanager
def python_board(params: Params, depth: int | None = 1) -> Iterator[str]:
    """The accelerator in Amaranth's simulator behind a receiver in Python; gives the name of the terminal."""
    port, receiver = SimulatedPort(params, depth=depth), Receiver(params.refill, params.streams)
    master, slave = os.openpty()
    tty.setraw(slave)
    stop = threading.Event()

    def serve() -> None:
        busy = False
        while not stop.is_set():
            if not select.select([master], [], [], 0 if busy else 0.05)[0]:
                busy = busy and bool(port.read32(offset("STATUS")) & mask("STATUS", "BUSY"))
                if busy:
                    port.pause()
                elif (rest := receiver.silent()) is not None:
                    os.write(master, rest.pack())
                continue
            for request in receiver.feed(os.read(master, 4096)):
                answer = request if isinstance(request, Answer) else carry_out(port, request)
                os.write(master, answer.pack())
            busy = True

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        stop.set()
        thread.join()
        os.close(master)
        os.close(slave)
