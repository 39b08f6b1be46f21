"""``eie train``: train and compress a network as a recipe says."""

from __future__ import annotations

from pathlib import Path

import click

from eie.options import example, json_option
from eie.output import Output, check_writable_folder


@click.command(
    epilog=example("eie train recipes/digits.toml -o build/run", "eie train recipes/digits.toml -o build/run --resume"),
    short_help="Train, prune and weight-share a network.",
)
@click.argument("recipe", metavar="RECIPE.toml", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", metavar="RUN/", required=True, type=click.Path(path_type=Path))
@click.option("--resume", is_flag=True, help="Go on where an interrupted run of the same recipe stopped.")
@json_option
def train(recipe: Path, folder: Path, resume: bool, json_to: str | None) -> None:
    """Train, prune and weight-share a network; writes RUN/model.safetensors and RUN/report.json."""
    output = Output(json_to)
    check_writable_folder(folder, "--output")

    from compiler.train.run import train_recipe

    with output.stages() as stages:
        report = train_recipe(recipe, folder, resume=resume, progress=stages)
    output.table(
        ("stage", "epochs", "seconds", "validation %", "test %"),
        [
            (
                stage["stage"], stage["epochs"], stage["seconds"], 100 * stage["accuracy"]["validation"],
                100 * stage["accuracy"]["test"],
            )
            for stage in report["stages"]
        ],
    )  # fmt: skip
    size = report["size"]
    output.text(f"{size['nonzeros']:,} of {size['weights']:,} weights are left ({size['density']:.1%}); run: {folder}")
    output.result(report)
