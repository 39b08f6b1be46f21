"""``eie train``: train and compress a network as a recipe says."""

from __future__ import annotations

from pathlib import Path

import click

from eie.options import example, json_option, tensorboard_option
from eie.output import Output, check_writable_folder


@click.command(
    epilog=example(
        "eie train recipes/digits.toml -o build/run",
        "eie train recipes/digits.toml -o build/run --resume",
        "eie train recipes/lenet-300-100.toml -o build/lenet --seeds",
    ),
    short_help="Train, prune and weight-share a network.",
)
@click.argument("recipe", metavar="RECIPE.toml", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", metavar="RUN/", required=True, type=click.Path(path_type=Path),
              help="Folder of the run: checkpoints, network, report; may be new.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Instead of the recipe's seed.")
@click.option("--seeds", is_flag=True, help="Train every seed that the recipe lists, each in RUN/seed-N.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run of the same recipe stopped.")
@tensorboard_option
@json_option
def train(
    recipe: Path, folder: Path, seed: int | None, seeds: bool, resume: bool, tensorboard: Path | None,
    json_to: str | None,
) -> None:  # fmt: skip
    """Train, prune and weight-share a network; writes RUN/model.safetensors, RUN/model.eiez and RUN/report.json.

    With --seeds, RUN/summary.json and RUN/summary.md hold the mean and the worst figures of all seeds. `eie watch RUN/`
    shows how it goes meanwhile.
    """
    output = Output(json_to)
    check_writable_folder(folder, "--output")
    if seeds and seed is not None:
        raise click.UsageError("--seeds trains those that the recipe lists; --seed trains one: give one of the two")

    from compiler.train.run import train_recipe

    if seeds:
        _train_all(recipe, folder, resume, tensorboard, output)
        return
    with output.stages() as stages:
        report = train_recipe(recipe, folder, resume=resume, progress=stages, seed=seed, tensorboard=tensorboard)
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
    output.text(f"{folder}/model.eiez: {size['file_bytes']:,} bytes, {size['ratio']:.1f} times smaller than float32")
    output.result(report)


def _train_all(recipe: Path, folder: Path, resume: bool, tensorboard: Path | None, output: Output) -> None:
    """Every seed of the recipe, and their table."""
    from compiler.train.seeds import WORST, train_seeds

    with output.stages() as stages:
        summary = train_seeds(recipe, folder, resume=resume, progress=stages, tensorboard=tensorboard)
    rows = [(str(row["seed"]), row) for row in summary["runs"]]
    rows += [("mean", summary["mean"]), ("worst", summary["worst"])]
    output.table(
        ("seed", *(key.replace("_", " ") for key in WORST)),
        [(name, *(round(row[key], 2) for key in WORST)) for name, row in rows],
        title=f"{summary['recipe']}, errors in percent, dense float32 {summary['dense_bytes']:,} bytes",
    )
    output.result(summary)
