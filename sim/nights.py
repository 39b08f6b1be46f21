"""The ledger of regressions: what each run compared, over all nights, against a thousand million values."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from compiler.errors import InputError
from sim.case_file import json_lines
from sim.suites import SUITES
from sim.trials import kit
from sim.verify import Report, verify

__all__ = ["GOAL", "Entry", "append", "check_new", "commit", "entry_of", "night", "read", "totals"]

GOAL = 10**9
"""Values to be compared, over all suites and nights."""


@dataclass(frozen=True)
class Entry:
    """A run of a suite, through to its end.

    seed : of all its `cases`. values, cycles, records : that were compared. failures : seed of each case that failed
    and what it said. commit : of the sources, with "+" behind it if they were changed since.
    """

    date: str
    commit: str
    kit: str
    suite: str
    seed: int
    cases: int
    values: int
    cycles: int
    records: int
    cpu_seconds: float
    failures: tuple[tuple[int, str], ...] = ()


def entry_of(report: Report, began_at: str) -> Entry:
    """The entry for a run that ends now. began_at : the commit of the sources when it began, see `commit`."""
    return Entry(
        datetime.now(UTC).isoformat(timespec="seconds"), began_at, kit(), report.suite, report.seed, report.trials,
        report.values, report.cycles, report.records, report.cpu_seconds,
        tuple((failure.seed, failure.what) for failure in report.failures),
    )  # fmt: skip


def commit() -> str:
    """The commit of the clone that the kit runs from; empty outside of one."""
    root = Path(__file__).parents[1]

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "hw", "compiler", "sim")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def read(path: Path) -> list[Entry]:
    """All entries; none if there is no such file.

    Raises
    ------
    InputError
        A line is no entry, or two are of the same cases.
    """
    found: list[Entry] = []
    for number, plain in enumerate(json_lines(path)[0], 1):
        try:
            entry = Entry(**{**plain, "failures": tuple((seed, what) for seed, what in plain.get("failures", ()))})
            assert all(isinstance(count, int) for count in (entry.seed, entry.cases, entry.values, entry.cycles))
        except (TypeError, ValueError, AssertionError):
            raise InputError(f"{path}, line {number} is no run of a regression; mend or remove it") from None
        if any((old.suite, old.seed) == (entry.suite, entry.seed) for old in found):
            raise InputError(f"{path}, line {number}: {entry.suite}, seed {entry.seed} is there already; remove one")
        found.append(entry)
    return found


def append(path: Path, entry: Entry) -> None:
    """Add a run.

    Raises
    ------
    InputError
        The ledger has a run of these cases already: they would count twice.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        check_new(path, entry.suite, entry.seed)
        os.write(handle, (json.dumps(asdict(entry)) + "\n").encode())
    finally:
        os.close(handle)


def check_new(path: Path, suite: str, seed: int) -> None:
    """Refuse cases that are in the ledger already.

    Raises
    ------
    InputError
        They are.
    """
    if any((entry.suite, entry.seed) == (suite, seed) for entry in read(path)):
        raise InputError(f"{path} has {suite}, seed {seed} already, and no case counts twice; take another seed")


def totals(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """For each suite, what its runs compared, and values for a minute of the processor."""
    rows = []
    for suite in [name for name in SUITES if any(entry.suite == name for entry in entries)]:
        runs = [entry for entry in entries if entry.suite == suite]
        values, cpu = sum(run.values for run in runs), sum(run.cpu_seconds for run in runs)
        rows.append({
            "suite": suite, "runs": len(runs), "seeds": sorted(run.seed for run in runs),
            "cases": sum(run.cases for run in runs), "values": values, "cycles": sum(run.cycles for run in runs),
            "records": sum(run.records for run in runs), "failures": sum(len(run.failures) for run in runs),
            "cpu_minutes": round(cpu / 60, 1), "values_a_cpu_minute": round(60 * values / cpu) if cpu else None,
        })  # fmt: skip
    return rows


def next_seed(entries: Sequence[Entry], suite: str) -> int:
    """The first one behind all that the ledger has of a suite."""
    return max((entry.seed for entry in entries if entry.suite == suite), default=0) + 1


def night(
    ledger: Path,
    out: Path,
    done: Callable[[Report], None],
    names: Sequence[str] = (),
    share: float = 1.0,
    **how: Any,
) -> list[Report]:
    """Run the suites of a night, each with its next seed, and add each to the ledger as it is through.

    Parameters
    ----------
    ledger : the file. out : folder for the lines of the cases, of each suite and seed in one of its own; what is there
        is not run again.
    done : is called with each report.
    names : of the suites; all that take part by default.
    share : of the cases of a night.
    how : see `sim.verify.verify`.

    Raises
    ------
    InputError
        A suite is unknown or takes no part; the ledger is damaged.
    """
    part = [name for name, suite in SUITES.items() if suite.night]
    if wrong := [name for name in names if name not in part]:
        raise InputError(f"{wrong[0]} is no suite of the night; expected some of {', '.join(part)}")
    reports = []
    for name in names or part:
        seed, began_at = next_seed(read(ledger), name), commit()
        folder = out / f"{name}-{seed}-{kit().rpartition('+')[2]}"
        cases = max(1, round(share * SUITES[name].night))
        report = verify(name, seed, trials=cases, out=folder, resume=folder.exists(), **how)
        append(ledger, entry_of(report, began_at))
        done(report)
        reports.append(report)
    return reports
