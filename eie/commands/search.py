"""``eie search``: fields of a recipe and of the array, chosen by error, cycles, energy and bytes."""

from __future__ import annotations

from pathlib import Path

import click

from eie.commands.experiment import show
from eie.options import check_tensorboard, example, json_option, tensorboard_option
from eie.output import Output, check_writable_folder


@click.command(
    epilog=example(
        "eie search recipes/search/digits.toml -o build/search",
        "eie search recipes/search/digits.toml -o build/search --jobs 2 --resume",
        "eie search recipes/search/asha.toml -o build/asha --rtl 0 --json",
    ),
    short_help="Search fields of a recipe, by error and cost on the array.",
)
@click.argument("recipe", metavar="RECIPE.toml", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", metavar="OUT/", required=True, type=click.Path(path_type=Path),
              help="Folder of the search: search.db, the best trainings, report; may be new.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True,
              help="Processes; no more trials at once than search.ahead.")  # fmt: skip
@click.option("--cluster", metavar="ADDRESS",
              help="Trials run on this Ray cluster; local: on one of --jobs workers here.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with the same search, which may have more trials now.")
@click.option("--rtl", metavar="N", type=click.IntRange(min=0), default=1, show_default=True,
              help="Run so many of the best (ends of the front) as Verilog; cycles must be those counted.")  # fmt: skip
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder with the files of the data set.")
@tensorboard_option
@json_option
def search(
    recipe: Path, folder: Path, jobs: int, cluster: str | None, resume: bool, rtl: int, data_dir: Path | None,
    tensorboard: Path | None, json_to: str | None,
) -> None:  # fmt: skip
    """Vary fields of a recipe, and of the array, as its table [search] says; writes OUT/report.json and OUT/report.md.

    A trial is a training as of `eie train`, and costs what `eie cost` says. Optuna proposes (TPE, CMA-ES, NSGA-II),
    and ends trainings that go worse than others (ASHA). The same search gives the same trials with any number of
    processes, and after a kill. `eie watch OUT/` shows how it goes; Optuna's own tools read OUT/search.db.
    """
    output = Output(json_to)
    check_writable_folder(folder, "--output")
    check_tensorboard(tensorboard)

    from sim.search.run import run_search
    from sim.search.spec import load

    wanted = load(recipe)
    with output.stages() as stages:
        report = run_search(
            wanted, folder, jobs=jobs, cluster=cluster, resume=resume, rtl=rtl, progress=stages, data_dir=data_dir,
            tensorboard=tensorboard,
        )  # fmt: skip
    show(report, output)
    output.text(f"{report['cpu_seconds']:,.0f} CPU seconds; {folder}/report.md")
    output.result(report)
