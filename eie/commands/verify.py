"""``eie verify``: a regression, sharded over processes, replayable from its seed."""

from __future__ import annotations

import click

from eie.options import example, json_option
from eie.output import Output


def _list_suites(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from sim.verify import suites

    for name, description in suites().items():
        click.echo(f"{name:12}  {description}")
    ctx.exit()


@click.command(
    epilog=example("eie verify --list", "eie verify rtl --seed 7 --jobs 2", "eie verify networks --seed 3 --cases 50")
)
@click.argument("suite")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of everything that is random.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes to share the work.")
@click.option("--cases", type=click.IntRange(min=1), help="How many; by default all of the suite.")
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_suites, help="Name the suites.")
@json_option
@click.pass_context
def verify(ctx: click.Context, suite: str, seed: int, jobs: int, cases: int | None, json_to: str | None) -> None:
    """Run the regression SUITE. Ends with 1 if a check fails; the same seed gives the same run again."""
    output = Output(json_to)

    from sim.verify import suites
    from sim.verify import verify as run_suite

    known = suites()
    if suite not in known:
        raise click.UsageError(f"unknown suite {suite!r}; expected one of {', '.join(known)}")
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
