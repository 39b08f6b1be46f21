"""The ledger of regressions: the next seeds, no case twice, sums, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import sim.nights
from compiler.errors import InputError
from eie.cli import cli
from eie.commands.verify import LEDGER_FILE
from sim.nights import GOAL, Entry, append, entry_of, next_seed, night, read, totals
from sim.suites import SUITES
from sim.verify import Mismatch, Report

ROOT = Path(__file__).parents[2]
ENTRY = Entry("2026-11-29T22:00:00+00:00", "abc", "0.1.0+f00", "rtl", 3, 10, 5000, 70000, 40, 30.0)


@pytest.fixture
def pretend(monkeypatch) -> list[tuple]:
    """Regressions of which each case compares a thousand values; those that were asked for."""
    asked = []

    def verify(suite, seed, trials, out, resume, **how):
        asked.append((suite, seed, trials, out, resume, how))
        failures = [Mismatch(9, "output of fc1")] if seed == 2 else []
        return Report(suite, seed, trials, 1000 * trials, failures=failures, cpu_seconds=6.0)

    monkeypatch.setattr(sim.nights, "verify", verify)
    return asked


@pytest.mark.verifies("regression-ledger")
def test_the_next_night_takes_the_next_seeds(tmp_path, pretend):
    ledger = tmp_path / "ledger.jsonl"
    append(ledger, dataclasses.replace(ENTRY, suite="networks", seed=13))
    done = []
    for _ in range(2):
        night(ledger, tmp_path, done.append, ("networks", "rtl"), share=0.01, jobs=2)
    assert [(suite, seed) for suite, seed, *_ in pretend] == [
        ("networks", 14),
        ("rtl", 1),
        ("networks", 15),
        ("rtl", 2),
    ]
    assert [trials for *_, trials, _, _, _ in pretend[:2]] == [
        max(1, round(0.01 * SUITES[name].night)) for name in ("networks", "rtl")
    ]
    assert len({out for *_, out, _, _ in pretend}) == 4
    assert [(entry.suite, entry.seed) for entry in read(ledger)] == [
        ("networks", 13), ("networks", 14), ("rtl", 1), ("networks", 15), ("rtl", 2),
    ]  # fmt: skip
    assert read(ledger)[-1].failures == ((9, "output of fc1"),)
    assert [next_seed(read(ledger), name) for name in ("networks", "rtl", "bus")] == [16, 3, 1]


@pytest.mark.verifies("regression-ledger")
def test_no_case_counts_twice(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    append(ledger, ENTRY)
    before = ledger.read_bytes()
    with pytest.raises(InputError, match="has rtl, seed 3 already"):
        append(ledger, ENTRY)
    assert ledger.read_bytes() == before
    ledger.write_bytes(2 * before)
    with pytest.raises(InputError, match="line 2: rtl, seed 3 is there already"):
        read(ledger)


@pytest.mark.verifies("regression-ledger")
def test_sums():
    entries = [ENTRY, dataclasses.replace(ENTRY, seed=4, failures=((7, "x"),)), dataclasses.replace(ENTRY, suite="bus")]
    bus, rtl = sorted(totals(entries), key=lambda row: row["suite"])
    assert (rtl["runs"], rtl["seeds"], rtl["cases"], rtl["values"], rtl["failures"]) == (2, [3, 4], 20, 10000, 1)
    assert (rtl["values_a_cpu_minute"], rtl["cpu_minutes"]) == (10000, 1.0)
    assert bus["values"] == 5000


@pytest.mark.verifies("regression-ledger")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "line 1 is no JSON object"), ("{}", "line 1 is no run of a regression"),
        (json.dumps({**dataclasses.asdict(ENTRY), "values": "many"}), "line 1 is no run"),
        (json.dumps({**dataclasses.asdict(ENTRY), "mood": "good"}), "line 1 is no run"),
    ],
)  # fmt: skip
def test_damaged_lines_are_named(tmp_path, line, said):
    (tmp_path / "ledger.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=said):
        read(tmp_path / "ledger.jsonl")


@pytest.mark.verifies("regression-ledger")
def test_the_ledger_of_the_kit_is_one():
    entries = read(ROOT / LEDGER_FILE)
    assert entries
    assert all(entry.suite in SUITES and entry.values > 0 for entry in entries)


def test_an_entry_is_of_a_report():
    entry = entry_of(Report("rtl", 5, 3, 9, failures=[Mismatch(1, "x")], cpu_seconds=2.0), "abc+")
    assert (entry.suite, entry.seed, entry.cases, entry.values, entry.failures) == ("rtl", 5, 3, 9, ((1, "x"),))
    assert entry.commit == "abc+"


@pytest.mark.verifies("regression-ledger")
def test_commands(tmp_path, pretend):
    ledger = tmp_path / "ledger.jsonl"

    def invoke(*arguments: object, code: int) -> str:
        ran = CliRunner().invoke(cli, ["verify", *map(str, arguments)])
        assert ran.exit_code == code, ran.output
        return ran.output

    assert "there is no ledger" in invoke("ledger", "--ledger", ledger, code=2)
    said = invoke("nightly", "rtl", "-o", tmp_path, "--ledger", ledger, code=0)
    assert f"of {GOAL:,} values" in said
    assert "0 cases differ" in invoke("ledger", "--ledger", ledger, code=0)
    assert "case 9: output of fc1" in invoke("nightly", "rtl", "-o", tmp_path, "--ledger", ledger, code=1)
    rows = json.loads(invoke("--ledger", ledger, "--json", "-", code=1))
    assert (rows["goal"], rows["failures"]) == (GOAL, 1)
    assert rows["values"] == 2000 * SUITES["rtl"].night
    assert "no suite of the night" in invoke("nightly", "port", "--ledger", ledger, code=2)
    assert "has rtl, seed 1 already" in invoke("rtl", "--ledger", ledger, code=2)
    assert "--seed means nothing to the suite nightly" in invoke("nightly", "--seed", 3, code=2)
    assert "name it with -o DIR" in invoke("rtl", "--resume", code=2)
