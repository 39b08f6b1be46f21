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
from compiler.files import append_line
from sim.case_file import json_lines
from sim.fields import wrong_fields
from sim.suites import SUITES
from sim.trials import kit
from sim.verify import Report, verify

__all__ = ["GOAL", "Entry", "append", "check_new", "commit", "entry_of", "night", "read", "totals"]

GOAL = 10**9
"""Values to be compared, over all suites and nights."""
MOST = 1000
"""Nights that one night may stand for."""


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


_FIELDS: dict[str, type] = {
    "date": str, "commit": str, "kit": str, "suite": str, "seed": int, "cases": int, "values": int, "cycles": int,
    "records": int, "cpu_seconds": float, "failures": list,
}  # fmt: skip


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
        A line is no entry, or is not ended; two are of the same cases.
    """
    found: list[Entry] = []
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        at = content.count(b"\n") + 1
        raise InputError(f"{path}, line {at} has no end of line: end it if the entry is whole, remove it if it is not")
    for number, plain in enumerate(json_lines(path)[0], 1):
        wrong = wrong_fields(plain, _FIELDS)
        if unknown := [name for name in plain if name not in _FIELDS]:
            wrong = f"nothing is known of {', '.join(unknown)}"
        if not wrong and not all(
            isinstance(each, list) and [type(part) for part in each] == [int, str] for each in plain["failures"]
        ):
            wrong = "failures should be pairs of a seed and a text"
        if wrong:
            raise InputError(f"{path}, line {number} is no run of a regression: {wrong}; mend or remove it")
        entry = Entry(**{**plain, "failures": tuple((seed, what) for seed, what in plain["failures"])})
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
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        check_new(path, entry.suite, entry.seed)
        append_line(path, json.dumps(asdict(entry)))
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
    done : is called with each report, before it is added.
    names : of the suites; all that take part by default.
    share : of the cases of a night.
    how : see `sim.verify.verify`.

    Raises
    ------
    InputError
        A suite is unknown or takes no part; the share is none; the ledger is damaged; the sources were changed.
    """
    if not 0 < share <= MOST:
        raise InputError(f"a share of {share} of a night; expected more than 0, and {MOST} at most")
    part = [name for name, suite in SUITES.items() if suite.night]
    if wrong := [name for name in names if name not in part]:
        raise InputError(f"{wrong[0]} is no suite of the night; expected some of {', '.join(part)}")
    reports = []
    for name in names or part:
        if kit.__wrapped__() != kit():
            raise InputError("the sources were changed since the night began; give the same command again")
        seed, began_at = next_seed(read(ledger), name), commit()
        folder = out / f"{name}-{seed}-{kit().rpartition('+')[2]}"
        cases = max(1, round(share * SUITES[name].night))
        report = verify(name, seed, trials=cases, out=folder, resume=folder.exists(), **how)
        done(report)
        append(ledger, entry_of(report, began_at))
        reports.append(report)
    return reports
