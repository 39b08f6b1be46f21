"""The top of a board's design, and the files that Amaranth writes for it: pins, clock constraint, scripts."""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import Any

from amaranth import ClockDomain, ClockSignal, Elaboratable, Instance, Module, Signal
from amaranth.lib.cdc import FFSynchronizer

from compiler.errors import InputError
from hw.accelerator import TOP_MODULE
from hw.core import PE_MODULE, WRITEBACK_MODULE
from hw.export import verilog_text
from hw.params import Params
from hw.serial_top import SerialTop
from hw.uart import LEAST_DIVIDER
from sim.driver.opening import BAUD
from sim.fpga.boards import Board
from sim.fpga.families import ECP5, Family
from sim.fpga.flow import primitive
from sim.fpga.pll import Pll, ecp5_pll

__all__ = ["INSIDE", "TOP", "board_files", "line_divider", "synthesis_scripts"]

TOP = "top"
INSIDE = "eie"
"""Name of the accelerator with its serial line inside the top."""
_RESET_CYCLES = 16


def line_divider(mhz: float, baud: int = BAUD) -> int:
    """Cycles of a bit of the serial line.

    Raises
    ------
    InputError
        The line is too fast for the clock, or no number of cycles comes within 2 % of it.
    """
    divider = round(mhz * 1e6 / baud)
    if divider < LEAST_DIVIDER or abs(mhz * 1e6 / divider / baud - 1) > 0.02:
        raise InputError(
            f"a serial line of {baud} baud is {mhz * 1e6 / baud:.2f} cycles a bit of {mhz:g} MHz; expected within 2 % "
            f"of a whole number, {LEAST_DIVIDER} or more: give another --baud"
        )
    return divider


class BoardTop(Elaboratable):  # type: ignore[misc]
    """Clock, reset and serial line of a board around the Verilog of a `SerialTop`.

    The reset is held for some cycles after configuration, or after the PLL has locked.

    Parameters
    ----------
    pll : what makes the clock of the design from that of the board; None if it is the same.
    """

    def __init__(self, pll: Pll | None) -> None:
        self.pll = pll

    def elaborate(self, platform: Any) -> Module:
        """The module, with what it requests of the platform."""
        m = Module()
        m.domains.sync = ClockDomain(reset_less=True)
        with warnings.catch_warnings():  # pins with their buffers, as the boards' definitions have them
            warnings.simplefilter("ignore", DeprecationWarning)
            pin = platform.request(platform.default_clk, 0)
            line = platform.request("uart", 0)
        locked = Signal()
        if self.pll is None:
            m.d.comb += [ClockSignal().eq(pin.i), locked.eq(1)]
        else:
            clock, lock = Signal(), Signal()  # nextpnr derives what is asked of it from the pin
            m.submodules.pll = ecp5_pll(self.pll, pin.i, clock, lock)
            m.d.comb += ClockSignal().eq(clock)
            m.submodules.locked = FFSynchronizer(lock, locked)
        held = Signal(range(_RESET_CYCLES))
        ready = Signal()
        with m.If(~locked):
            m.d.sync += [held.eq(0), ready.eq(0)]
        with m.Elif(held == _RESET_CYCLES - 1):
            m.d.sync += ready.eq(1)
        with m.Else():
            m.d.sync += held.eq(held + 1)
        m.submodules[INSIDE] = Instance(
            TOP_MODULE, i_aclk=ClockSignal(), i_aresetn=ready, i_rx=line.rx.i, o_tx=line.tx.o
        )
        return m


@cache
def _verilog(params: Params, divider: int) -> str:
    """The Verilog of an array with its serial line: seconds, and the same for many boards."""
    return verilog_text(params, SerialTop(params, divider))


def synthesis_scripts(params: Params, family: Family) -> tuple[str, str]:
    """Commands of yosys before and after synthesis: they write the flat design, and the netlist.

    The registers of a hop are equal in all PEs. Where synthesis sees them at once it makes one of them, whose wires
    lead across the part again (record 111); so PEs of an array with hops are set in after it.
    """
    # iCE40 has no memory made of lookup tables, and its synthesis refuses what asks for it.
    without = "" if family.distributed else "setattr -unset ram_style */m:*\n"
    before = f"hierarchy -top {TOP}\n{without}proc\n"
    flat = f"flatten\nwrite_json {TOP}.flat.json"
    netlist = f"write_json {TOP}.netlist.json"
    if not params.hops:
        return before + flat, netlist
    parts = f"{PE_MODULE} {WRITEBACK_MODULE}"
    return (
        f"{before}design -save apart\n{flat}\ndesign -load apart\nsetattr -mod -set keep_hierarchy 1 {parts}",
        f"setattr -mod -unset keep_hierarchy {parts}\nflatten\n{netlist}",
    )


def board_files(board: Board, params: Params, mhz: float, baud: int = BAUD) -> dict[str, str]:
    """Every file of the design of a board, by name: Verilog, Amaranth's top and constraints, and yosys's script.

    Raises
    ------
    InputError
        The clock cannot be made of the board's, or the serial line not of the clock.
    ToolError
        Amaranth's boards are not installed.
    """
    pll = None
    if mhz != board.mhz:
        if board.family is not ECP5:
            raise InputError(f"{board.name} runs at the {board.mhz:g} MHz of its clock; PLLs are made for ECP5 only")
        pll = Pll.find(board.mhz, mhz)
    divider = line_divider(pll.mhz if pll else mhz, baud)
    platform = board.make_platform()
    platform.add_file("accelerator.v", _verilog(params, divider))
    platform.add_file("eie_ram.v", primitive())
    before, after = synthesis_scripts(params, board.family)
    plan = platform.build(
        BoardTop(pll), name=TOP, do_build=False, debug_verilog=False, synth_opts=board.family.synthesis,
        script_after_read=before, script_after_synth=after,
    )  # fmt: skip
    kept = (".v", ".il", ".ys", ".lpf", ".cst", ".pcf")
    texts = {name: text if isinstance(text, str) else text.decode() for name, text in plan.files.items()}
    # Places in the sources, with this machine's paths: no part of the design.
    texts[f"{TOP}.il"] = re.sub(r"^ *attribute \\src .*\n", "", texts[f"{TOP}.il"], flags=re.MULTILINE)
    return {name: text for name, text in texts.items() if name.endswith(kept) and text.strip()} | {
        "commands.txt": "".join(
            line.replace('"', "").replace("$", "") + "\n"
            for line in texts[f"build_{TOP}.sh"].splitlines()
            if line.startswith('"$')
        )
    }
