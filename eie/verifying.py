"""What ``eie verify`` does and prints beside a single suite: proofs, nights, the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from eie.output import Output

if TYPE_CHECKING:
    from sim.formal.check import Result
    from sim.verify import Report

__all__ = ["formal", "ledger_table", "list_suites", "mutation", "nightly", "report_line"]


def list_suites(output: Output, properties: bool) -> None:
    """Names of all suites, or of the properties that are proved."""
    if properties:
        from sim.formal.table import CLAIMS

        texts = {
            claim.name: f"{claim.block}: {claim.text}" + (f" (first {claim.bound} cycles)" if claim.bound else "")
            for claim in CLAIMS
        }
        _list(output, texts, 22)
        return
    from sim.verify import suites

    others = {
        "all": "all of the RTL on a few small arrays, with --coverage",
        "formal": "properties of the hardware, proved for all inputs",
        "mutation": "thousands of faults of one bit in the hardware, each of which something must see",
        "nightly": "suites with seeds that the ledger does not have, and their sums into it",
        "ledger": "what all runs in the ledger compared",
    }
    _list(output, {**suites(), **others}, 12)


def _list(output: Output, texts: dict[str, str], width: int) -> None:
    for name, text in texts.items():
        output.text(f"{name:{width}}  {text}")
    output.result(texts)


def report_line(output: Output, report: Report) -> None:
    """Each failure, and the sums of a regression."""
    for failure in report.failures:
        output.text(f"case {failure.seed}: {failure.what}")
    output.text(
        f"{'passed' if report.passed else 'FAILED'}: {report.suite}, seed {report.seed}: {report.trials:,} cases, "
        f"{report.values:,} values, {report.records:,} layer records over {report.cycles:,} cycles; "
        f"{len(report.failures):,} cases differ"
    )


def nightly(
    output: Output, names: tuple[str, ...], jobs: int, cluster: str | None, folder: Path, ledger: Path, share: float
) -> bool:
    """A night, and the sums after it."""
    from sim import nights

    with output.progress("nightly") as progress:
        reports = nights.night(
            ledger, folder, lambda report: report_line(output, report), names, share, jobs=jobs, cluster=cluster,
            progress=progress, told=output.note,
        )  # fmt: skip
    entries = nights.read(ledger)
    output.text(f"{ledger}: {sum(entry.values for entry in entries):,} of {nights.GOAL:,} values")
    output.result([report.asdict() for report in reports])
    return all(report.passed for report in reports)


def ledger_table(output: Output, path: Path) -> bool:
    """Sums of a ledger, for each suite and in all; whether no case failed."""
    from sim import nights

    if not path.is_file():
        raise click.UsageError(f"there is no ledger {path}; eie verify nightly makes one, --ledger names another")
    entries = nights.read(path)
    rows = nights.totals(entries)
    columns = ("suite", "runs", "cases", "values", "cycles", "records", "failures", "values a CPU minute")
    output.table(
        columns,
        [
            [*(row[name] for name in columns[:-1]), row["values_a_cpu_minute"]]
            for row in rows
        ],
    )  # fmt: skip
    values, failures = (sum(int(row[name]) for row in rows) for name in ("values", "failures"))
    output.text(
        f"{values:,} of {nights.GOAL:,} values ({100 * values / nights.GOAL:.2f} %), {failures:,} cases differ "
        f"in {sum(row['cpu_minutes'] for row in rows):,.0f} CPU minutes"
    )
    output.result({"goal": nights.GOAL, "values": values, "failures": failures, "suites": rows})
    return not failures


def formal(output: Output, names: tuple[str, ...], jobs: int, timeout: float, keep: Path) -> bool:
    """Prove properties; whether all is as it should be."""
    from sim.formal.check import check
    from sim.formal.table import chosen

    claims = chosen(names)
    width = max(len(claim.name) for claim in claims)

    def line(result: Result) -> None:
        claim = result.claim
        how = f"first {claim.bound} cycles" if claim.bound else "all cycles"
        word = "proved" if result.passed else "FAILED"
        output.text(
            f"{word}  {claim.name:{width}}  {how:15}  {result.found} of {len(claim.bugs)} planted faults found  "
            f"{result.seconds:6.1f} s  {claim.block}"
        )
        for text in result.problems:
            output.text(f"        {text}")

    with output.progress("formal") as progress:
        report = check(claims, jobs, timeout, keep, progress, line)
    proved = sum(result.passed for result in report.results)
    bugs = sum(len(claim.bugs) for claim in claims)
    found = sum(result.found for result in report.results)
    output.text(
        f"{'passed' if report.passed else 'FAILED'}: {proved} of {len(claims)} properties proved, all covers of these "
        f"reached; planted faults found: {found} of {bugs}"
    )
    output.result(report.asdict())
    return report.passed


def mutation(output: Output, folder: Path, count: int | None, seed: int, blocks: tuple[str, ...], jobs: int) -> bool:
    """Mutants of the hardware: what sees each, a line for each that nothing explains, and counts by block."""
    from sim.mutation.campaign import COUNT, begin

    with begin(folder, count or COUNT, seed, blocks, told=output.note) as campaign:
        with output.progress("simulation") as progress:
            campaign.simulate(jobs, progress)
        with output.progress("equivalence") as progress:
            campaign.prove(progress)
        report = campaign.asdict()
    for each in report["unexplained"]:
        output.text(f"unexplained  {each['block']:16}  {each['change']}  {' '.join(each['lines'])}")
    for why in report["stale"]:
        output.text(f"no mutant has this reason: {why}")
    for name, row in {**report["blocks"], "all": report["total"]}.items():
        output.text(f"{name:16}  " + ", ".join(f"{count:,} {what}" for what, count in row.items() if count))
    output.text("passed: every mutant is explained" if report["passed"] else "FAILED: mutants without an explanation")
    output.result(report)
    return bool(report["passed"])
