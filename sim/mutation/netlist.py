"""The array as a netlist, its mutants, and Verilog that holds all of them: a number at run time chooses one."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl._ir import PortDirection
from amaranth.lib import wiring

from compiler.errors import InputError, ToolError
from hw.accelerator import TOP_MODULE, Accelerator
from hw.core import PE_MODULE, WRITEBACK_MODULE
from hw.params import Params
from hw.pe import ProcessingElement
from hw.platform import ExportPlatform, ports_of
from hw.writeback import Writeback

__all__ = ["SELECT", "SELECT_BITS", "Mutant", "Netlist", "netlist", "yosys"]

SELECT = "eie_mutant"
"""Register of the top module, and plusarg, that holds the number of the mutant that is on; 0 for none."""
SELECT_BITS = 16

LEAST = 8
"""Mutants of a block, as far as there are so many."""

_PREPARE = """\
read_verilog -lib eie_ram.v
read_rtlil pe.il
read_rtlil writeback.il
read_rtlil array.il
hierarchy -check -top {top}
proc
delete t:$meminit_v2
opt_expr
opt_merge
opt_muxtree
opt_reduce
opt_expr
opt_clean
write_rtlil prepared.il
"""
"""What is tied to a constant goes, so that few mutants change nothing. Contents of memories are never used before they
are written, and the export drops them (`hw.export`)."""

_SPLIT = "splitnets -driver\n"
"""A net of which one bit is driven by a mutant becomes several nets. Else that bit depends on its own net, and a
simulator that looks at whole nets, as Verilator does, sees a loop."""

_HERE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutant:
    """One change of one bit at a port of a cell.

    number : that chooses it. block : file of `hw` without its ending. change : the arguments of yosys's ``mutate``,
    which name it once and for all for the same netlist. lines : of the source, as ``hw/mac.py:71``.
    """

    number: int
    block: str
    change: str
    lines: tuple[str, ...]

    def option(self, name: str) -> str:
        """An argument of the change, as "module" or "portbit"; empty if there is none."""
        found = re.search(rf"-{name} (\S+)", self.change)
        return found[1] if found else ""


@dataclass(frozen=True)
class Netlist:
    """prepared : RTLIL of the array without mutants. blocks : block → its modules, and the cells in them."""

    params: Params
    prepared: str
    blocks: Mapping[str, Mapping[str, int]]

    def mutants(self, count: int, seed: int, blocks: tuple[str, ...] = ()) -> list[Mutant]:
        """About `count` mutants, the same for the same seed: of each block by its cells, and `LEAST` at least.

        Raises
        ------
        InputError
            There is no such block.
        """
        if unknown := set(blocks) - set(self.blocks):
            raise InputError(f"unknown block {min(unknown)!r}; expected one of {', '.join(sorted(self.blocks))}")
        chosen = {name: self.blocks[name] for name in (blocks or sorted(self.blocks))}
        cells = sum(sum(modules.values()) for modules in chosen.values())
        shares: dict[str, int] = {}
        for modules in chosen.values():
            least = -(-LEAST // len(modules))
            for module, size in modules.items():
                shares[module] = max(least if count >= 10 * LEAST * len(chosen) else 1, round(count * size / cells))
        script = "read_rtlil prepared.il\n" + "".join(
            f"mutate -list {share} -seed {seed} -o {n}.txt {module}\n"
            for n, (module, share) in enumerate(shares.items())
        )
        with tempfile.TemporaryDirectory(prefix="eie-mutation-") as name:
            folder = Path(name)
            (folder / "prepared.il").write_text(self.prepared, encoding="utf-8")
            yosys(script, folder)
            found = {module: (folder / f"{n}.txt").read_text().splitlines() for n, module in enumerate(shares)}
        block_of = {module: block for block, modules in chosen.items() for module in modules}
        made: list[tuple[str, str, tuple[str, ...]]] = []
        for module, lines in found.items():
            for line in dict.fromkeys(lines):
                change, places = _split(line)
                if re.search(r"-port (CLK|clk) |-mode none", change) or "$check" in change:
                    continue
                made.append((block_of[module], change, places))
        random.Random(seed).shuffle(made)  # so that any part of them is a sample of all blocks
        return [Mutant(number, *each) for number, each in enumerate(made, 1)]

    def verilog(self, mutants: list[Mutant]) -> str:
        """The array with all these mutants in it; the top module has the register `SELECT`.

        Raises
        ------
        ToolError
            A mutant does not fit the netlist.
        """
        if len(mutants) >= 1 << SELECT_BITS:
            raise InputError(f"{len(mutants)} mutants; expected fewer than {1 << SELECT_BITS}")
        applied = "".join(
            f"mutate -ctrl {SELECT} {SELECT_BITS} {mutant.number} {mutant.change}\n" for mutant in mutants
        )
        with tempfile.TemporaryDirectory(prefix="eie-mutation-") as name:
            folder = Path(name)
            (folder / "prepared.il").write_text(self.prepared, encoding="utf-8")
            (folder / "eie_ram.v").write_text(_ram(), encoding="utf-8")
            yosys(
                f"read_verilog -lib eie_ram.v\nread_rtlil prepared.il\n{applied}{_SPLIT}write_verilog -noattr out.v\n",
                folder,
            )
            return _begun((folder / "out.v").read_text(encoding="utf-8"))


def _begun(text: str) -> str:
    """Registers whose output is changed begin with zeros: ``mutate`` leaves their initial value at the changed net."""
    text = re.sub(r"^(  reg (?:\[\d+:0\] )?_\d+_);$", r"\1 = 0;", text, flags=re.MULTILINE)
    return re.sub(r"= \d+'b[01x]+;$", lambda found: found[0].replace("x", "0"), text, flags=re.MULTILINE)


def _split(line: str) -> tuple[str, tuple[str, ...]]:
    """Change and source lines of what ``mutate -list`` says of a mutant."""
    places = tuple(dict.fromkeys(re.findall(r"-src (?:\S*/)?(hw/\w+\.py:\d+)", line)))
    return re.sub(r" -(src|wire|wirebit) \S+", "", line).removeprefix("mutate "), places


def _ram() -> str:
    return (resources.files("hw") / "rtl" / "eie_ram.v").read_text()


def _rtlil(component: wiring.Component, name: str, separator: str = "__") -> str:
    """As `hw.platform.convert` makes Verilog of it, with the lines of the source."""
    directions = {"i": PortDirection.Input, "o": PortDirection.Output}
    ports = {
        port: (signal, directions[way])
        for port, (signal, way) in ports_of(component, component.signature, separator).items()
    }
    text = str(rtlil.convert(component, name=name, ports=ports, platform=ExportPlatform(), emit_src=True))
    return text.replace(f"{_HERE}/", "")  # the same netlist wherever the kit lies


def netlist(params: Params) -> Netlist:
    """The netlist of an array, made smaller by what is constant in each block."""
    with tempfile.TemporaryDirectory(prefix="eie-mutation-") as name:
        folder = Path(name)
        (folder / "eie_ram.v").write_text(_ram(), encoding="utf-8")
        for file, component, module, separator in (
            ("pe.il", ProcessingElement(params), PE_MODULE, "__"),
            ("writeback.il", Writeback(params), WRITEBACK_MODULE, "__"),
            ("array.il", Accelerator(params), TOP_MODULE, "_"),
        ):
            (folder / file).write_text(_rtlil(component, module, separator), encoding="utf-8")
        yosys(_PREPARE.format(top=TOP_MODULE), folder)
        prepared = (folder / "prepared.il").read_text(encoding="utf-8")
    blocks: dict[str, dict[str, int]] = defaultdict(dict)
    for found in re.finditer(r"^module \\(\S+)\n(.*?)^end\n", prepared, re.MULTILINE | re.DOTALL):
        before = prepared[: found.start()].rsplit("\nend\n", 1)[-1]
        place = re.search(r'attribute \\src "[^"]*?hw/(\w+)\.py:\d+"', before)
        size = len(re.findall(r"^  cell ", found[2], re.MULTILINE))
        if place and size:
            blocks[place[1]][found[1]] = size
    return Netlist(params, prepared, dict(blocks))


def yosys(script: str, folder: Path) -> None:
    """Carry out a script of yosys in `folder`, by the package pyosys.

    Raises
    ------
    ToolError
        It is missing, or failed; the message ends with what it said.
    """
    (folder / "script.ys").write_text(script, encoding="utf-8")
    command = [sys.executable, "-m", "sim.formal.yosys", "-ql", "yosys.log", "script.ys"]
    environment = {**os.environ, "PYTHONPATH": str(_HERE)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or (folder / "yosys.log").read_text()).strip().splitlines()[-5:]
        raise ToolError("yosys failed; it needs pip install 'eie-kit[formal]':\n" + "\n".join(said))
