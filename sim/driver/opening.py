"""Ports by name, as the command line has them."""

from __future__ import annotations

from hw.params import Params
from sim.driver.port import Port, PortError

__all__ = ["BAUD", "FORMS", "open_port"]

BAUD = 1_000_000
"""Bits a second of a serial line whose name says none, and of boards' designs: what a USB bridge does, and a
whole number of cycles of all their clocks."""

FORMS = "serial:DEVICE[:BAUD], mmap:DEVICE[:OFFSET], sim, verilator"


def open_port(name: str, params: Params) -> Port:
    """Open a port.

    Parameters
    ----------
    name : ``serial:/dev/ttyUSB0``, ``serial:/dev/ttyUSB0:1000000``, ``mmap:/dev/uio0``, ``mmap:/dev/mem:0x43c00000``;
        ``sim`` for the accelerator in Amaranth's simulator, ``verilator`` for its Verilog.
    params : the array that is simulated; a device has its own.

    Raises
    ------
    PortError
        The name says nothing, or there is no such device.
    ToolError
        A package or a tool is missing.
    """
    kind, _, rest = name.partition(":")
    if kind == "sim" and not rest:
        from sim.driver.simulated import SimulatedPort

        return SimulatedPort(params)
    if kind == "verilator" and not rest:
        from sim.driver.verilated import VerilatedPort

        return VerilatedPort(params)
    if kind == "serial" and rest:
        from sim.driver.framed import FramedPort
        from sim.driver.streams import open_serial

        path, baud = _number(rest, BAUD)
        return FramedPort(open_serial(path, baud))
    if kind == "mmap" and rest:
        from sim.driver.mapped import MappedPort

        path, base = _number(rest, 0)
        return MappedPort(path, base)
    raise PortError(f"{name!r} is no port; expected one of {FORMS}")


def _number(text: str, default: int) -> tuple[str, int]:
    """``path[:number]``."""
    path, colon, last = text.rpartition(":")
    if not colon:
        return text, default
    try:
        return path, int(last, 0)
    except ValueError:
        return text, default
