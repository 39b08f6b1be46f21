"""``eie compress-auto``: a network and a target on the array to a trained, compiled network that meets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from eie.commands.experiment import show
from eie.options import FiniteRange, array_options, example, json_option, make_params
from eie.output import Output, check_writable_folder

_MISSED = 1


@click.command(
    "compress-auto",
    epilog=example(
        "eie compress-auto recipes/digits.toml --target cycles=40% -o build/auto",
        "eie compress-auto lenet-5 --data mnist --target bytes=60000 --preset BALANCED_16 -o build/lenet",
        "eie compress-auto mymodels:net --data mydata:load --target cycles=20000 --epochs 0 -o build/mine",
    ),
    short_help="Compress a network to a target in cycles, energy or bytes.",
)
@click.argument("model", metavar="MODEL")
@click.option("--data", metavar="DATA", help="digits, mnist, fashion-mnist, or module:function; a recipe has its own.")
@click.option("--target", "wanted", metavar="KIND=N", required=True,
              help="cycles=N or energy=N (pJ) of a sample, bytes=N in memory; N%: of the dense one's.")  # fmt: skip
@click.option("-o", "--output", "folder", metavar="OUT/", required=True, type=click.Path(path_type=Path),
              help="Folder of networks, trainings and report; may be new.")  # fmt: skip
@array_options
@click.option("--samples", type=click.IntRange(1, 1024), default=4, show_default=True,
              help="On which cycles and energy are measured.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Of the training.  [default: the recipe's, or 1]")
@click.option("--epochs", type=click.IntRange(0, 10_000),
              help="Of a network by name, dense; 0: module:function returns a trained one.  [default: 20]")  # fmt: skip
@click.option("--retrain", type=click.IntRange(1, 10_000),
              help="Epochs of pruning; weights are shared for half as many.  [default: 20]")  # fmt: skip
@click.option("--batch", type=click.IntRange(1, 1 << 16), help="Samples a step.  [default: 64]")
@click.option("--learning-rate", type=FiniteRange(1e-9, 100), help="The greatest.  [default: 0.002]")
@click.option("--code-bits", type=click.IntRange(1, 8),
              help="Bits of shared weights: they change the .eiez file, no cycles.  [default: 4]")  # fmt: skip
@click.option("--accuracy-samples", "counted", type=click.IntRange(min=0), default=200, show_default=True,
              help="Test samples that the compiled networks classify in integers.")  # fmt: skip
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder with the files of the data set.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the same compression, or to another target after the same dense training.",
)
@json_option
def compress_auto(
    model: str, data: str | None, wanted: str, folder: Path, preset: str, settings: tuple[str, ...], samples: int,
    seed: int | None, epochs: int | None, retrain: int | None, batch: int | None, learning_rate: float | None,
    code_bits: int | None, counted: int, data_dir: Path | None, resume: bool, json_to: str | None,
) -> None:  # fmt: skip
    """Compress MODEL until it costs no more on the array than --target says, and as accurate as that goes.

    MODEL is a recipe with one stage that prunes, whose densities are chosen here; the name of a network of recipes; or
    module:function, which returns a torch module. Each layer's loss on validation data and its exact cycles (or energy,
    or bytes) at several densities decide what it keeps. The network is trained, its weights are shared, and it is
    compiled; so is one with a single density for all layers, with the same training, for comparison.

    OUT/ then holds NAME.eie, NAME.eiez, inputs.npy (on which it was timed), report.html, report.json, report.md.
    Exit code 1: the compiled network misses the target, and the report says by how much.
    """
    output = Output(json_to)
    check_writable_folder(folder, "--output")
    params, options = make_params(preset, settings)

    from sim.auto.pipeline import compress_auto as compress
    from sim.auto.plan import recipe_of
    from sim.auto.run import Job
    from sim.auto.target import parse

    target = parse(wanted)
    given = {"epochs": epochs, "retrain": retrain, "batch": batch, "learning_rate": learning_rate,
             "code_bits": code_bits}  # fmt: skip
    training: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    recipe = recipe_of(model, data, training, seed, data_dir)
    job = Job(recipe, target, params, options, samples)
    with output.stages() as stages:
        done = compress(job, folder, resume=resume, progress=stages, data_dir=data_dir, counted=counted)
    page = _page(output, done.network, done.inputs, folder, preset)
    show(done.report, output)
    output.text(f"{done.network}, {done.packed}, {page}")
    output.result(done.report)
    if not done.met:
        raise click.exceptions.Exit(_MISSED)


def _page(output: Output, network: Path, inputs: Path, folder: Path, preset: str) -> Path:
    """The page of `eie report`: the comparison, and all that is known of the network that was found."""
    from compiler.files import write_file
    from eie.reporting import collect
    from sim.pages.page import render

    data = collect(
        output, network, given=inputs, samples=1, counted=0, density=1.0, seed=1, search=folder, table_file=None,
        mhz=800.0, preset=preset, settings=(),
    )  # fmt: skip
    page = folder / "report.html"
    with output.patience("drawing"):
        write_file(page, render(data).encode())
    return page
