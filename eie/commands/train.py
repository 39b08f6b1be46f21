"""``eie train``: train and compress a network as a recipe says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from eie.options import example, json_option
from eie.output import Output, check_writable_folder


@click.command(epilog=example("eie train recipes/digits.toml -o build/run", "eie train recipes/digits.toml -o build/run --resume"))
@click.argument("recipe", metavar="RECIPE.toml", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", metavar="RUN/", required=True, type=click.Path(path_type=Path))
@click.option("--resume", is_flag=True, help="Go on where an interrupted run of the same recipe stopped.")
@json_option
def train(recipe: Path, folder: Path, resume: bool, json_to: str | None) -> None:
    """Train, prune and weight-share a network; writes RUN/model.safetensors and RUN/report.json."""
    output = Output(json_to)
    check_writable_folder(folder, "--output")

    from compiler.train.run import train_recipe

    report: Any = train_recipe(recipe, folder, resume, output.note)
    output.result(report)
