"""What ``eie verify`` does and prints for ``--coverage``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from eie.output import Output

__all__ = ["collected", "covered", "held", "whole"]

RAW = "eie-coverage"
"""Folder in that of --coverage, for what is merged."""
MARK = "made-by-eie-verify"
"""A file in it that says so: what is in a folder with it may be removed."""


@contextmanager
def held(folder: Path | None) -> Iterator[None]:
    """Hold the folder of --coverage, and remove what an earlier run collected; nothing if there is no folder.

    Raises
    ------
    InputError
        Another process holds it, or it has a folder of that name which no run of ``eie verify`` made.
    """
    from compiler.claim import claimed
    from compiler.errors import InputError

    if folder is None:
        yield
        return
    with claimed(folder):
        raw = folder / RAW
        if raw.is_symlink() or (raw.exists() and not raw.is_dir()):
            raise InputError(f"{raw} is no folder of eie verify --coverage; move it, or choose another folder")
        raw.mkdir(exist_ok=True)
        there = list(raw.iterdir())
        if there and raw / MARK not in there:
            raise InputError(f"{raw} was not made by eie verify --coverage; move it, or choose another folder")
        (raw / MARK).touch()
        for each in there:
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each)
            elif each.name != MARK:
                each.unlink()
        yield


def collected(folder: Path | None) -> AbstractContextManager[None]:
    """Collect coverage in the folder, which is `held`; nothing if there is no folder."""
    if folder is None:
        return nullcontext()

    from sim.rtl.collect import collecting

    return collecting(folder / RAW)


def covered(output: Output, folder: Path, head: str, everything: bool = False) -> dict[str, Any]:
    """Merge, write pages, and say what came out; with `everything`, all that is missing too."""
    from sim.coverage.page import write_pages
    from sim.coverage.points import KINDS
    from sim.coverage.report import report_of

    with output.patience("merging coverage"):
        report = report_of(folder / RAW)
        index = write_pages(report, folder, head)
    output.text()
    output.table(
        ("kind", "reached", "waived", "open", "points", "%"),
        [
            (kind, share.reached, share.waived, share.open, share.total, f"{share.percent:.2f}")
            for kind in KINDS for share in [report.share(kind)]
        ],
    )  # fmt: skip
    output.table(("bin", "count"), [(name, count) for name, count in report.bins.items() if count or everything])
    if everything:
        for problem in report.problems:
            output.text(f"open: {problem}")
    output.text(f"pages: {index}")
    return report.asdict()


def whole(output: Output, folder: Path, seed: int, jobs: int) -> bool:
    """All suites on covered arrays, in a folder that is `held`.

    Returns whether no case differs, every point is reached or waived, and no bin is empty.
    """
    from sim.coverage.campaign import run_campaign

    with output.progress("all") as progress:
        campaign = run_campaign(folder / RAW, seed, jobs, progress, output.note)
    for array, kind, case_seed, what in campaign.failures:
        output.text(f"{array}, {kind}, case {case_seed}: {what}")
    cases = sum(campaign.cases.values())
    head = f"all, seed {seed}: {cases:,} cases, {campaign.values:,} values over {campaign.cycles:,} cycles"
    found = covered(output, folder, head, everything=True)
    passed = not campaign.failures and not found["problems"]
    output.text(
        f"{'passed' if passed else 'FAILED'}: {head}; {len(campaign.failures):,} cases differ, "
        f"{len(found['problems']):,} kinds with open points, empty bins and wrong waivers"
    )
    output.result({"seed": seed, "cases": dict(campaign.cases), "failures": campaign.failures, "passed": passed,
                   "coverage": found})  # fmt: skip
    return passed
