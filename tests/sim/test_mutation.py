"""Mutation testing: a sample of it, and that the tool itself is never wrong about a mutant whose fate is certain."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from compiler.claim import claimed
from compiler.errors import InputError
from eie.cli import cli
from sim.mutation.campaign import MUTANTS, SAMPLE, SAMPLE_PARAMS, Campaign, Fate, Results, begin, key_of
from sim.mutation.netlist import Mutant, Netlist, netlist
from sim.mutation.reach import without_reach
from sim.mutation.reasons import Reason, fitting, read, stale
from sim.mutation.replay import recordings_key, replayer, simulator
from sim.mutation.report import so_far, table

pytest.importorskip("pyosys")

COUNT = 84
"""Asked for; a few more are drawn, since each module gets one."""


def certain(whole, number):
    """A mutant that must be killed: answers of the host port that read zeros where ones are."""
    assert re.search(r"connect \\bus__rdata ", whole.prepared)
    return Mutant(number, "host", "-mode inv -module eie_accelerator -cell host -port bus__rdata -portbit 0", ())


def idle(whole, number):
    """A mutant that changes nothing: a one for a one that is added."""
    modules = whole.prepared.split("\nmodule \\")
    for text in modules[1:]:
        cell = re.search(r"cell \$add (\S+)\n(?:    [^\n]*\n)*?    connect \\B 1'1\n", text)
        if cell:
            module = text.split("\n", 1)[0]
            return Mutant(number, "control", f"-mode const1 -module {module} -cell {cell[1]} -port B -portbit 0", ())
    raise AssertionError("nothing in the netlist adds one")


@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.verifies("mutation-sample", "mutation-tool-planted")
def test_a_sample_of_mutants_and_those_whose_fate_is_certain(tmp_path):
    """One test, since the simulator with the mutants takes most of the time."""
    whole = netlist(SAMPLE_PARAMS)
    drawn = whole.mutants(COUNT, 1)
    killed, same = certain(whole, len(drawn) + 1), idle(whole, len(drawn) + 2)
    mutants = [*drawn, killed, same]
    results = Results(tmp_path / MUTANTS, "sample", len(mutants))
    campaign = Campaign(whole, mutants, SAMPLE, results, [])
    campaign.simulate()

    report = campaign.asdict()
    assert report["total"]["mutants"] == len(mutants) >= 100
    assert len(report["blocks"]) == len(whole.blocks)
    assert report["total"]["simulation"] > 20
    assert report["suites"].keys() == {"overlap", "rtl"}

    fate = results.fates[killed.change]
    assert (fate.by, fate.how) == ("simulation", "value")

    assert results.fates[same.change].by is None
    Campaign(whole, [same], SAMPLE, results, []).prove()
    assert results.fates[same.change].by == "equivalent"

    replay = replayer(simulator(whole, mutants, quick=True), whole, SAMPLE)  # both from the cache
    assert [found["by"] for found in replay.run([0], seed=7) if "by" in found] == [None]


@pytest.mark.verifies("mutation-tool-planted")
def test_a_mutant_reaches_nothing_if_its_bit_leads_nowhere():
    """Of a sum of four bits two are handed out."""
    widths = "".join(f"    parameter \\{name}_WIDTH 4\n" for name in "ABY")
    prepared = (
        "\nmodule \\eie_accelerator\n  wire width 4 input 1 \\a\n  wire width 4 input 2 \\b\n  wire width 4 \\sum\n"
        "  wire width 2 output 3 \\o\n  cell $add $1\n    parameter \\A_SIGNED 0\n    parameter \\B_SIGNED 0\n"
        f"{widths}    connect \\A \\a\n    connect \\B \\b\n    connect \\Y \\sum\n  end\n"
        "  connect \\o \\sum [1:0]\nend\n"
    )
    bits = [
        Mutant(n, "core", f"-mode inv -module eie_accelerator -cell $1 -port {port} -portbit {bit}", ())
        for n, (port, bit) in enumerate([("Y", 0), ("Y", 3), ("A", 2), ("B", 1)])
    ]
    assert without_reach(Netlist(SAMPLE_PARAMS, prepared, {}), bits) == {bits[1].change, bits[2].change}
    assert without_reach(Netlist(SAMPLE_PARAMS, prepared, {}), []) == set()


@pytest.mark.verifies("mutation-results")
def test_results_survive_a_kill_and_belong_to_one_campaign(tmp_path):
    file = tmp_path / MUTANTS
    first = Results(file, "a", 7)
    first.note(Fate("one", "mac", ("hw/mac.py:1",), "simulation", "rtl-1"))
    first.note(Fate("two", "mac", (), None))
    with file.open("a") as stream:
        stream.write('{"change": "three", "blo')  # what a killed process leaves
    report = so_far(tmp_path)  # also while the campaign runs
    assert (report["drawn"], report["total"]["mutants"], report["total"]["unexplained"]) == (7, 2, 1)
    assert "Of 7 mutants 2 were run" in table(report)
    again = Results(file, "a", 7)
    assert set(again.fates) == {"one", "two"}
    again.note(Fate("three", "mac", (), None))
    assert set(Results(file, "a", 7).fates) == {"one", "two", "three"}
    with pytest.raises(InputError, match=r"another campaign.*another folder \(-o\)"):
        Results(file, "b", 7)


@pytest.mark.verifies("mutation-results")
@pytest.mark.parametrize("said", ["[1]", "{}", '{"campaign": "a"}', "no JSON"])
@pytest.mark.parametrize("line", [1, 2])
def test_a_damaged_file_of_results_is_refused_with_its_line(tmp_path, said, line):
    file = tmp_path / MUTANTS
    file.write_text('{"campaign": "a", "drawn": 7}\n' * (line - 1) + said + "\n")
    for read_it in (lambda: Results(file, "a", 7), lambda: so_far(tmp_path)):
        with pytest.raises(InputError, match=f"line {line}"):
            read_it()


@pytest.mark.verifies("mutation-results")
def test_a_folder_is_held_by_one_campaign(tmp_path):
    with claimed(tmp_path), pytest.raises(InputError, match="another process"), begin(tmp_path):
        pass
    with pytest.raises(InputError, match="no results"):
        so_far(tmp_path)


@pytest.mark.verifies("mutation-results")
def test_a_campaign_is_that_of_its_stimuli_and_of_all_sources(monkeypatch):
    whole = Netlist(SAMPLE_PARAMS, "module", {})
    recordings, campaign = recordings_key(whole), key_of(whole, [mutant()], SAMPLE)
    assert campaign == key_of(whole, [mutant()], SAMPLE)
    assert campaign != key_of(whole, [mutant(bit=4)], SAMPLE)
    assert campaign != key_of(whole, [mutant()], SAMPLE[:1])
    monkeypatch.setattr("sim.mutation.replay.kit", lambda: "another bench")
    assert recordings != recordings_key(whole)
    assert campaign != key_of(whole, [mutant()], SAMPLE)


def mutant(block="mac", port="A", bit=3, lines=("hw/mac.py:1",)):
    return Mutant(1, block, f"-mode inv -module eie_pe.mac -cell $1 -port {port} -portbit {bit}", lines)


@pytest.mark.verifies("mutation-reasons")
def test_a_reason_fits_by_block_text_port_and_bits():
    reason = Reason("mac", "why", port="^A$", bits=(2, 5))
    assert fitting([reason], mutant()) is reason
    others = [mutant(block="scan"), mutant(port="B"), mutant(bit=6)]
    assert [fitting([reason], other) for other in others] == [None] * 3
    assert stale([reason], [(other, 0) for other in others]) == [reason]
    assert stale([reason], [(mutant(), 0)]) == []
    quiet = Reason("mac", "why", mode="inv", quiet=True)
    assert fitting([quiet], mutant(), 0) is quiet
    assert fitting([quiet], mutant(), 3) is None
    assert fitting([Reason("mac", "why", mode="const")], mutant()) is None


@pytest.mark.verifies("mutation-reasons")
def test_reasons_fit_the_hardware_as_it_is():
    assert all(reason.why.endswith(".") for reason in read())
    with pytest.raises(InputError, match="no line of hw"):
        read('[[reason]]\nblock = "mac"\ntext = "what no line says"\nwhy = "So."\n')
    with pytest.raises(InputError, match="no block"):
        read('[[reason]]\nblock = "mack"\nwhy = "So."\n')
    with pytest.raises(InputError, match="expected block"):
        read('[[reason]]\nblock = "mac"\nwhy = "So."\nbecause = 1\n')


@pytest.mark.verifies("mutation-command")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mutation", "scan"], "names are for the suites formal"),
        (["mutation", "--cases", "3"], "means nothing"),
        (["rtl", "--mutants", "3"], "means nothing"),
        (["mutation", "--blocks", "scam"], "unknown block"),
    ],
)
def test_command_refuses(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["verify", *arguments])
    assert done.exit_code == 2
    assert said in done.output
    assert json.dumps(sorted(str(path) for path in tmp_path.rglob("*.jsonl"))) == "[]"
