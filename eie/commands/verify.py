"""``eie verify``: a regression, sharded over processes, replayable from its seed; and the proofs."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from eie.options import example, json_option
from eie.output import Output

FORMAL = "formal"
MUTATION = "mutation"


def _list(suite: str | None) -> None:
    if suite == FORMAL:
        from sim.formal.table import CLAIMS

        for claim in CLAIMS:
            bound = f" (first {claim.bound} cycles)" if claim.bound else ""
            click.echo(f"{claim.name:22}  {claim.block}: {claim.text}{bound}")
        return
    from sim.verify import suites

    others = {
        FORMAL: "properties of the hardware, proved for all inputs",
        MUTATION: "thousands of faults of one bit in the hardware, each of which something must see",
    }
    for name, description in {**suites(), **others}.items():
        click.echo(f"{name:12}  {description}")


@click.command(
    epilog=example(
        "eie verify --list",
        "eie verify rtl --seed 7 --jobs 2",
        "eie verify networks --seed 3 --cases 50",
        "eie verify formal --list",
        "eie verify formal axi-lite-protocol Expander --jobs 2",
        "eie verify mutation --blocks scan,window --mutants 200 --jobs 2",
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
    "--keep", type=click.Path(file_okay=False, path_type=Path), show_default="build/SUITE",
    help="Folder for log and waveform of what fails (formal), or for results, with which a run goes on (mutation).",
)  # fmt: skip
@click.option(
    "--mutants", type=click.IntRange(min=1), default=5300, show_default=True, help="About how many (mutation)."
)
@click.option("--blocks", help="Of these blocks, files of hw with commas between; by default of all (mutation).")
@json_option
@click.pass_context
def verify(
    ctx: click.Context, suite: str | None, names: tuple[str, ...], seed: int, jobs: int, cases: int | None,
    names_only: bool, timeout: float, keep: Path | None, mutants: int, blocks: str | None, json_to: str | None,
) -> None:  # fmt: skip
    """Run the regression SUITE. Ends with 1 if a check fails; the same seed gives the same run again.

    The suite "formal" proves properties of the blocks of the hardware for all inputs, each with planted faults that
    must be found and covers that must be reached. NAME is a property or a block; by default all are proved.

    The suite "mutation" changes single bits of the hardware, and says what sees each change: a regression, or a proof
    that it changes nothing. What was found is kept, and a run that was broken off goes on with it.
    """
    if names_only:
        _list(suite)
        return
    if suite is None:
        raise click.UsageError("name a suite; eie verify --list names them all")
    options = {
        FORMAL: {"timeout", "keep"}, MUTATION: {"seed", "keep", "mutants", "blocks"},
    }.get(suite, {"seed", "cases"})  # fmt: skip
    given = {
        name for name in ("seed", "cases", "timeout", "keep", "mutants", "blocks")
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }  # fmt: skip
    if wrong := given - options:
        raise click.UsageError(f"--{min(wrong)} means nothing to the suite {suite}")
    if suite == FORMAL:
        _formal(ctx, names, jobs, timeout, keep or Path("build/formal"), json_to)
        return
    if names:
        raise click.UsageError(f"{' '.join(names)}: names are for the suite {FORMAL} only")
    if suite == MUTATION:
        chosen = tuple(blocks.split(",")) if blocks else ()
        _mutation(ctx, keep or Path("build/mutation"), mutants, seed, chosen, jobs, json_to)
        return
    output = Output(json_to)

    from sim.verify import suites
    from sim.verify import verify as run_suite

    known = suites()
    if suite not in known:
        raise click.UsageError(f"unknown suite {suite!r}; expected one of {', '.join([*known, FORMAL, MUTATION])}")
    with output.progress(suite) as progress:
        report = run_suite(suite, seed=seed, jobs=jobs, progress=progress, trials=cases, told=output.note)
    for failure in report.failures:
        output.text(f"case {failure.seed}: {failure.what}")
    output.text(
        f"{'passed' if report.passed else 'FAILED'}: {suite}, seed {seed}: {report.trials:,} cases, {report.values:,} "
        f"values, {report.records:,} layer records over {report.cycles:,} cycles; {len(report.failures):,} cases differ"
    )
    output.result(report.asdict())
    ctx.exit(0 if report.passed else 1)


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


def _mutation(
    ctx: click.Context, keep: Path, count: int, seed: int, blocks: tuple[str, ...], jobs: int, json_to: str | None
) -> None:
    output = Output(json_to)

    from sim.mutation.campaign import begin

    campaign = begin(keep, count, seed, blocks, told=output.note)
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
    ctx.exit(0 if report["passed"] else 1)
