"""Synthesis figures: how reports are read, with stand-ins for the tools; and the real run (EIE_FPGA=1)."""

from __future__ import annotations

import copy
import json
import os
import sys
import sysconfig
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from compiler.errors import InputError
from eie.commands.fmax import fmax
from hw.accelerator import TOP_MODULE
from hw.core import PE_MODULE, WRITEBACK_MODULE
from hw.params import preset
from sim.fpga import flow
from sim.fpga.report import as_run, cell_counts, critical_path, megahertz, resources, source_names, summary

CLOCK = "posedge $glbnet$clk$TRELLIS_IO_IN"

# Cut from a run of the tools: a weight memory's output, two lookup tables, the register of the entry's code.
NETLIST = {
    "modules": {
        flow.TOP: {
            "cells": {
                "dut.weight_read.memory.ram.mem.0.1": {"type": "DP16KD", "connections": {"DOB3": [7], "DOB4": ["x"]}},
                "lut": {"type": "LUT4", "connections": {"D": [7], "Z": [8]}},
                "dut.weight_decode.memory.port$279$0_TRELLIS_FF_Q": {
                    "type": "TRELLIS_FF",
                    "connections": {"DI": [8], "Q": [9], "CE": ["1"]},
                },
            },
            "netnames": {
                "dut.weight_read.memory.r_data": {"bits": [5, 6, 7]},
                "dut.weight_decode.memory.port$279$0": {"bits": [10, 9]},
                "hidden": {"hide_name": 1, "bits": [9]},
            },
        }
    }
}
# The same before optimization, with the names that it dropped.
FLAT = {
    "modules": {
        flow.TOP: {
            "cells": {
                "$flatten\\dut.\\weight_read.$procdff$1568": {"type": "$dff", "connections": {"Q": [20, 21, 22]}},
                "$flatten\\dut.\\weight_read.\\memory.\\ram.$procdff$1551": {
                    "type": "$dffe", "connections": {"Q": [30, 31, 32]},
                },
            },
            "netnames": {
                "dut.weight_decode.memory.port$279$0": {"bits": [21, 22]},
                "dut.weight_decode.code": {"bits": [21, 22]},
                "dut.o__payload$15.code": {"bits": [21, 22]},
                "dut.weight_read.o__payload.code": {"bits": [21, 22]},
                "dut.weight_read.o__payload": {"bits": [20, 21, 22]},
                "dut.weight_read.memory.r_data": {"bits": [30, 31, 32]},
                "dut.weight_read.memory.ram.r_data": {"bits": [30, 31, 32]},
                "dut.weight_read.buffer": {"bits": [30, 31, 32]},
            },
        }
    }
}  # fmt: skip
REPORT = {
    "fmax": {"$glbnet$clk$TRELLIS_IO_IN": {"achieved": 140.2131, "constraint": 150.0}},
    "utilization": {
        "TRELLIS_COMB": {"available": 83640, "used": 2910}, "TRELLIS_FF": {"available": 83640, "used": 882},
        "DP16KD": {"available": 208, "used": 8}, "MULT18X18D": {"available": 156, "used": 1},
        "DCUA": {"available": 2, "used": 0},
    },
    "critical_paths": [
        {"from": CLOCK, "to": CLOCK, "path": [
            {"type": "clk-to-q", "delay": 4.26, "from": {"cell": "dut.weight_read.memory.ram.mem.0.1", "port": "DOB3"},
             "to": {"cell": "dut.weight_read.memory.ram.mem.0.1", "port": "DOB3"}},
            {"type": "routing", "delay": 0.82, "from": {"cell": "dut.weight_read.memory.ram.mem.0.1", "port": "DOB3"},
             "to": {"cell": "lut", "port": "D"}},
            {"type": "logic", "delay": 0.18, "from": {"cell": "lut", "port": "D"}, "to": {"cell": "lut", "port": "F"}},
            {"type": "routing", "delay": 1.6, "from": {"cell": "lut", "port": "F"},
             "to": {"cell": "dut.weight_decode.memory.port$279$0_TRELLIS_FF_Q", "port": "DI"}},
            {"type": "setup", "delay": 0.25,
             "from": {"cell": "dut.weight_decode.memory.port$279$0_TRELLIS_FF_Q", "port": "DI"},
             "to": {"cell": "dut.weight_decode.memory.port$279$0_TRELLIS_FF_Q", "port": "DI"}},
        ]},
        {"from": "<async>", "to": CLOCK, "path": [{"type": "source", "delay": 9.0}]},
    ],
}  # fmt: skip


@pytest.mark.verifies("reports-tools-read-hardware-s")
def test_a_report_is_read_in_our_names_and_adds_up() -> None:
    path = critical_path(REPORT, NETLIST, flow.TOP, source_names(FLAT, flow.TOP))
    assert path.start == "weight_read.memory.ram.r_data[2]"  # the block that drives it comes first
    assert path.end == "weight_read.o__payload.code[1]"  # a field rather than the payload
    assert (path.clock_to_q, path.logic, path.routing, path.levels) == (4.26, 0.43, 2.42, 1)
    assert path.total == pytest.approx(7.11)
    assert megahertz(REPORT) == 140.2131
    assert resources(REPORT) == {"comb": 2910, "ff": 882, "ramw": 0, "ebr": 8, "mult18": 1}
    assert cell_counts(NETLIST, flow.TOP) == {
        "lut4": 1, "ccu2c": 0, "dpr16x4": 0, "pfumx": 0, "l6mux21": 0, "ff": 1, "mult18": 0, "ebr": 1,
    }  # fmt: skip


def test_a_cell_without_a_name_of_ours_is_named_by_the_tool() -> None:
    netlist = copy.deepcopy(NETLIST)
    netlist["modules"][flow.TOP]["netnames"] = {}
    path = critical_path(REPORT, netlist, flow.TOP, source_names(FLAT, flow.TOP))
    assert path.start == "weight_read.memory.ram.mem.0.1"


def test_a_signal_that_no_name_of_ours_is_left_of_keeps_the_one_it_has() -> None:
    path = critical_path(REPORT, NETLIST, flow.TOP, {"dut.weight_read.memory.r_data[2]": "r", "other": "x"})
    assert (path.start, path.end) == ("r", "weight_decode.memory.port$279$0_TRELLIS_FF_Q")


@pytest.mark.verifies("reports-without-clock-refused")
@pytest.mark.parametrize("clocks", [{}, {"a": {"achieved": 1.0}, "b": {"achieved": 2.0}}])
def test_a_report_without_its_one_clock_is_refused(clocks) -> None:
    with pytest.raises(InputError, match=f"{len(clocks)} clocks"):
        megahertz({"fmax": clocks})


@pytest.mark.verifies("slowest-median-seed-path-slowest")
def test_the_summary_takes_slowest_and_median_and_the_path_of_the_slowest() -> None:
    runs = [{"mhz": mhz, "critical_path": f"path {mhz}"} for mhz in (140.0, 131.5, 148.0, 133.2)]
    assert summary(runs) == {"min_mhz": 131.5, "median_mhz": 136.6, "critical_path": "path 131.5"}


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tools that write the sample instead; `nextpnr` fails with what the file `error` in the folder says."""
    alone = {"modules": {PE_MODULE: NETLIST["modules"][flow.TOP]}}
    array = {"modules": dict.fromkeys((TOP_MODULE, PE_MODULE, WRITEBACK_MODULE), NETLIST["modules"][flow.TOP])}
    files = {
        "array.json": array,
        f"{PE_MODULE}.json": alone,
        f"{flow.TOP}.json": NETLIST,
        f"{flow.TOP}.flat.json": FLAT,
    }
    (tmp_path / "files.json").write_text(json.dumps({"netlists": files, "report": REPORT}))
    (tmp_path / "tool.py").write_text(
        f"""
import json, os, sys
here = {str(tmp_path)!r}
files = json.load(open(os.path.join(here, "files.json")))
if sys.argv[1] == "yosys":
    for name, netlist in files["netlists"].items():
        json.dump(netlist, open(name, "w"))
else:
    if os.path.exists(os.path.join(here, "error")):
        sys.exit("Info: placing\\nERROR: " + open(os.path.join(here, "error")).read())
    seed = sys.argv[sys.argv.index("--seed") + 1]
    files["report"]["fmax"]["$glbnet$clk$TRELLIS_IO_IN"]["achieved"] -= int(seed)
    json.dump(files["report"], open(sys.argv[sys.argv.index("--report") + 1], "w"))
"""
    )
    monkeypatch.setenv("YOSYS", f"{sys.executable} {tmp_path / 'tool.py'} yosys")
    monkeypatch.setenv("NEXTPNR_ECP5", f"{sys.executable} {tmp_path / 'tool.py'} nextpnr")
    return tmp_path


def run(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(fmax, ["-o", str(folder / "out"), *options])


@pytest.mark.verifies("table-json")
def test_the_command_prints_a_table_and_writes_json(stand_ins) -> None:
    result = run(stand_ins, "--seeds", "1,20", "--require", "120", "--json", str(stand_ins / "fmax.json"))
    assert result.exit_code == 0, result.output
    assert "weight_read.memory.ram.r_data[2] → weight_read.o__payload.code[1]: 7.11 ns" in result.stdout
    report = json.loads((stand_ins / "fmax.json").read_text())
    assert [entry["mhz"] for entry in report["runs"]] == [139.2, 120.2]
    assert (report["min_mhz"], report["median_mhz"]) == (120.2, 129.7)
    slower = {**REPORT, "fmax": {"c": {"achieved": 139.2131}}}
    assert report["runs"][0] == as_run(1, slower, NETLIST, flow.TOP, source_names(FLAT, flow.TOP))
    assert report["params"]["queue_depth"] == preset("ECP5_PE").queue_depth


@pytest.mark.verifies("array-shell-pe")
def test_an_array_is_measured_with_its_shell_beside_its_pe(stand_ins) -> None:
    result = run(stand_ins, "--array", "--set", "pes=2", "--seeds", "1", "--json", str(stand_ins / "array.json"))
    assert result.exit_code == 0, result.output
    assert "array of ECP5_32 behind a serial line" in result.stdout
    assert "shell" in result.stdout
    report = json.loads((stand_ins / "array.json").read_text())
    assert (report["params"]["pes"], report["params"]["hops"]) == (2, 1)
    assert (report["shell_cells"]["lut4"], report["cells"]["ff"], report["target_mhz"]) == (1, 1, 100)
    assert report["critical_path"]["total"] == 7.11


@pytest.mark.verifies("seed-too-slow")
def test_a_seed_that_is_too_slow_ends_with_1_and_still_reports(stand_ins) -> None:
    result = run(stand_ins, "--seeds", "1,20", "--require", "130", "--json", str(stand_ins / "fmax.json"))
    assert result.exit_code == 1
    assert "seed 20 (120.2 MHz)" in result.stderr
    assert json.loads((stand_ins / "fmax.json").read_text())["require_mhz"] == 130


@pytest.mark.verifies("pe-does-fit")
def test_a_design_that_does_not_fit_ends_with_2_and_the_tools_own_words(stand_ins) -> None:
    (stand_ins / "error").write_text("Unable to place cell 'mem', no BELs remaining")
    result = run(stand_ins, "--json", str(stand_ins / "fmax.json"))
    assert result.exit_code == 2
    assert "no BELs remaining" in result.stderr
    assert "Make the PE smaller: --set weight_words=1024" in result.stderr
    assert "seed-1.log" in result.stderr
    assert not (stand_ins / "fmax.json").exists()


@pytest.mark.verifies("missing-tool")
@pytest.mark.parametrize("variable", ["YOSYS", "NEXTPNR_ECP5"])
@pytest.mark.parametrize("named", [True, False])
def test_a_missing_tool_ends_with_3_and_how_to_get_it(stand_ins, monkeypatch, variable, named) -> None:
    if named:
        monkeypatch.setenv(variable, "/nowhere/tool")
    else:
        monkeypatch.delenv(variable)
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr(sysconfig, "get_path", lambda name: "/nowhere")
    result = run(stand_ins)
    assert result.exit_code == 3
    assert ("/nowhere/tool" if named else "eie-kit[fpga]") in result.stderr
    assert not (stand_ins / "out").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--seeds", "1,x"), "whole numbers"), (("--seeds", "1,1"), "different"), (("--seeds", ""), "whole numbers"),
        (("--preset", "NONE"), "unknown preset"), (("--set", "queue_depth=3"), "queue_depth"),
        (("--target", "0"), "target"),
    ],
)  # fmt: skip
def test_wrong_options_end_with_2(stand_ins, options, word) -> None:
    result = run(stand_ins, *options)
    assert result.exit_code == 2
    assert word in result.stderr


real = pytest.mark.skipif(not os.environ.get("EIE_FPGA"), reason="runs yosys and nextpnr for minutes: EIE_FPGA=1")


@pytest.mark.verifies("pe-reaches-130-mhz-three")
@real
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_one_pe_reaches_130_mhz_and_maps_as_meant(tmp_path) -> None:
    result = run(tmp_path, "--require", "130", "--json", str(tmp_path / "fmax.json"))
    assert result.exit_code == 0, result.output
    for entry in json.loads((tmp_path / "fmax.json").read_text())["runs"]:
        assert entry["resources"]["ebr"] == 7  # weights five, pointers two
        assert entry["resources"]["mult18"] == 1


def without(monkeypatch: pytest.MonkeyPatch, attribute: str) -> None:
    """Measure with an `eie_ram` that lacks a part of its attributes."""
    text = flow.primitive()
    assert text.count(attribute) == 1
    monkeypatch.setattr(flow, "primitive", lambda: text.replace(attribute, ""))


@pytest.mark.verifies("planted-fault-codebook-block-ram")
@real
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fault_codebook_in_block_ram_misses_130_mhz(tmp_path, monkeypatch) -> None:
    without(monkeypatch, ", ram_style = STYLE")
    assert run(tmp_path, "--seeds", "1", "--require", "130").exit_code == 1


@pytest.mark.verifies("planted-fault-ram-must-answer")
@real
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fault_old_word_on_a_read_during_a_write_costs_registers(tmp_path, monkeypatch) -> None:
    """What `no_rw_check` is for: synthesis would otherwise remember and compare what is written."""
    without(monkeypatch, "no_rw_check, ")
    result = run(tmp_path, "--seeds", "1", "--json", str(tmp_path / "fmax.json"))
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "fmax.json").read_text())["cells"]["ff"] > 750  # with it 610
