"""Proofs: a sample of the table, and that what is wrong, missed or says nothing is never called proved."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from compiler.errors import InputError
from eie.cli import cli
from hw.skid import Skid
from sim.formal.check import check
from sim.formal.claim import Claim
from sim.formal.planted import planted
from sim.formal.sheet import Sheet
from sim.formal.table import CLAIMS, chosen, document
from sim.formal.tools import FormalError, run

pytest.importorskip("pyosys")

SKID = chosen(("skid-order",))[0]


def one(result):
    """The only result of a report."""
    (only,) = result.results
    return only


@pytest.mark.verifies("sample-proofs-planted-faults-covers")
def test_a_sample_of_the_properties_is_proved():
    report = check([claim for claim in CLAIMS if claim.sample], jobs=2)
    assert [problem for result in report.results for problem in result.problems] == []
    assert report.passed
    assert len(report.results) == 2


@pytest.mark.verifies("property-planted-fault-still-fits")
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_planted_faults_fit_the_hardware_as_it_is(claim):
    kinds = [make() for make in claim.bugs.values()]
    assert kinds
    assert claim.kind not in kinds


@pytest.mark.verifies("property-planted-fault-still-fits")
@pytest.mark.parametrize(
    "claim",
    [pytest.param(claim, marks=[pytest.mark.slow] * (claim.block == "Core"), id=claim.name) for claim in CLAIMS],
)
def test_properties_fit_the_hardware_as_it_is(claim):
    lines = Counter(line.strip() for line in claim.design().rtlil.splitlines() if "\\FLAVOR" in line)
    assert lines['parameter \\FLAVOR "cover"'] > 0
    assert lines['parameter \\FLAVOR "assert"'] > 0


def test_names_of_properties_differ():
    assert max(Counter(claim.name for claim in CLAIMS).values()) == 1


@pytest.mark.verifies("planted-property-does-hold-cover")
def test_a_property_that_does_not_hold_is_named_with_a_trace(tmp_path):
    lost = dataclasses.replace(SKID, kind=planted(Skid, "filled | taken", "taken"), bugs=dict([*SKID.bugs.items()][:1]))
    result = one(check([lost], jobs=2, keep=tmp_path))
    assert not result.passed
    (problem,) = [text for text in result.problems if "does not hold" in text]
    assert "each goes out once, in its turn and unchanged" in problem or "shows in the next cycle" in problem
    assert list(tmp_path.glob("skid-order/engine_0/trace*"))


@pytest.mark.verifies("planted-property-does-hold-cover")
def test_what_never_happens_is_not_called_proved():
    def nothing(s, kind):
        dut = s.add(kind(2))
        s.given(~dut.i.valid)
        s.must(~dut.o.valid, "nothing comes out")
        s.reach(dut.o.valid, "something comes out")

    result = one(check([dataclasses.replace(SKID, proof=nothing, bugs={})]))
    assert result.proof.passed
    assert not result.passed
    assert result.problems == [
        "never happens: something comes out", "no fault is planted: nothing shows that it could fail",
    ]  # fmt: skip


@pytest.mark.verifies("planted-property-does-hold-cover")
def test_a_planted_fault_that_is_not_found_is_a_failure():
    harmless = {"nothing is wrong": lambda: planted(Skid, "filled | taken", "taken | filled")}
    result = one(check([dataclasses.replace(SKID, bugs=harmless)]))
    assert not result.passed
    assert result.problems == ["planted fault not found: nothing is wrong"]


@pytest.mark.verifies("planted-property-does-hold-cover")
def test_a_claim_that_is_not_inductive_is_not_called_proved():
    def counts(s, kind):
        from amaranth import Signal

        s.add(kind(2))
        count = Signal(8)
        s.m.d.sync += count.eq(count + ((count < 10) | (count > 100)))
        s.must(count != 200, "it stops")

    claim = dataclasses.replace(SKID, proof=counts, engine="smtbmc yices", depth=3)
    outcome = run(claim.design(), "prove", claim.engine, claim.depth)
    assert not outcome.passed
    assert outcome.failed == ("not by induction of depth 3: it stops",)


@pytest.mark.verifies("proofs-blocks-changed-engines-hang")
def test_a_planted_fault_for_a_block_that_has_changed_is_an_error():
    with pytest.raises(InputError, match=r"Skid.elaborate holds 'no such text' 0 times; expected 1"):
        planted(Skid, "no such text", "")


@pytest.mark.verifies("proofs-blocks-changed-engines-hang")
def test_a_name_in_a_block_that_has_changed_is_an_error():
    sheet = Sheet()
    sheet.add(Skid(2), built=True)
    with pytest.raises(InputError, match="0 signals of the block are named 'nix'"):
        sheet.inner("nix")
    sheet.design()


@pytest.mark.verifies("proofs-blocks-changed-engines-hang")
def test_an_engine_that_takes_too_long_is_stopped():
    with pytest.raises(FormalError, match=r"no answer within 0\.01 s"):
        run(SKID.design(), "prove", "abc pdr", 1, timeout=0.01)


@pytest.mark.verifies("proofs-blocks-changed-engines-hang")
def test_missing_tools_are_named(monkeypatch):
    monkeypatch.setattr("sim.formal.tools.shutil.which", lambda name, path=None: None)
    with pytest.raises(FormalError, match=r"yices-smt2.*pip install 'eie-kit\[formal\]'"):
        check([SKID])


@pytest.mark.verifies("eie-verify-formal-property-list")
def test_command(tmp_path):
    answer = tmp_path / "answer.json"
    ran = CliRunner().invoke(cli, ["verify", "formal", "skid-order", "--json", str(answer), "--jobs", "2"])
    assert ran.exit_code == 0, ran.output
    assert "passed: 1 of 1 properties proved, all covers of these reached; planted faults found: 4 of 4" in ran.output
    (claim,) = json.loads(answer.read_text())["claims"]
    assert claim["proved"]
    assert claim["bound"] is None
    assert all(bug["found"] for bug in claim["bugs"].values())


@pytest.mark.verifies("eie-verify-formal-property-list")
def test_command_lists_and_refuses():
    run_cli = CliRunner().invoke
    listed = run_cli(cli, ["verify", "formal", "--list"])
    assert listed.exit_code == 0
    assert all(claim.name in listed.output for claim in CLAIMS)
    assert "formal" in run_cli(cli, ["verify", "--list"]).output
    for arguments, said in (
        (["verify", "formal", "nix"], "unknown property 'nix'"),
        (["verify", "formal", "--seed", "3"], "--seed means nothing"),
        (["verify", "rtl", "name"], "names are for the suites formal"), (["verify"], "name a suite"),
        (["verify", "rtl", "--timeout", "3"], "--timeout means nothing"),
    ):  # fmt: skip
        refused = run_cli(cli, arguments)
        assert refused.exit_code == 2
        assert said in refused.output


def test_the_table_of_the_document_is_the_one_of_the_code():
    page = (Path(__file__).parents[2] / "docs" / "formal.md").read_text(encoding="utf-8")
    assert page == document(page), "make docs writes it again"


def test_every_claim_says_what_it_needs():
    for claim in CLAIMS:
        assert isinstance(claim, Claim)
        assert claim.text.endswith(".")
        assert claim.bound == 0 or claim.bound >= 10
