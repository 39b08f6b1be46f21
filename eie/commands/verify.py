"""``eie verify``: a regression, sharded over workers, replayable from its seed; the proofs; the ledger of nights."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.core import ParameterSource

from eie.covering import collected, covered, held, whole
from eie.options import FiniteRange, check_tensorboard, example, json_option, tensorboard_option
from eie.output import Output, check_writable, check_writable_folder
from eie.verifying import formal, ledger_table, list_suites, mutation, nightly, report_line

FORMAL, MUTATION, NIGHTLY, LEDGER, ALL = "formal", "mutation", "nightly", "ledger", "all"
LEDGER_FILE = Path("docs/results/regressions.jsonl")
TAKES = {
    FORMAL: {"jobs", "timeout", "keep"},
    MUTATION: {"jobs", "seed", "mutants", "blocks", "folder"},
    NIGHTLY: {"jobs", "cluster", "folder", "ledger", "share"},
    LEDGER: {"ledger"},
    ALL: {"jobs", "seed", "coverage"},
}
"""Options of what is no suite; a suite takes those of `OF_SUITES`."""
OF_SUITES = {"jobs", "cluster", "folder", "ledger", "seed", "cases", "resume", "coverage", "tensorboard"}


@click.command(
    epilog=example(
        "eie verify --list",
        "eie verify rtl --seed 7 --jobs 2",
        "eie verify networks --seed 3 --cases 50 -o build/networks-3 --resume",
        "eie verify networks --seed 4 --cluster 192.0.2.7:6379 -o build/networks-4",
        "eie verify nightly --jobs 2 -o build/nightly",
        "eie verify ledger",
        "eie verify port --cases 3",
        "eie verify netlist",
        "eie verify all --coverage build/coverage --jobs 2",
        "eie verify formal --list",
        "eie verify formal axi-lite-protocol Expander --jobs 2",
        "eie verify mutation --blocks scan,window --mutants 200 --jobs 2",
    )
)
@click.argument("suite", required=False)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of everything that is random.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes to share the work.")
@click.option(
    "--cluster", metavar="ADDRESS", help="Run the cases on a Ray cluster; local starts one of --jobs workers here."
)
@click.option("--cases", type=click.IntRange(min=1), help="How many; by default all of the suite.")
@click.option(
    "-o", "--output", "folder", metavar="DIR/", type=click.Path(path_type=Path),
    help="Folder for a line of JSON for each case, and the summary.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Cases that have a line in DIR are not run again.")
@click.option(
    "--ledger", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help=f"Add the run to this ledger; nightly and ledger have {LEDGER_FILE}.",
)  # fmt: skip
@click.option(
    "--share", type=FiniteRange(min=0, min_open=True), default=1.0, show_default=True,
    help="Of the cases of a night (nightly).",
)  # fmt: skip
@click.option("--list", "names_only", is_flag=True, help="Name the suites; with formal, the properties.")
@click.option(
    "--timeout", type=FiniteRange(min=1), default=600, show_default=True, help="Seconds for one proof (formal)."
)
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), default=Path("build/formal"), show_default=True,
    help="Folder for log and waveform of what fails (formal).",
)  # fmt: skip
@click.option(
    "--coverage", type=click.Path(path_type=Path), metavar="DIR/",
    help="Count coverage of the hardware's source, and write pages into this folder (suites in Verilator).",
)  # fmt: skip
@click.option(
    "--mutants", type=click.IntRange(min=1), help="How many; by default those of a whole campaign (mutation)."
)
@click.option("--blocks", help="Of these files of hw, with commas between; by default of all (mutation).")
@tensorboard_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context, suite: str | None, names: tuple[str, ...], seed: int, jobs: int, cluster: str | None,
    cases: int | None, folder: Path | None, resume: bool, ledger: Path | None, share: float, names_only: bool,
    timeout: float, keep: Path, coverage: Path | None, mutants: int | None, blocks: str | None,
    tensorboard: Path | None, json_to: str | None,
) -> None:  # fmt: skip
    """Run the regression SUITE. Ends with 1 if a check fails; the same seed gives the same run again.

    The suite "formal" proves properties of the blocks of the hardware for all inputs, each with planted faults that
    must be found and covers that must be reached. NAME is a property or a block; by default all are proved.

    "mutation" changes single bits of the hardware, and says what sees each change: a regression, or a proof that
    nothing is different. What it finds is kept in DIR (build/mutation), and a run that was broken off goes on there.

    "nightly" runs the suites of a night (those of NAME, or all that take part), each with the seed behind the last one
    in the ledger, and adds what was compared to the ledger. "ledger" prints the ledger's sums.

    `eie watch DIR/` shows how a suite with -o DIR goes meanwhile.

    With --coverage, lines, branches, expressions and toggles of hw/*.py are counted, and functional bins
    (docs/coverage.md). The suite "all" also ends with 1 if one is neither reached nor waived.
    """
    output = Output(json_to)
    if names_only:
        list_suites(output, suite == FORMAL)
        return
    if suite is None and ledger:
        suite = LEDGER
    if suite is None:
        raise click.UsageError("name a suite; eie verify --list names them all")
    given = {
        name for name in ("seed", "jobs", "cluster", "cases", "folder", "resume", "ledger", "share", "timeout", "keep",
                          "coverage", "mutants", "blocks", "tensorboard")
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }  # fmt: skip
    if wrong := given - TAKES.get(suite, OF_SUITES):
        name = min(wrong)
        raise click.UsageError(f"--{'output' if name == 'folder' else name} means nothing to the suite {suite}")
    if folder is not None:
        check_writable_folder(folder, "--output")
    if coverage is not None:
        check_writable_folder(coverage, "--coverage")
    if suite != LEDGER and (ledger or suite == NIGHTLY):
        _check_ledger(ledger or LEDGER_FILE)
    if suite == FORMAL:
        passed = formal(output, names, jobs, timeout, keep)
    elif suite == MUTATION and not names:
        chosen = tuple(blocks.split(",")) if blocks else ()
        passed = mutation(output, folder or Path("build/mutation"), mutants, seed, chosen, jobs)
    elif suite == NIGHTLY:
        passed = nightly(output, names, jobs, cluster, folder or Path("build/nightly"), ledger or LEDGER_FILE, share)
    elif names:
        raise click.UsageError(f"{' '.join(names)}: names are for the suites {FORMAL} and {NIGHTLY} only")
    elif suite == ALL:
        if coverage is None:
            raise click.UsageError("the suite all runs covered arrays: name a folder with --coverage")
        with held(coverage):
            passed = whole(output, coverage, seed, jobs)
    elif suite == LEDGER:
        passed = ledger_table(output, ledger or LEDGER_FILE)
    else:
        passed = _suite(output, suite, seed, jobs, cluster, cases, folder, resume, ledger, coverage, tensorboard)
    ctx.exit(0 if passed else 1)


def _check_ledger(ledger: Path) -> None:
    """Refuse a ledger that cannot be added to, before the work whose result it would hold."""
    if not ledger.is_file():
        check_writable(ledger, "--ledger")
    elif not os.access(ledger, os.W_OK):
        raise click.UsageError(f"--ledger {ledger} may not be written")


def _suite(
    output: Output, suite: str, seed: int, jobs: int, cluster: str | None, cases: int | None, folder: Path | None,
    resume: bool, ledger: Path | None, coverage: Path | None, tensorboard: Path | None,
) -> bool:  # fmt: skip
    from sim import nights
    from sim.verify import SUITES, suites
    from sim.verify import verify as run_suite

    known = suites()
    if suite not in known:
        raise click.UsageError(
            f"unknown suite {suite!r}; expected one of {', '.join([*known, ALL, FORMAL, MUTATION, NIGHTLY, LEDGER])}"
        )
    if resume and folder is None:
        raise click.UsageError("--resume goes on in the folder of a regression; name it with -o DIR")
    if coverage is not None and SUITES[suite].engine != "rtl":
        raise click.UsageError(f"--coverage means nothing to the suite {suite}: it does not run in Verilator")
    if coverage is not None and cluster:
        raise click.UsageError("--coverage adds up what runs on this machine; leave out --cluster")
    if coverage is not None and resume:
        raise click.UsageError("--coverage counts what runs, with --resume only part of the cases; leave one out")
    if coverage is not None and folder is not None and coverage.resolve() == folder.resolve():
        raise click.UsageError(f"--output and --coverage are both {folder}; name two folders")
    check_tensorboard(tensorboard)
    began_at = ""
    if ledger:
        nights.check_new(ledger, suite, seed)
        began_at = nights.commit()
    with held(coverage):
        with collected(coverage), output.progress(suite) as progress:
            report = run_suite(
                suite, seed=seed, jobs=jobs, progress=progress, trials=cases, told=output.note, cluster=cluster,
                out=folder, resume=resume, tensorboard=tensorboard,
            )  # fmt: skip
        report_line(output, report)
        result = report.asdict()
        if coverage is not None:
            result["coverage"] = covered(output, coverage, f"{suite}, seed {seed}: {report.trials:,} cases")
    output.result(result)
    if ledger:
        nights.append(ledger, nights.entry_of(report, began_at))
    return report.passed
