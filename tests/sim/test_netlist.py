"""The netlist of a board's design and of one PE against the models: what takes yosys minutes runs with EIE_FPGA=1."""

from __future__ import annotations

import os
import re

import pytest

from compiler.errors import EieError
from hw.params import PRESETS
from sim.fpga import equivalence, netlist, regression
from sim.fpga.board_top import synthesis_scripts
from sim.fpga.boards import BOARDS
from sim.fpga.equivalence import prove_pe
from sim.fpga.families import ECP5

real = pytest.mark.skipif(not os.environ.get("EIE_FPGA"), reason="runs yosys for minutes: EIE_FPGA=1")


stages = pytest.mark.parametrize("stage", ["synthesized", "placed"])


@pytest.mark.verifies("synthesized-netlist-through-pins-models")
@real
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.rtl
@stages
def test_a_netlist_equals_the_models(seed, stage) -> None:
    for case, what, result, _ in regression.stage_cases(stage, [seed, seed + 1], print):
        assert what is None, (case, what)
        assert result is not None
        assert sum(values.size for values in result.values.values())


@pytest.mark.verifies("synthesized-netlist-through-pins-models")
def test_both_ways_of_synthesis_are_verified() -> None:
    scripts = {stage: synthesis_scripts(params, ECP5) for stage, params in regression.ARRAYS.items()}
    apart = [stage for stage, texts in scripts.items() if all("keep_hierarchy" in text for text in texts)]
    assert apart == ["synthesized"]


def one_cell_wrong(text: str) -> str:
    """The netlist with a lookup table of the PE's multiply-accumulate inverted."""
    cells = r"(?:LUT4|TRELLIS_COMB_LOGIC) \\\S*pe_0\.mac\S*  ?\([^;]*?\.INIT(?:VAL)?\(16'h([0-9a-f]{4})\)"
    table = list(re.finditer(cells, text))[-1]
    return f"{text[: table.start(1)]}{int(table[1], 16) ^ 0xFFFF:04x}{text[table.end(1) :]}"


@pytest.mark.verifies("synthesized-netlist-through-pins-models")
@real
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.rtl
@stages
def test_fault_in_a_cell_is_seen_through_the_pins(seed, stage) -> None:
    found = [what for _, what, _, _ in regression.stage_cases(stage, range(seed, seed + 4), print, one_cell_wrong)]
    assert any(found)


@pytest.mark.verifies("pe-equals-netlist-induction-planted")
@real
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_one_pe_equals_its_netlist(tmp_path) -> None:
    proof = prove_pe(PRESETS["BOARD_MIN"], tmp_path, print)
    assert proof.holds, proof
    assert proof.proven > 1200


@pytest.mark.verifies("pe-equals-netlist-induction-planted")
@real
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fault_in_the_netlist_of_a_pe_is_not_proven(tmp_path) -> None:
    def wrong(text: str) -> str:
        tables = list(re.finditer(r"cell \\LUT4 .*?\n    parameter \\INIT 16'([01]{16})\n", text, re.DOTALL))
        table = tables[len(tables) // 2]
        flipped = "".join("10"[int(bit)] for bit in table[1])
        return text[: table.start(1)] + flipped + text[table.end(1) :]

    assert not prove_pe(PRESETS["BOARD_MIN"], tmp_path, print, wrong).holds


def test_the_result_of_a_proof_is_read_and_its_absence_is_an_error() -> None:
    log = "Of those cells 3 are proven and 1 are unproven.\n"
    log += "  Unproven $equiv $a$1: \\mac.sum_gold [2] \\mac.sum_gate [2]\n"
    proof = equivalence._read_proof("Of those cells 1 are proven and 3 are unproven.\n" + log)
    assert (proof.proven, proof.unproven, proof.first, proof.holds) == (3, 1, ("mac.sum",), False)
    assert equivalence._read_proof("Of those cells 4 are proven and 0 are unproven.\n").holds
    assert not equivalence._read_proof("Of those cells 0 are proven and 0 are unproven.\n").holds
    with pytest.raises(EieError, match="no result"):
        equivalence._read_proof("nothing")


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(EieError, match="expected one of rtl, synthesized, placed"):
        netlist.stage_verilog(None, "routed", print)  # type: ignore[arg-type]


def test_a_placed_netlist_of_another_family_is_refused() -> None:
    plan = netlist.netlist_plan(BOARDS["tang-nano-20k"], PRESETS["BOARD_MIN"])
    with pytest.raises(EieError, match="20k: cells of a placed netlist are modelled for the family ecp5 only"):
        netlist.stage_verilog(plan, "placed", print)
