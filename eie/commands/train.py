"""``eie train``: train and compress a network as a recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from eie.options import check_tensorboard, example, json_option, tensorboard_option
from eie.output import Output, check_writable_folder

PARALLEL = ("data", "sharded", "tensor", "data-tensor", "pipeline", "server")
_ONLY = {"micro": "pipeline", "staleness": "server", "servers": "server", "cluster": "server", "overlap": "server"}
"""Option → the way of training that it belongs to."""


def _bound(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    """A bound on staleness; None for "none"."""
    if value == "none":
        return None
    if value.isascii() and value.isdecimal() and len(value) <= 6:
        return int(value)
    raise click.BadParameter(f"{value!r} is no bound; expected 0, 1, 2, … or none", context, parameter)


@click.command(
    epilog=example(
        "eie train recipes/digits.toml -o build/run",
        "eie train recipes/digits.toml -o build/run --resume",
        "eie train recipes/lenet-300-100.toml -o build/lenet --seeds",
        "eie train recipes/distributed/digits.toml -o build/parallel --workers 2 --parallel pipeline",
        "eie train recipes/distributed/digits.toml -o build/server --workers 2 --parallel server --staleness 3",
    ),
    short_help="Train, prune and weight-share a network.",
)
@click.argument("recipe", metavar="RECIPE.toml", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", metavar="RUN/", required=True, type=click.Path(path_type=Path),
              help="Folder of the run: checkpoints, network, report; may be new.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Instead of the recipe's seed.")
@click.option("--seeds", is_flag=True, help="Train every seed that the recipe lists, each in RUN/seed-N.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run of the same recipe stopped.")
@click.option("--workers", type=click.IntRange(1, 1024), help="Train on so many processes of this machine.")
@click.option("--parallel", type=click.Choice(PARALLEL), default="data", show_default=True,
              help="What the workers share: each batch (data; sharded: and each its part of the weights), the Linear "
                   "layers (tensor), both (data-tensor), the sequence of layers (pipeline), or values on a parameter "
                   "server.")  # fmt: skip
@click.option(
    "--micro", type=click.IntRange(1, 4096), default=4, show_default=True, help="Micro-batches of a pipeline."
)
@click.option("--staleness", metavar="S", callback=_bound, default="3", show_default=True,
              help="Clocks by which what is read from a parameter server may be late: 0 is bulk-synchronous, none is "
                   "asynchronous.")  # fmt: skip
@click.option("--servers", type=click.IntRange(1, 1024), default=1, show_default=True, help="Parameter servers.")
@click.option("--overlap", is_flag=True,
              help="Read for the next step from the parameter server, and send the last update, while a step is "
                   "computed.")  # fmt: skip
@click.option(
    "--cluster", metavar="ADDRESS", help="Parameter servers and workers on this Ray cluster.  [default: here]"
)
@tensorboard_option
@json_option
def train(
    recipe: Path, folder: Path, seed: int | None, seeds: bool, resume: bool, workers: int | None, parallel: str,
    micro: int, staleness: int | None, servers: int, overlap: bool, cluster: str | None,
    tensorboard: Path | None, json_to: str | None,
) -> None:  # fmt: skip
    """Train, prune and weight-share a network; writes RUN/model.safetensors, RUN/model.eiez and RUN/report.json.

    With --seeds, RUN/summary.json and RUN/summary.md hold the mean and the worst figures of all seeds. `eie watch RUN/`
    shows how it goes meanwhile.

    With --workers, several processes train a recipe of one dense stage, or one of recipes/distributed.
    """
    output = Output(json_to)
    check_writable_folder(folder, "--output")
    _check_parallel()
    if workers is not None:
        if seeds or seed is not None:
            raise click.UsageError("--workers trains the recipe's seed; leave out --seed and --seeds")
        if tensorboard is not None:
            raise click.UsageError("--tensorboard is for one process; leave out --workers")
        if parallel == "server":
            if overlap and staleness == 0:
                raise click.UsageError(
                    "--overlap reads ahead, and --staleness 0 allows none of it; give 1 or more, or none"
                )
            _train_server(recipe, folder, resume, workers, servers, staleness, overlap, cluster, output)
        else:
            _train_parallel(recipe, folder, resume, workers, parallel, micro, output)
        return
    if seeds and seed is not None:
        raise click.UsageError("--seeds trains those that the recipe lists; --seed trains one: give one of the two")
    check_tensorboard(tensorboard)

    from compiler.train.run import train_recipe

    if seeds:
        _train_all(recipe, folder, resume, tensorboard, output)
        return
    with output.stages() as stages:
        report = train_recipe(recipe, folder, resume=resume, progress=stages, seed=seed, tensorboard=tensorboard)
    _show(report, folder, output)


def _show(report: Mapping[str, Any], folder: Path, output: Output) -> None:
    """A finished run."""
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


def _check_parallel() -> None:
    """Options of several processes are given with --workers, and those of one way with that way."""
    context = click.get_current_context()

    def given(name: str) -> bool:
        return context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT

    if context.params["workers"] is None:
        for name in ("parallel", *_ONLY):
            if given(name):
                raise click.UsageError(f"--{name} is for several processes: say how many with --workers")
    for name, way in _ONLY.items():
        if given(name) and context.params["parallel"] != way:
            raise click.UsageError(f"--{name} is for --parallel {way}; it is {context.params['parallel']}")


def _train_parallel(
    recipe: Path, folder: Path, resume: bool, workers: int, parallel: str, micro: int, output: Output
) -> None:
    """On processes of torch.distributed."""
    from compiler.claim import claimed
    from compiler.train.parallel.finished import finish_job
    from compiler.train.parallel.launch import launch
    from compiler.train.taken import CHECKPOINT, check_free
    from compiler.train.terngrad.job import load

    job = load(recipe)  # what is wrong is said before processes start
    check_free(folder, CHECKPOINT, resume)
    with claimed(folder):
        report = launch(recipe, folder, workers, parallel, micro=micro, resume=resume, told=output.note)
        how = {"way": parallel, "workers": workers, "ternary": report["ternary"]}
        history = [
            {"epoch": row["epoch"], "loss": row["loss_of_rank_0"], "validation": row["validation"]}
            for row in report["history"]
        ]
        finished = finish_job(job, folder, how, history, report["seconds"])
    _show(finished, folder, output)


def _train_server(
    recipe: Path, folder: Path, resume: bool, workers: int, servers: int, staleness: int | None, overlap: bool,
    cluster: str | None, output: Output,
) -> None:  # fmt: skip
    """Over a parameter server."""
    from compiler.clusters import LOCAL
    from compiler.train.consistency.cluster import Settings
    from compiler.train.consistency.run import train_job
    from compiler.train.terngrad.job import load

    job = load(recipe)
    settings = Settings(workers, servers, staleness, seed=job.seed, overlap=overlap)
    with output.progress("updates") as progress:
        report = train_job(job, folder, settings, address=cluster or LOCAL, resume=resume, told=progress)
    how = report["parallel"]
    output.table(("clocks late", "reads"), [(int(lag), count) for lag, count in how["lags"].items()])
    output.text(
        f"{how['reads']:,} reads, each within the bound ({how['staleness']}); {len(how['replaced'])} processes replaced"
    )
    _show(report, folder, output)
