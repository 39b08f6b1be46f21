"""One way to run a block in Amaranth's simulator: testbenches, and a watchdog on all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from amaranth.sim import Simulator


@pytest.fixture
def simulate() -> Callable[..., None]:
    def run(dut: Any, *benches: Any, watchdog: int = 20_000) -> None:
        """Run until all benches return; a bench that does not is an error, not a hang."""
        simulator = Simulator(dut)
        simulator.add_clock(1e-9)
        finished = []

        def counted(bench: Any) -> Any:
            async def body(ctx: Any) -> None:
                await bench(ctx)
                finished.append(bench)

            return body

        for bench in benches:
            simulator.add_testbench(counted(bench))

        async def guard(ctx: Any) -> None:
            for _ in range(watchdog):
                await ctx.tick()
            raise AssertionError(f"watchdog: {len(finished)} of {len(benches)} benches ended in {watchdog} cycles")

        simulator.add_testbench(guard, background=True)
        simulator.run()
        assert len(finished) == len(benches)

    return run
