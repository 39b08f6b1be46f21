"""The ledger of regressions: the next seeds, no case twice, sums, and what is refused."""

from __future__ import annotations

import dataclasses
import errno
import functools
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
        (json.dumps({**dataclasses.asdict(ENTRY), "cpu_seconds": None}), "cpu_seconds should be numbers"),
        (json.dumps({**dataclasses.asdict(ENTRY), "cpu_seconds": float("nan")}), "cpu_seconds should be numbers"),
        (json.dumps({**dataclasses.asdict(ENTRY), "seed": True}), "seed should be whole numbers"),
        (json.dumps({**dataclasses.asdict(ENTRY), "failures": [["7", "x"]]}), "pairs of a seed and a text"),
        ("[" * 100_000, "line 1 is no JSON object"),
    ],
)  # fmt: skip
def test_damaged_lines_are_named(tmp_path, line, said):
    (tmp_path / "ledger.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=said):
        read(tmp_path / "ledger.jsonl")


@pytest.mark.verifies("regression-ledger")
def test_a_last_line_without_its_end_is_refused_and_stays(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    append(ledger, ENTRY)
    for left in (json.dumps(dataclasses.asdict(dataclasses.replace(ENTRY, seed=8))), '{"date": "2026'):
        ledger.write_bytes(ledger.read_bytes().split(b"\n")[0] + b"\n" + left.encode())
        before = ledger.read_bytes()
        for act in (lambda: read(ledger), lambda: append(ledger, dataclasses.replace(ENTRY, seed=4))):
            with pytest.raises(InputError, match="line 2 has no end of line: end it if the entry is whole, remove it"):
                act()
        assert ledger.read_bytes() == before


@pytest.mark.verifies("regression-ledger")
def test_a_night_notices_that_the_sources_were_changed(tmp_path, pretend, monkeypatch):
    kit = functools.cache(lambda: next(hashes))
    hashes = iter(["0+a", "0+a", "0+b"])
    monkeypatch.setattr(sim.nights, "kit", kit)
    kit()
    with pytest.raises(InputError, match="the sources were changed since the night began"):
        night(tmp_path / "ledger.jsonl", tmp_path, lambda report: None, ("rtl", "bus"))
    assert [suite for suite, *_ in pretend] == ["rtl"]


@pytest.mark.verifies("regression-ledger")
@pytest.mark.parametrize(
    ("share", "said"),
    [
        ("nan", "not a finite number"),
        ("inf", "not a finite number"),
        ("1e300", "expected more than 0, and 1000 at most"),
    ],
)
def test_a_share_that_is_none_is_refused(tmp_path, pretend, share, said):
    ran = CliRunner().invoke(cli, ["verify", "nightly", "--share", share, "--ledger", str(tmp_path / "l.jsonl")])
    assert ran.exit_code == 2, ran.output
    assert said in ran.output
    assert pretend == []


@pytest.mark.verifies("regression-ledger")
def test_a_ledger_that_cannot_be_written_is_refused_before_the_work(tmp_path, pretend, monkeypatch):
    began = []
    monkeypatch.setattr("sim.verify.verify", lambda *arguments, **how: began.append(arguments))
    for arguments in (["rtl"], ["nightly", "rtl"]):
        ran = CliRunner().invoke(cli, ["verify", *arguments, "--ledger", str(tmp_path / "nowhere" / "l.jsonl")])
        assert ran.exit_code == 2, ran.output
        assert "nowhere does not exist" in ran.output
    assert (pretend, began) == ([], [])


@pytest.mark.verifies("regression-ledger")
def test_the_result_is_printed_though_it_cannot_be_added(tmp_path, pretend, monkeypatch):
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    report = Report("rtl", 1, 3, 9, cpu_seconds=2.0)
    monkeypatch.setattr("sim.verify.verify", lambda *arguments, **how: report)
    monkeypatch.setattr(sim.nights, "append_line", full)
    ledger = tmp_path / "l.jsonl"
    for arguments in (["rtl"], ["nightly", "rtl"]):
        ran = CliRunner().invoke(cli, ["verify", *arguments, "--ledger", str(ledger)])
        assert ran.exit_code == 2, ran.output
        assert "passed: rtl, seed 1" in ran.output
        assert f"{ledger}: No space left on device" in ran.output


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
