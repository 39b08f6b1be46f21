"""Sipeed's Tang Nano 20K for Amaranth, as far as it is used: clock and serial line. Amaranth's boards do not have it.

Pins are those of Sipeed's schematic: 27 MHz from the on-board generator, and the serial line of the USB bridge.
"""

from __future__ import annotations

from typing import Any

from amaranth.build import Attrs, Clock, Pins, Resource
from amaranth.vendor import GowinPlatform
from amaranth_boards.resources import UARTResource

__all__ = ["TangNano20kPlatform"]


class TangNano20kPlatform(GowinPlatform):  # type: ignore[misc]
    """A GW2AR-18 (version C)."""

    part = "GW2AR-LV18QN88C8/I7"
    family = "GW2AR-18C"
    default_clk = "clk27"
    resources = [  # noqa: RUF012 - Amaranth reads it from the class
        Resource("clk27", 0, Pins("4", dir="i"), Clock(27e6), Attrs(IO_TYPE="LVCMOS33")),
        UARTResource(0, rx="70", tx="69", attrs=Attrs(PULL_MODE="UP", IO_TYPE="LVCMOS33")),
    ]
    connectors: list[Any] = []  # noqa: RUF012
