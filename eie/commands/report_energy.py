"""``eie report energy``: what a run of a network takes, in pJ by part of the array."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eie.options import CLOCK, FiniteRange, example, json_option
from eie.output import Output, check_writable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiler.network import Network

__all__ = ["energy"]


@click.command(
    epilog=example(
        "eie report energy net.eie --input x.npy",
        "eie report energy net.eie --density 0.35 --clock 500 --table my-process.toml --json",
        "eie report energy --layers Alex-7,NT-LSTM --preset EIE_64",
    ),
    short_help="Energy of a network: exact counts of accesses times published figures.",
)
@click.argument("files", metavar="[NET.eie]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--input", "source", metavar="X.npy", type=click.Path(path_type=Path),
              help="Batch of the one network, as for eie run. Without it the input is random.")  # fmt: skip
@click.option("--density", type=FiniteRange(0, 1), default=0.35, show_default=True,
              help="Share of a random input that is not zero.")  # fmt: skip
@click.option("--samples", type=click.IntRange(min=1), default=4, show_default=True, help="Of a random input.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of everything random.")
@click.option("--table", "table_file", metavar="F.toml", type=click.Path(path_type=Path),
              help="Energies of your own process or memories, in place of those of the same name.")  # fmt: skip
@click.option("--clock", "mhz", metavar="MHZ", type=CLOCK, default=800.0,
              show_default=True, help="Clock that power and time are said at.")  # fmt: skip
@click.option("--layers", metavar="NAME,…|all",
              help="Some of the nine layers of the EIE publication, random at their densities.")  # fmt: skip
@click.option("--preset", "presets", metavar="P", multiple=True, default=("EIE_64",), show_default=True,
              help="Array of --layers; may be repeated.")  # fmt: skip
@click.option("-o", "--output", "target", metavar="F.md", type=click.Path(path_type=Path),
              help="Write a summary in Markdown.")  # fmt: skip
@json_option
def energy(
    files: tuple[Path, ...],
    source: Path | None,
    density: float,
    samples: int,
    seed: int,
    table_file: Path | None,
    mhz: float,
    layers: str | None,
    presets: tuple[str, ...],
    target: Path | None,
    json_to: str | None,
) -> None:
    """Say what a run of NET.eie takes: pJ by part of the array, nJ a sample, power, and what decides it.

    Reads, writes, products and cycles are counted exactly, by the models that equal the hardware; what one of them
    takes are published figures at 45 nm, scaled to the memories of the array. Every figure is printed with its source.
    Beside it stands the same network dense, its weights in SRAM or in DRAM. docs/energy.md says what is left out.
    """
    output = Output(json_to)
    if not files and layers is None:
        raise click.UsageError("nothing to report on; expected NET.eie, or --layers")
    if source is not None and len(files) != 1:
        raise click.UsageError(f"--input belongs to one network; {len(files)} are given")
    if target is not None:
        check_writable(target, "--output")

    from compiler.files import write_file
    from eie.energytext import markdown, show
    from eie.inputs import compiled_inputs
    from sim.energy import report
    from sim.energy_table import load_table

    table = load_table(table_file)
    entries: list[dict[str, Any]] = []
    for file in files:
        network, x, given = compiled_inputs(file, source, density, samples, seed)
        with output.patience(f"{file}: counting"):
            entries.append({"name": file.stem, "input": given, **report(network, x, table, mhz)})
        show(output, entries[-1])
    for preset in presets if layers is not None else ():
        for name, network, x, published in _of_layers(str(layers), preset, seed):
            with output.patience(f"{name} on {preset}: counting"):
                found = report(network, x, table, mhz)
            entries.append({"name": name, "preset": preset, "input": f"random, seed {seed}", **found, **published})
            if len(entries) == 1:
                show(output, entries[-1])
    _show_layers(output, entries, mhz)
    if target is not None:
        write_file(target, markdown(entries, table).encode())
        output.text(f"summary: {target}")
    output.result({"table": table.name, "reports": entries})


def _of_layers(layers: str, preset: str, seed: int) -> Iterator[tuple[str, Network, Any, dict[str, Any]]]:
    """The layers of the publication on an array, with what it says of them."""
    from compiler.lower.pipeline import compile_graph
    from eie.commands.bench_eie import shapes
    from eie.options import make_params
    from sim.benchmarks.layers import make_case
    from sim.energy import EIE_ARRAY_MW

    params, options = make_params(preset, ())
    for shape in shapes(layers):
        case = make_case(shape, seed)
        network = compile_graph(case.graph, params, case.x, options)
        nj = EIE_ARRAY_MW * shape.paper_us
        yield shape.name, network, case.x, {"published": {"mw": EIE_ARRAY_MW, "us": shape.paper_us, "nj": nj}}


def _show_layers(output: Output, entries: list[dict[str, Any]], mhz: float) -> None:
    """The layers of the publication beside what it says of them."""
    from eie.energytext import PUBLISHED_COLUMNS, published_rows

    if rows := published_rows(entries):
        output.table(PUBLISHED_COLUMNS, rows, title=f"layers of the publication, a vector, at {mhz:g} MHz")
