"""``eie bench train``: the small version of every training experiment, in a quarter of an hour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from eie.commands.experiment import show
from eie.options import example, json_option
from eie.output import Output, check_writable_folder

__all__ = ["train"]


@click.command(
    epilog=example("eie bench train --json train.json", "eie bench train --only dsd --only ssl -o build/train"),
    short_help="The small version of every training experiment.",
)
@click.option(
    "--recipes",
    default=Path("recipes/experiments/small"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of the recipes.",
)
@click.option("--only", multiple=True, metavar="NAME", help="One of them; may be repeated.  [default: all]")
@click.option(
    "-o", "--output", "folder", default=Path("build/bench-train"), show_default=True, type=click.Path(path_type=Path),
    help="Folder of the trained networks and reports; may be new.",
)  # fmt: skip
@click.option("--jobs", type=click.IntRange(1, 256), default=2, show_default=True, help="Trials at once.")
@click.option("--resume", is_flag=True, help="Keep finished trials of the same recipes.")
@json_option
def train(recipes: Path, only: tuple[str, ...], folder: Path, jobs: int, resume: bool, json_to: str | None) -> None:
    """Run each experiment of recipes/experiments/small: same code as the full ones, less data and fewer seeds."""
    output = Output(json_to)
    check_writable_folder(folder, "--output")
    found = {path.stem: path for path in sorted(recipes.glob("*.toml"))}
    unknown = [name for name in only if name not in found]
    if unknown or not found:
        raise click.UsageError(
            f"--only {', '.join(unknown)}: expected some of {', '.join(found)}" if found else f"no recipes in {recipes}"
        )

    from compiler.experiments import load
    from compiler.experiments.runner import run_experiment
    from sim.search.kinds import KINDS

    reports: dict[str, Any] = {}
    wanted = {name: load(path, KINDS) for name, path in found.items() if not only or name in only}
    for name, experiment in wanted.items():
        with output.stages() as stages:
            reports[name] = run_experiment(experiment, folder / name, jobs=jobs, resume=resume, progress=stages)
        output.text(f"== {name}: {reports[name]['cpu_seconds']:,.0f} CPU seconds, {folder / name}/report.md")
        show(reports[name], output)
    output.result(reports)
