"""``eie bench studies``: what the parameters of the array are worth, as plots."""

from __future__ import annotations

import json
from pathlib import Path

import click

from eie.commands.bench_eie import layers_option, numbers, scale_option, shapes
from eie.options import example
from eie.output import Output, check_writable_folder

__all__ = ["studies"]

STUDIES = ("pes", "depth", "index", "width")
DEFAULT_LAYERS = "Alex-7,VGG-7,NT-We"


@click.command(
    epilog=example(
        "eie bench studies -o studies",
        "eie bench studies -o studies --study pes --full --rtl 1,4,16",
    ),
    short_help="Plots over PE count, queue depth, index width, memory width.",
)
@click.option("-o", "--output", "folder", metavar="DIR", required=True, type=click.Path(path_type=Path),
              help="Folder of the SVG and JSON files; may be new.")  # fmt: skip
@click.option("--study", "chosen", multiple=True, type=click.Choice(STUDIES), help="Only this; may be repeated.")
@layers_option
@click.option("--full", is_flag=True, help=f"All nine layers instead of {DEFAULT_LAYERS}.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of matrices and batches.")
@click.option("--rtl", metavar="N,…|none", default="4", show_default=True, callback=numbers,
              help="PE counts at which the first layer runs in Verilator too.")  # fmt: skip
@scale_option
def studies(
    folder: Path,
    chosen: tuple[str, ...],
    layers: str | None,
    full: bool,
    seed: int,
    rtl: tuple[int, ...],
    scale: int,
) -> None:
    """Vary PE count, queue depth, index width and width of the weight memory; write one SVG and one JSON for each.

    By the cycle model, on the balanced array and on the published one. At the PE counts of --rtl the hardware runs as
    well; ends with 1 if it differs from a model.
    """
    output = Output()
    picked = shapes(layers if layers is not None or full else DEFAULT_LAYERS)
    if not picked:
        raise click.UsageError("--layers none leaves nothing to run; expected at least one layer")
    check_writable_folder(folder, "--output")

    from compiler.files import write_file
    from hw.params import ParamsError
    from sim.benchmarks.plots import plot
    from sim.benchmarks.studies import ARRAYS, PES, means, run_study
    from sim.benchmarks.versions import versions

    if unknown := set(rtl) - set(PES):
        raise ParamsError(f"--rtl {', '.join(map(str, sorted(unknown)))}: expected some of {', '.join(map(str, PES))}")
    folder.mkdir(parents=True, exist_ok=True)
    for study in chosen or STUDIES:
        with output.progress(study) as progress:
            points = run_study(
                study, picked, seed=seed, scale=scale, full=full, rtl=rtl if study == "pes" else (), progress=progress
            )
        document = {
            "study": study,
            "layers": [shape.name for shape in picked],
            "seed": seed,
            "scale": scale,
            "points": [point.asdict() for point in points],
            "versions": versions(),
        }
        write_file(folder / f"{study}.json", (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
        write_file(folder / f"{study}.svg", plot(study, points))
        figures = ("reads", "bits_read") if study == "width" else ("speedup", "efficiency", "load_balance", "padding")
        rows = []
        for array in ARRAYS:
            columns = {
                figure: means(points, array, figure) for figure in figures if any(p.array == array for p in points)
            }
            for n, at in enumerate(next(iter(columns.values()))[0] if columns else []):
                rows.append((array, at, *(f"{values[n]:.4g}" for _, values in columns.values())))
        checked = [point.at for point in points if point.rtl]
        title = f"{study}: mean over {', '.join(shape.name for shape in picked)}"
        output.table(("array", study, *figures), rows, title=title)
        if checked:
            output.text(f"hardware = models in every bit, cycle and counter at {', '.join(map(str, checked))} PEs")
        output.text(f"{folder / study}.svg, {folder / study}.json")
