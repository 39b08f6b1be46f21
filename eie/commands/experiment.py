"""``eie experiment``: run a published comparison on real data, by recipe, and write its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from eie.options import check_tensorboard, example, json_option, tensorboard_option
from eie.output import Output, check_writable_folder


@click.command(
    epilog=example(
        "eie experiment recipes/experiments/small/quantization.toml -o build/quantization",
        "eie experiment recipes/experiments/dsd.toml -o build/dsd --jobs 2 --resume",
    ),
    short_help="Run an experiment by recipe: table, plots, findings.",
)
@click.argument("recipe", metavar="RECIPE.toml", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", metavar="OUT/", required=True, type=click.Path(path_type=Path),
              help="Folder of report, plots and trials; may be new.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Trials at once.")
@click.option("--resume", is_flag=True, help="Keep finished trials of the same recipe and run the others.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder with the files of the data set.")
@tensorboard_option
@json_option
def experiment(
    recipe: Path, folder: Path, jobs: int, resume: bool, data_dir: Path | None, tensorboard: Path | None,
    json_to: str | None,
) -> None:  # fmt: skip
    """Run every trial of an experiment; writes OUT/report.json, OUT/report.md and plots as PNG and SVG.

    Each trial runs on one thread and depends on its settings and seed alone; each finished one is kept in OUT/trials.
    `eie watch OUT/` shows how it goes meanwhile.
    """
    output = Output(json_to)
    check_writable_folder(folder, "--output")
    check_tensorboard(tensorboard)

    from compiler.experiments import load
    from compiler.experiments.runner import run_experiment
    from sim.search.kinds import KINDS

    wanted = load(recipe, KINDS)
    with output.stages() as stages:
        report = run_experiment(
            wanted, folder, jobs=jobs, resume=resume, progress=stages, data_dir=data_dir, tensorboard=tensorboard
        )
    show(report, output)
    output.text(f"{report['cpu_seconds']:,.0f} CPU seconds; {folder}/report.md")
    output.result(report)


def show(report: Mapping[str, Any], output: Output) -> None:
    """Tables and findings of a report, for people."""
    for table in report["tables"]:
        rows = [[round(cell, 4) if isinstance(cell, float) else cell for cell in row] for row in table["rows"]]
        output.table(table["columns"], rows, title=table["title"])
    for finding in report["findings"]:
        output.text(f"- {finding}")
