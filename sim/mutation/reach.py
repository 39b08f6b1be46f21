"""Mutants that reach nothing in the whole array: the bit is a constant there, or leads nowhere.

A block has ports for more than this array uses, and adders for larger numbers than its memories hold. In the array as
one netlist of gates such bits are constants or have no load, and yosys takes them away. Each mutant has an input that
chooses it; if that input has no load any more, the mutant changes nothing that the array ever does.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

from hw.accelerator import TOP_MODULE
from sim.mutation.netlist import SELECT, Mutant, Netlist, yosys

__all__ = ["without_reach"]

_GATES = f"""\
read_verilog -lib eie_ram.v
read_verilog -sv array.v
hierarchy -check -top {TOP_MODULE}
proc
flatten
delete t:$check t:$print t:$scopeinfo
opt
wreduce
opt -fast
memory -nomap
memory_map
opt -fast
techmap
opt -fast
clean -purge
write_json gates.json
"""


def without_reach(netlist: Netlist, mutants: Sequence[Mutant]) -> set[str]:
    """The changes of those mutants that reach neither a pin nor a memory.

    Raises
    ------
    ToolError
        yosys is missing, or failed.
    """
    if not mutants:
        return set()
    text = netlist.verilog([replace(mutant, number=number) for number, mutant in enumerate(mutants)])
    text = re.sub(rf"\[\d+:0\] {SELECT};", f"[{len(mutants) - 1}:0] {SELECT};", text)
    text = re.sub(rf"{SELECT} == 16'h(\w+);", lambda found: f"{SELECT}[{int(found[1], 16)}];", text)
    with tempfile.TemporaryDirectory(prefix="eie-mutation-") as name:
        folder = Path(name)
        (folder / "array.v").write_text(text, encoding="utf-8")
        (folder / "eie_ram.v").write_text((resources.files("hw") / "rtl" / "eie_ram.v").read_text(), encoding="utf-8")
        yosys(_GATES, folder)
        top = json.loads((folder / "gates.json").read_text())["modules"][TOP_MODULE]
    loads: set[object] = set()
    for cell in top["cells"].values():
        for bits in cell["connections"].values():
            loads.update(bits)
    for port in top["ports"].values():
        if port["direction"] == "output":
            loads.update(port["bits"])
    choices = top["ports"][SELECT]["bits"]
    return {mutant.change for mutant, choice in zip(mutants, choices, strict=True) if choice not in loads}
