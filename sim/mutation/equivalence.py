"""Proof that a mutant changes nothing that one sees at its block: block against block, from reset, for all inputs.

What reaches nothing in the whole array (`sim.mutation.reach`) needs no more proof. Else the block is taken alone.
Blocks and memories in it are taken out on both sides, but one whose ports are changed: what goes to them is compared,
what comes from them may be anything, the same on both sides. Compared are all outputs in all cycles, but a payload only
while its ``valid`` is there, and address and data of a memory only while it is enabled: that is what both mean.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path

from compiler.caches import cache_folder
from compiler.files import append_line
from sim.case_file import json_lines
from sim.formal.tools import FormalError, tools
from sim.mutation.netlist import SELECT, SELECT_BITS, Mutant, Netlist, yosys
from sim.mutation.reach import without_reach

__all__ = ["SECONDS", "equivalent"]

RAM = "eie_ram"

_SEVERAL = 20
"""The whole array as gates takes a minute, whatever the number of mutants; a block beside another one, seconds."""

SECONDS = 2
"""Of abc's PDR for one mutant that signal correspondence does not settle."""

_EXTRACT = """\
read_verilog -lib eie_ram.v
read_rtlil prepared.il
{mutants}{flatten}select -module {module}
{evert}select -clear
select -set kept {module}
delete @kept %n
rename {module} dut
write_rtlil dut.il
write_json dut.json
"""
_MITER = """\
read_rtlil dut.il
hierarchy -top dut
flatten
proc
delete t:$check t:$print t:$scopeinfo
opt
memory -nomap
memory_map
opt -fast
techmap
opt -fast
dffunmap
setundef -zero -undriven -init
aigmap
opt_clean
read_verilog miter.v
hierarchy -top miter
proc
techmap miter
aigmap miter
flatten
opt_clean
write_aiger -zinit miter.aig
"""
"""The block is mapped to gates once, with the number of the mutant as an input; abc makes use of the numbers."""


def equivalent(
    netlist: Netlist, mutants: Sequence[Mutant], progress: Callable[[int, int], None] | None = None, batch: int = 24
) -> Iterator[tuple[str, str]]:
    """What became of each mutant, by its change: "equivalent", "differs" at the ports of its block, or "open".

    What was found before of the same netlist, in the same way, is taken from the cache.

    Raises
    ------
    FormalError
        A tool is missing.
    """
    tools()
    file = _proofs(netlist)
    known = {each["change"]: each["state"] for each in json_lines(file)[0]}
    found = [mutant for mutant in mutants if mutant.change in known]
    yield from ((mutant.change, known[mutant.change]) for mutant in found)
    done = len(found)
    left = [mutant for mutant in mutants if mutant.change not in known]
    for change in sorted(without_reach(netlist, left)) if len(left) > _SEVERAL else ():
        append_line(file, json.dumps({"change": change, "state": "equivalent"}))
        known[change] = "equivalent"
        yield change, "equivalent"
        done += 1
    places: dict[tuple[str, str], list[Mutant]] = {}
    for mutant in (mutant for mutant in left if mutant.change not in known):
        module, cell = mutant.option("module"), mutant.option("cell")
        inside = _instances(netlist, module).get(cell, "")
        places.setdefault((module, cell if inside and inside != RAM else ""), []).append(mutant)
    for (module, cell), those in places.items():
        for begin in range(0, len(those), batch):
            part = those[begin : begin + batch]
            for change, state in _batch(netlist, module, cell, part).items():
                append_line(file, json.dumps({"change": change, "state": state}))
                yield change, state
            done += len(part)
            if progress:
                progress(done, len(mutants))


def _proofs(netlist: Netlist) -> Path:
    """The file of the cache with what was found of a netlist in this way."""
    parts = [netlist.prepared, _EXTRACT, _MITER, str(SECONDS), inspect.getsource(_miter), inspect.getsource(_solve)]
    folder = cache_folder() / "mutation"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"proofs-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]}.jsonl"


def _batch(netlist: Netlist, module: str, cell: str, mutants: Sequence[Mutant]) -> dict[str, str]:
    """Mutants of one module; `cell` is a block in it whose ports are changed, and which then is part of both sides."""
    inside = _instances(netlist, module)
    kinds = {kind for name, kind in inside.items() if name != cell}
    if cell:
        kinds |= set(_instances(netlist, inside[cell]).values())
    with tempfile.TemporaryDirectory(prefix="eie-mutation-") as name:
        folder = Path(name)
        (folder / "prepared.il").write_text(netlist.prepared, encoding="utf-8")
        (folder / "eie_ram.v").write_text((resources.files("hw") / "rtl" / "eie_ram.v").read_text(), encoding="utf-8")
        applied = "".join(
            f"mutate -ctrl {SELECT} {SELECT_BITS} {n} {each.change}\n" for n, each in enumerate(mutants, 1)
        )
        evert = "".join(f"expose -evert t:{kind}\n" for kind in sorted(kinds))
        flatten = f"flatten {module}/c:{cell}\n" if cell else ""
        yosys(_EXTRACT.format(mutants=applied, flatten=flatten, module=module, evert=evert), folder)
        ports = json.loads((folder / "dut.json").read_text())["modules"]["dut"]["ports"]
        (folder / "miter.v").write_text(_miter(ports, len(mutants)), encoding="utf-8")
        yosys(_MITER, folder)
        states = _solve(folder, len(mutants))
    return {mutant.change: state for mutant, state in zip(mutants, states, strict=True)}


def _instances(netlist: Netlist, module: str) -> dict[str, str]:
    """Blocks and memories in a module: name → module."""
    begin = netlist.prepared.index(f"\nmodule \\{module}\n")
    text = netlist.prepared[begin : netlist.prepared.index("\nend\n", begin)]
    return {found[2]: found[1] for found in re.finditer(r"^  cell \\(\S+) \\?(\S+)$", text, re.MULTILINE)}


def _miter(ports: dict[str, dict[str, object]], count: int) -> str:
    """Verilog: the block without a fault and each mutant of it beside one another; output n tells of mutant n."""
    width = {name: len(port["bits"]) for name, port in ports.items()}  # type: ignore[arg-type]
    outs = [name for name, port in ports.items() if port["direction"] == "output"]
    ins = [name for name, port in ports.items() if port["direction"] == "input" and name != SELECT]
    plain = {name: f"p{n}" for n, name in enumerate(ports)}

    def under(name: str) -> str | None:
        """The output that says whether this one means something."""
        stem = re.match(r"(.*)__payload\b", name)
        if stem and f"{stem[1]}__valid" in outs:
            return f"{stem[1]}__valid"
        memory = re.match(r"(.*\.)(w_addr|w_data|r_addr)$", name)
        if memory:
            return f"{memory[1]}{memory[2][0]}_en"
        return None

    text = [f"module miter({', '.join(plain[name] for name in ins)}, bad);", f"  output [{count - 1}:0] bad;"]
    text += [f"  input [{width[name] - 1}:0] {plain[name]};" for name in ins]
    for n in range(count + 1):
        text += [f"  wire [{width[name] - 1}:0] {plain[name]}_{n};" for name in outs]
        wires = [f".\\{name} ({plain[name]})" for name in ins] + [f".\\{name} ({plain[name]}_{n})" for name in outs]
        text.append(f"  \\dut  dut_{n} ({', '.join([*wires, f'.{SELECT}({SELECT_BITS}' + chr(39) + f'd{n})'])});")
        if not n:
            continue
        terms = []
        for name in outs:
            differs = f"({plain[name]}_0 != {plain[name]}_{n})"
            enable = under(name)
            if enable in outs:
                differs = f"({differs} & ({plain[str(enable)]}_0 | {plain[str(enable)]}_{n}))"
            terms.append(differs)
        text.append(f"  assign bad[{n - 1}] = {' | '.join(terms) or 1};")
    return "\n".join([*text, "endmodule", ""])


def _abc(folder: Path, script: str, seconds: float) -> str:
    (folder / "abc.script").write_text(script, encoding="utf-8")
    try:
        done = subprocess.run(
            [tools()["yosys-abc"], "-f", "abc.script"], cwd=folder, capture_output=True, text=True, check=False,
            timeout=seconds,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        return late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
    return done.stdout + done.stderr


def _solve(folder: Path, count: int) -> list[str]:
    """Signal correspondence for all of them at once, then PDR for each that is left."""
    aig = folder / "miter.aig"
    _abc(folder, "read miter.aig\nscorr\nwrite_aiger less.aig\n", 300)
    less = folder / "less.aig"
    if not less.exists():
        shutil.copy(aig, less)
    constant = [bit == 0 for bit in _outputs(less)]
    if len(constant) != count:
        raise FormalError(f"abc gave {len(constant)} outputs; expected {count}")
    left = [n for n in range(count) if not constant[n]]
    states = ["equivalent" if done else "open" for done in constant]
    for n in left:
        (folder / f"only_{n}.aig").write_bytes(_only(less.read_bytes(), n))
    script = "".join(f"echo mutant {n}\nread only_{n}.aig\nscleanup\npdr -T {SECONDS}\n" for n in left)
    said = _abc(folder, script, 60 + 6 * SECONDS * len(left)) if left else ""
    for part in said.split("mutant ")[1:]:
        number = re.match(r"\d+", part)
        if not number:
            continue
        if "Property proved" in part:
            states[int(number[0])] = "equivalent"
        elif "was asserted in frame" in part:
            states[int(number[0])] = "differs"
    return states


def _only(raw: bytes, number: int) -> bytes:
    """An AIGER file with one of its outputs."""
    head, rest = raw.split(b"\n", 1)
    kind, most, inputs, latches, outputs, ands, *_ = head.split()
    lines = rest.split(b"\n", int(latches) + int(outputs))
    kept = [*lines[: int(latches)], lines[int(latches) + number], lines[-1]]
    return b"\n".join([b" ".join([kind, most, inputs, latches, b"1", ands]), *kept])


def _outputs(file: Path) -> list[int]:
    """Literals of the outputs of an AIGER file; 0 is never true."""
    raw = file.read_bytes()
    head, rest = raw.split(b"\n", 1)
    _, _, _, latches, outputs, *_ = head.split()
    lines = rest.split(b"\n", int(latches) + int(outputs))
    return [int(line) for line in lines[int(latches) : int(latches) + int(outputs)]]
