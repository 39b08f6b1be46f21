"""Mutation testing: a sample of it, and that the tool itself is never wrong about a mutant whose fate is certain."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from compiler.errors import InputError
from eie.cli import cli
from sim.mutation.campaign import SAMPLE, SAMPLE_PARAMS, Campaign, Fate, Results
from sim.mutation.netlist import Mutant, netlist
from sim.mutation.reasons import Reason, fitting, read, stale
from sim.mutation.replay import replayer, simulator

pytest.importorskip("pyosys")

COUNT = 100


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


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    whole = netlist(SAMPLE_PARAMS)
    drawn = whole.mutants(COUNT, 1)
    mutants = [*drawn, certain(whole, len(drawn) + 1), idle(whole, len(drawn) + 2)]
    results = Results(tmp_path_factory.mktemp("mutation") / "mutants.jsonl", "sample")
    made = Campaign(whole, mutants, SAMPLE, results, [])
    made.simulate()
    return made


@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.verifies("mutation-sample")
def test_a_sample_of_mutants_is_killed_as_far_as_two_runs_see(campaign):
    report = campaign.asdict()
    assert report["total"]["mutants"] >= COUNT
    assert len(report["blocks"]) == len(campaign.netlist.blocks)
    assert report["total"]["simulation"] > COUNT // 5
    assert report["suites"].keys() == {"overlap", "rtl"}


@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.verifies("mutation-tool-planted")
def test_planted_a_mutant_that_must_be_killed_is_killed(campaign):
    fate = campaign.results.fates[campaign.mutants[-2].change]
    assert fate.by == "simulation"
    assert fate.how == "value"


@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.verifies("mutation-tool-planted")
def test_planted_a_mutant_that_changes_nothing_survives_and_is_proved_equivalent(campaign):
    change = campaign.mutants[-1].change
    assert campaign.results.fates[change].by is None
    Campaign(campaign.netlist, [campaign.mutants[-1]], SAMPLE, campaign.results, []).prove()
    assert campaign.results.fates[change].by == "equivalent"


@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.verifies("mutation-tool-planted")
def test_the_array_without_a_mutant_is_its_recording(campaign):
    replay = replayer(simulator(campaign.netlist, campaign.mutants), campaign.netlist, SAMPLE)  # both from the cache
    assert [found["by"] for found in replay.run([0], seed=7) if "by" in found] == [None]


@pytest.mark.verifies("mutation-results")
def test_results_survive_a_kill_and_belong_to_one_campaign(tmp_path):
    file = tmp_path / "mutants.jsonl"
    first = Results(file, "a")
    first.note(Fate("one", "mac", ("hw/mac.py:1",), "simulation", "rtl-1"))
    first.note(Fate("two", "mac", (), None))
    with file.open("a") as stream:
        stream.write('{"change": "three", "blo')  # what a killed process leaves
    again = Results(file, "a")
    assert set(again.fates) == {"one", "two"}
    again.note(Fate("three", "mac", (), None))
    assert set(Results(file, "a").fates) == {"one", "two", "three"}
    with pytest.raises(InputError, match="another campaign"):
        Results(file, "b")


def mutant(block="mac", port="A", bit=3, lines=("hw/mac.py:1",)):
    return Mutant(1, block, f"-mode inv -module eie_pe.mac -cell $1 -port {port} -portbit {bit}", lines)


@pytest.mark.verifies("mutation-reasons")
def test_a_reason_fits_by_block_text_port_and_bits():
    reason = Reason("mac", "why", port="^A$", bits=(2, 5))
    assert fitting([reason], mutant()) is reason
    others = [mutant(block="scan"), mutant(port="B"), mutant(bit=6)]
    assert [fitting([reason], other) for other in others] == [None] * 3
    assert stale([reason], others) == [reason]
    assert stale([reason], [mutant()]) == []


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
