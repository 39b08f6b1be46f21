"""Port to the Verilog of the accelerator in Verilator: a simulator process that answers over a socket."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
import time
from pathlib import Path

from compiler.errors import EieError
from hw.params import Params
from sim.driver.framed import FramedPort
from sim.driver.port import DriverError
from sim.driver.streams import SocketStream
from sim.rtl.build import build
from sim.rtl.engine import simulate

__all__ = ["VerilatedPort"]

_BENCH = "sim.testbench.board"
_SOCKET = "port"
_START = 120.0


class VerilatedPort(FramedPort):
    """The Verilog of an array, nothing preloaded; the requests are those of a serial line, without the line.

    Parameters
    ----------
    params : the array; it is built if it is not in the cache.

    Raises
    ------
    ToolError
        A tool is missing, or the simulator does not start.
    """

    def __init__(self, params: Params) -> None:
        built = build(params)
        self._folder = tempfile.TemporaryDirectory(prefix="eie-")
        folder = Path(self._folder.name)
        (folder / "params.json").write_text(json.dumps(params.asdict()))
        self._failure: EieError | None = None

        def serve() -> None:
            try:
                simulate(built, _BENCH, folder, plusargs=("+verilator+rand+reset+2", "+verilator+seed+1"))
            except EieError as error:
                self._failure = error

        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / _SOCKET))
            listener.listen(1)
            listener.settimeout(0.2)
            self._thread = threading.Thread(target=serve, daemon=True)
            self._thread.start()
            super().__init__(SocketStream(self._accepted(listener)), timeout=60.0)

    def _accepted(self, listener: socket.socket) -> socket.socket:
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            try:
                return listener.accept()[0]
            except TimeoutError:
                if not self._thread.is_alive():
                    break
        raise self._failure or DriverError(f"the simulator does not connect within {_START:g} s")

    def close(self) -> None:
        """End the simulator.

        Raises
        ------
        ToolError
            An assertion of the design failed.
        """
        super().close()
        self._thread.join(60.0)
        self._folder.cleanup()
        if self._failure is not None:
            raise self._failure
