"""Cocotb bench that ties the serial pins of a design to a pseudo-terminal; ``EIE_DIVIDER`` is the cycles of a bit."""

from __future__ import annotations

import os
import tty
from collections import deque
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Timer

from sim.testbench.job import CLOCK_NS

RESET = 64
"""Cycles after which every board is out of reset."""


@cocotb.test()
async def serve(dut: Any) -> None:
    """Every bit in and out, until the file ``stop`` is there; the name of the terminal is in the file ``tty``."""
    folder, divider = Path(os.environ["EIE_JOB"]), int(os.environ["EIE_DIVIDER"])
    Clock(dut.aclk, CLOCK_NS, unit="ns").start()
    dut.rx.value = 1
    dut.aresetn.value = 0
    await ClockCycles(dut.aclk, 4)
    dut.aresetn.value = 1
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    (folder / "named").write_text(os.ttyname(slave))
    os.replace(folder / "named", folder / "tty")
    to_send: deque[int] = deque()
    received: list[int] = []
    turn = 0
    await ClockCycles(dut.aclk, RESET)
    while turn % 1000 or not (folder / "stop").exists():
        turn += 1
        if not to_send:
            try:
                content = os.read(master, 4096)
            except BlockingIOError:
                content = b""
            for byte in content:
                to_send.extend([0, *(byte >> n & 1 for n in range(8)), 1])
        dut.rx.value = to_send.popleft() if to_send else 1
        await Timer(divider * CLOCK_NS, unit="ns")
        level = int(dut.tx.value)  # once in each bit: both ends have one clock
        if received or not level:
            received.append(level)
        if len(received) == 10:
            assert received[9], "no stop bit"
            os.write(master, bytes([sum(bit << n for n, bit in enumerate(received[1:9]))]))
            received.clear()
