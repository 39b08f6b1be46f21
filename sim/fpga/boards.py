"""Boards that ``eie fpga`` knows: which part is on one, what that part holds, and how it is programmed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compiler.errors import InputError, ToolError
from sim.fpga.families import ECP5, GOWIN, ICE40, Family

__all__ = ["BOARDS", "PACKAGES", "Board", "board"]

PACKAGES = "pip install 'eie-kit[fpga]'"


@dataclass(frozen=True)
class Board:
    """One board.

    Parameters
    ----------
    text : board and part, for people.
    family : of the part.
    platform : ``module:class`` of Amaranth's definition.
    holds : what the part has, by our names: ``lut`` lookup tables of four inputs, ``ff`` flip-flops, ``ram`` block
        RAMs, ``mult`` multipliers of 18 by 18 bits (iCE40: 16 by 16), ``cells`` places for memory made of
        lookup tables, ``places`` those that lookup tables share with flip-flops that have none in front (Gowin).
    mhz : clock on the board.
    preset : the array that is built if none is named.
    program : command that programs it; ``{file}`` is the bitstream.
    uart : pins of the serial line where the definition has none: (rx, tx) and the connector.
    target : what nextpnr needs to know of a Gowin part beside its name.
    place : options of nextpnr, where others than its own were measured to be better (docs/results/fpga.md).
    """

    name: str
    text: str
    family: Family
    platform: str
    holds: Mapping[str, int]
    mhz: float
    preset: str
    program: str
    uart: tuple[str, str, tuple[str, int]] | None = None
    target: Mapping[str, str] = field(default_factory=dict)
    place: Sequence[str] = ()

    def make_platform(self) -> Any:
        """Amaranth's platform of the board.

        Raises
        ------
        ToolError
            Amaranth's boards are not installed.
        """
        module, _, name = self.platform.partition(":")
        try:
            kind = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            raise ToolError(f"{error.name} is not installed, which knows the pins of boards: {PACKAGES}") from None
        platform = kind(toolchain=self.family.toolchain)
        if self.uart is not None:
            from amaranth.build import Attrs
            from amaranth_boards.resources import UARTResource

            rx, tx, connector = self.uart
            platform.add_resources([UARTResource(0, rx=rx, tx=tx, conn=connector, attrs=Attrs(IO_TYPE="LVCMOS33"))])
        return platform


_25F = {"lut": 24_288, "ff": 24_288, "ram": 56, "mult": 28, "cells": 3_036}
_ALL = (
    Board(
        "ulx3s-85f", "ULX3S with LFE5U-85F", ECP5, "amaranth_boards.ulx3s:ULX3S_85F_Platform",
        {"lut": 83_640, "ff": 83_640, "ram": 208, "mult": 156, "cells": 10_455}, 25, "ECP5_16",
        "openFPGALoader -b ulx3s {file}", place=("--placer", "static", "--router", "router2"),
    ),
    Board(
        "orangecrab-25f", "OrangeCrab r0.2 with LFE5U-25F", ECP5,
        "amaranth_boards.orangecrab_r0_2:OrangeCrabR0_2_25FPlatform", _25F, 48, "BOARD_4", "dfu-util -a 0 -D {file}",
        uart=("0", "1", ("io", 0)),
    ),
    Board(
        "colorlight-5a75b", "Colorlight 5A-75B v7.0 with LFE5U-25F", ECP5,
        "amaranth_boards.colorlight_5a75b_r7_0:Colorlight_5A75B_R70Platform", _25F, 25, "BOARD_4",
        "openFPGALoader -c ft232 -m {file}",
    ),
    Board(
        "icebreaker", "iCEBreaker with iCE40UP5K", ICE40, "amaranth_boards.icebreaker:ICEBreakerPlatform",
        {"lut": 5_280, "ff": 5_280, "ram": 30, "mult": 8}, 12, "BOARD_MIN", "iceprog {file}",
    ),
    Board(
        "tang-nano-9k", "Tang Nano 9K with GW1NR-9C", GOWIN, "amaranth_boards.tang_nano_9k:TangNano9kPlatform",
        {"lut": 8_640, "ff": 6_480, "places": 8_640, "ram": 26, "mult": 20, "cells": 270}, 27, "BOARD_SLIM",
        "openFPGALoader -b tangnano9k {file}",
        target={"family": "GW1N-9C"},
    ),
    Board(
        "tang-nano-20k", "Tang Nano 20K with GW2AR-18C", GOWIN, "sim.fpga.tang_nano_20k:TangNano20kPlatform",
        {"lut": 20_736, "ff": 15_552, "places": 20_736, "ram": 46, "mult": 48, "cells": 648}, 27, "BOARD_MIN",
        "openFPGALoader -b tangnano20k {file}",
        target={"family": "GW2A-18C"},
    ),
)  # fmt: skip
BOARDS = {board.name: board for board in _ALL}


def board(name: str) -> Board:
    """The board of that name.

    Raises
    ------
    InputError
        There is none; the message lists those that exist.
    """
    try:
        return BOARDS[name.lower()]
    except KeyError:
        raise InputError(f"unknown board {name!r}; expected one of {', '.join(BOARDS)}") from None
