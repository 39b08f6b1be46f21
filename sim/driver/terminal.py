"""A simulated design whose serial pins are tied to a pseudo-terminal."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from compiler.errors import EieError
from sim.driver.port import DriverError
from sim.rtl.build import Build
from sim.rtl.engine import simulate

__all__ = ["serial_terminal"]

_BENCH = "sim.testbench.serial"
_START = 120.0


@contextlib.contextmanager
def serial_terminal(built: Build, divider: int) -> Iterator[str]:
    """Run a design with pins aclk, aresetn, rx and tx; gives the name of the terminal.

    Parameters
    ----------
    built : its simulator. divider : cycles of a bit of its serial line.

    Raises
    ------
    ToolError
        The simulation failed, or an assertion of the design.
    DriverError
        It does not start.
    """
    failures: list[EieError] = []
    with tempfile.TemporaryDirectory(prefix="eie-") as name:
        folder = Path(name)

        def serve() -> None:
            try:
                simulate(built, _BENCH, folder, environment={"EIE_DIVIDER": str(divider)})
            except EieError as error:
                failures.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            deadline = time.monotonic() + _START
            while not (folder / "tty").exists() and thread.is_alive() and time.monotonic() < deadline:
                time.sleep(0.05)
            if not (folder / "tty").exists():
                raise failures[0] if failures else DriverError(f"the simulator does not start within {_START:g} s")
            yield (folder / "tty").read_text()
        finally:
            (folder / "stop").touch()
            thread.join()
    if failures:
        raise failures[0]
