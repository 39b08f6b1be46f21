"""Port to the whole accelerator in Amaranth's simulator, by its pins alone."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
from amaranth.hdl import UnusedElaboratable
from amaranth.sim import Simulator
from numpy.typing import NDArray

from hw.accelerator import Accelerator
from hw.params import Params
from sim.driver.port import DriverError, Port, refused
from sim.streams import BEAT

__all__ = ["SimulatedPort", "clock_and_reset"]

CLOCK = 1e-6
"""Seconds of a cycle, as `SimulatedPort.clock` counts."""
ANSWER_CYCLES = 1000
PAUSE_CYCLES = 100


def clock_and_reset(dut: Accelerator) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """A process that drives clock and reset pins for ever."""

    async def drive(ctx: Any) -> None:
        ctx.set(dut.aresetn, 0)
        cycle = 0
        while True:
            ctx.set(dut.aclk, 0)
            await ctx.delay(CLOCK / 2)
            ctx.set(dut.aclk, 1)
            await ctx.delay(CLOCK / 2)
            cycle += 1
            if cycle == 4:
                ctx.set(dut.aresetn, 1)

    return drive


class SimulatedPort(Port):
    """AXI4-Lite accesses and beats at the pins; time passes only while an access or a pause lasts.

    Parameters
    ----------
    params : the array.
    depth : beats that wait at the pins of each stream; None for any number.
    """

    def __init__(self, params: Params, *, depth: int | None = None) -> None:
        self.dut = Accelerator(params)
        self.depth = depth
        self.cycles = 0
        self._beats: deque[tuple[int, int]] = deque()
        self._given: deque[int] = deque()
        self._taken: deque[int] = deque()
        self._work: Callable[[Any], Coroutine[Any, Any, Any]] | None = self._wake
        self._found: Any = None
        self._failure: DriverError | None = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnusedElaboratable)
            self._simulator = Simulator(self.dut)
        self._simulator.add_process(clock_and_reset(self.dut))
        self._simulator.add_testbench(self._bench)
        if params.refill:
            self._simulator.add_testbench(self._stream, background=True)
        if params.streams:
            self._simulator.add_testbench(self._give, background=True)
            self._simulator.add_testbench(self._take, background=True)
        self._advance()

    async def _bench(self, ctx: Any) -> None:
        """Carry out what is asked for, one after the other."""
        while True:
            if self._work is not None:
                try:
                    self._found = await self._work(ctx)
                except DriverError as error:
                    self._failure = error
                self._work = None
            await self._tick(ctx)

    async def _tick(self, ctx: Any) -> None:
        await ctx.posedge(self.dut.aclk)
        self.cycles += 1

    async def _stream(self, ctx: Any) -> None:
        pins = self.dut.s_axis_weights
        while True:
            if self._beats:
                ctx.set(pins.tdata, self._beats[0][0])
                ctx.set(pins.tlast, self._beats[0][1])
            ctx.set(pins.tvalid, bool(self._beats))
            offered, ready = bool(self._beats), ctx.get(pins.tready)
            await ctx.posedge(self.dut.aclk)
            if offered and ready and self._beats:
                self._beats.popleft()

    async def _give(self, ctx: Any) -> None:
        pins = self.dut.s_axis_acts
        while True:
            if self._given:
                ctx.set(pins.tdata, self._given[0])
            ctx.set(pins.tvalid, bool(self._given))
            offered, ready = bool(self._given), ctx.get(pins.tready)
            await ctx.posedge(self.dut.aclk)
            if offered and ready and self._given:
                self._given.popleft()

    async def _take(self, ctx: Any) -> None:
        pins = self.dut.m_axis_acts
        while True:
            ready = self.depth is None or len(self._taken) < self.depth
            ctx.set(pins.tready, ready)
            comes, beat = ctx.get(pins.tvalid), ctx.get(pins.tdata)
            await ctx.posedge(self.dut.aclk)
            if ready and comes:
                self._taken.append(beat)

    def _advance(self) -> Any:
        while self._work is not None:
            self._simulator.advance()
        if (failure := self._failure) is not None:
            self._failure = None
            raise failure
        return self._found

    def _do(self, work: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        self._work = work
        return self._advance()

    async def _wake(self, ctx: Any) -> None:
        for _ in range(8):
            await self._tick(ctx)

    async def _until(self, ctx: Any, what: Any) -> None:
        for _ in range(ANSWER_CYCLES):
            if ctx.get(what):
                return
            await self._tick(ctx)
        raise DriverError(f"the accelerator gives no answer for {ANSWER_CYCLES} cycles")

    def read32(self, offset: int) -> int:
        """Read a register."""
        bus = self.dut.s_axi

        async def work(ctx: Any) -> tuple[int, int]:
            ctx.set(bus.araddr, offset)
            ctx.set(bus.arvalid, 1)
            await self._until(ctx, bus.arready)
            await self._tick(ctx)
            ctx.set(bus.arvalid, 0)
            ctx.set(bus.rready, 1)
            await self._until(ctx, bus.rvalid)
            found = ctx.get(bus.rdata), ctx.get(bus.rresp)
            await self._tick(ctx)
            ctx.set(bus.rready, 0)
            return found

        data, response = self._do(work)
        if response:
            raise refused("read", offset)
        return int(data)

    def write32(self, offset: int, value: int) -> None:
        """Write a register."""
        bus = self.dut.s_axi

        async def work(ctx: Any) -> int:
            ctx.set(bus.awaddr, offset)
            ctx.set(bus.wdata, value)
            ctx.set(bus.wstrb, 15)
            for valid, ready in ((bus.awvalid, bus.awready), (bus.wvalid, bus.wready)):
                ctx.set(valid, 1)
                await self._until(ctx, ready)
                await self._tick(ctx)
                ctx.set(valid, 0)
            ctx.set(bus.bready, 1)
            await self._until(ctx, bus.bvalid)
            response = ctx.get(bus.bresp)
            await self._tick(ctx)
            ctx.set(bus.bready, 0)
            return int(response)

        if self._do(work):
            raise refused("write", offset)

    def send(self, beats: NDArray[np.uint8], ends: NDArray[np.bool_]) -> int:
        """Beats to wait in front of the pins."""
        free = len(beats) if self.depth is None else min(len(beats), self.depth - len(self._beats))
        for beat, end in zip(beats[:free], ends[:free], strict=True):
            self._beats.append((int.from_bytes(beat.tobytes(), "little"), int(end)))
        return free

    def give(self, beats: NDArray[np.uint8]) -> int:
        """Rows of maps to wait in front of the pins."""
        free = len(beats) if self.depth is None else min(len(beats), self.depth - len(self._given))
        self._given.extend(int.from_bytes(beat.tobytes(), "little") for beat in beats[:free])
        return free

    def take(self, most: int) -> NDArray[np.uint8]:
        """Rows of maps that came to the pins."""
        found = [self._taken.popleft().to_bytes(BEAT, "little") for _ in range(min(most, len(self._taken)))]
        return np.frombuffer(b"".join(found), np.uint8).reshape(-1, BEAT)

    def forget(self) -> None:
        """Drop beats that wait."""
        for waiting in (self._beats, self._given, self._taken):
            waiting.clear()

    def pause(self) -> None:
        """Let `PAUSE_CYCLES` cycles pass."""

        async def work(ctx: Any) -> None:
            for _ in range(PAUSE_CYCLES):
                await self._tick(ctx)

        self._do(work)

    def clock(self) -> float:
        """Seconds of a clock of 1 MHz."""
        return self.cycles * CLOCK
