"""``eie verify``: a regression, sharded over processes, replayable from its seed; and the proofs."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from eie.options import example, json_option
from eie.output import Output

FORMAL = "formal"
ALL = "all"
RAW = "raw"
"""Folder in that of --coverage, for what is merged."""


def _list(suite: str | None) -> None:
    if suite == FORMAL:
        from sim.formal.table import CLAIMS

        for claim in CLAIMS:
            bound = f" (first {claim.bound} cycles)" if claim.bound else ""
            click.echo(f"{claim.name:22}  {claim.block}: {claim.text}{bound}")
        return
    from sim.verify import suites

    others = {
        ALL: "all of the RTL on small covered arrays, with --coverage",
        FORMAL: "properties of the hardware, proved for all inputs",
    }
    for name, description in {**suites(), **others}.items():
        click.echo(f"{name:12}  {description}")


@click.command(
    epilog=example(
        "eie verify --list",
        "eie verify rtl --seed 7 --jobs 2",
        "eie verify networks --seed 3 --cases 50",
        "eie verify all --coverage build/coverage --jobs 2",
        "eie verify formal --list",
        "eie verify formal axi-lite-protocol Expander --jobs 2",
    )
)
@click.argument("suite", required=False)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of everything that is random.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes to share the work.")
@click.option("--cases", type=click.IntRange(min=1), help="How many; by default all of the suite.")
@click.option("--list", "names_only", is_flag=True, help="Name the suites; with formal, the properties.")
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=600, show_default=True, help="Seconds for one proof (formal)."
)
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), default=Path("build/formal"), show_default=True,
    help="Folder for log and waveform of what fails (formal).",
)  # fmt: skip
@click.option(
    "--coverage", type=click.Path(file_okay=False, path_type=Path),
    help="Count coverage of the hardware's source, and write pages into this folder (suites in Verilator).",
)  # fmt: skip
@json_option
@click.pass_context
def verify(
    ctx: click.Context, suite: str | None, names: tuple[str, ...], seed: int, jobs: int, cases: int | None,
    names_only: bool, timeout: float, keep: Path, coverage: Path | None, json_to: str | None,
) -> None:  # fmt: skip
    """Run the regression SUITE. Ends with 1 if a check fails; the same seed gives the same run again.

    The suite "formal" proves properties of the blocks of the hardware for all inputs, each with planted faults that
    must be found and covers that must be reached. NAME is a property or a block; by default all are proved.

    With --coverage, lines, branches, expressions and toggles of hw/*.py are counted, and functional bins
    (docs/coverage.md). The suite "all" ends with 1 if one is neither reached nor waived, too.
    """
    if names_only:
        _list(suite)
        return
    if suite is None:
        raise click.UsageError("name a suite; eie verify --list names them all")
    given = {
        name for name in ("seed", "cases", "timeout", "keep")
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }  # fmt: skip
    if coverage is not None:
        given.add("coverage")
    wrong = given & (
        {"seed", "cases", "coverage"} if suite == FORMAL
        else {"timeout", "keep", "cases"} if suite == ALL else {"timeout", "keep"}
    )  # fmt: skip
    if wrong:
        raise click.UsageError(f"--{min(wrong)} means nothing to the suite {suite}")
    if suite == FORMAL:
        _formal(ctx, names, jobs, timeout, keep, json_to)
        return
    if suite == ALL:
        if names:
            raise click.UsageError(f"{' '.join(names)}: names are for the suite {FORMAL} only")
        if coverage is None:
            raise click.UsageError("the suite all runs covered arrays: name a folder with --coverage")
        _all(ctx, seed, jobs, coverage, json_to)
        return
    output = Output(json_to)

    from sim.verify import SUITES, suites
    from sim.verify import verify as run_suite

    known = suites()
    if suite not in known:
        raise click.UsageError(f"unknown suite {suite!r}; expected one of {', '.join([*known, ALL, FORMAL])}")
    if names:
        raise click.UsageError(f"{' '.join(names)}: names are for the suite {FORMAL} only")
    if coverage is not None and SUITES[suite].engine != "rtl":
        raise click.UsageError(f"--coverage means nothing to the suite {suite}: it does not run in Verilator")
    with _collecting(coverage), output.progress(suite) as progress:
        report = run_suite(suite, seed=seed, jobs=jobs, progress=progress, trials=cases, told=output.note)
    for failure in report.failures:
        output.text(f"case {failure.seed}: {failure.what}")
    output.text(
        f"{'passed' if report.passed else 'FAILED'}: {suite}, seed {seed}: {report.trials:,} cases, {report.values:,} "
        f"values, {report.records:,} layer records over {report.cycles:,} cycles; {len(report.failures):,} cases differ"
    )
    result = report.asdict()
    if coverage is not None:
        head = f"{suite}, seed {seed}: {report.trials:,} cases"
        result["coverage"] = _covered(output, coverage, head)
    output.result(result)
    ctx.exit(0 if report.passed else 1)


def _collecting(folder: Path | None) -> AbstractContextManager[None]:
    """Collect coverage in the folder, emptied of what an earlier run collected; nothing without one."""
    if folder is None:
        return nullcontext()

    from eie.output import check_writable_folder
    from sim.rtl.collect import collecting

    check_writable_folder(folder, "--coverage")
    raw = folder / RAW
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir(parents=True)
    return collecting(raw)


def _covered(output: Output, folder: Path, head: str, whole: bool = False) -> dict[str, Any]:
    """Merge, write pages, and say what came out; with `whole`, all that is missing."""
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
    output.text()
    output.table(("bin", "count"), [(name, count) for name, count in report.bins.items() if count or whole])
    if whole:
        for problem in report.problems:
            output.text(f"open: {problem}")
    output.text(f"pages: {index}")
    return report.asdict()


def _all(ctx: click.Context, seed: int, jobs: int, folder: Path, json_to: str | None) -> None:
    output = Output(json_to)

    from sim.coverage.campaign import run_campaign

    with _collecting(folder), output.progress(ALL) as progress:
        campaign = run_campaign(folder / RAW, seed, jobs, progress, output.note)
    for array, kind, case_seed, what in campaign.failures:
        output.text(f"{array}, {kind}, case {case_seed}: {what}")
    cases = sum(campaign.cases.values())
    head = f"{ALL}, seed {seed}: {cases:,} cases, {campaign.values:,} values over {campaign.cycles:,} cycles"
    found = _covered(output, folder, head, whole=True)
    passed = not campaign.failures and not found["problems"]
    output.text(
        f"{'passed' if passed else 'FAILED'}: {head}; {len(campaign.failures):,} cases differ, "
        f"{len(found['problems']):,} open points, bins and waivers"
    )
    output.result({"seed": seed, "cases": dict(campaign.cases), "failures": campaign.failures, "passed": passed,
                   "coverage": found})  # fmt: skip
    ctx.exit(0 if passed else 1)


def _formal(
    ctx: click.Context, names: tuple[str, ...], jobs: int, timeout: float, keep: Path, json_to: str | None
) -> None:
    output = Output(json_to)

    from sim.formal.check import Result, check
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

    with output.progress(FORMAL) as progress:
        report = check(claims, jobs, timeout, keep, progress, line)
    proved = sum(result.passed for result in report.results)
    bugs = sum(len(claim.bugs) for claim in claims)
    found = sum(result.found for result in report.results)
    output.text(
        f"{'passed' if report.passed else 'FAILED'}: {proved} of {len(claims)} properties proved, all covers of these "
        f"reached; planted faults found: {found} of {bugs}"
    )
    output.result(report.asdict())
    ctx.exit(0 if report.passed else 1)
