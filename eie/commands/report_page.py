"""``eie report NET.eie`` and ``eie report RUN/``: everything that is known of a network, in one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eie.options import CLOCK, FiniteRange, array_options, example, json_option
from eie.output import Output, check_writable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["page"]


@click.command(
    epilog=example(
        "eie report net.eie --input x.npy -o report.html",
        "eie report run/ --preset BALANCED_16 -o report.html",
        "eie report net.eie --search build/tradeoff -o report.html --json=-",
    ),
    short_help="One page of a network or a run (what `eie report PATH` writes).",
)
@click.argument("source", metavar="RUN/|NET.eie", type=click.Path(path_type=Path))
@click.option("-o", "--output", "target", metavar="F.html", type=click.Path(path_type=Path),
              default=Path("report.html"), show_default=True, help="The page.")  # fmt: skip
@click.option("--input", "given", metavar="X.npy", type=click.Path(path_type=Path),
              help="Batch, as for eie run. Without it: test samples of the run; for NET.eie random.")  # fmt: skip
@click.option("--samples", type=click.IntRange(min=1), default=16, show_default=True,
              help="Without --input: how many, for cycles and energy.")  # fmt: skip
@click.option("--accuracy-samples", "counted", type=click.IntRange(min=0), default=500, show_default=True,
              help="Test samples of a run that the golden model computes; 0 for none.")  # fmt: skip
@click.option("--density", type=FiniteRange(0, 1), default=0.35, show_default=True,
              help="Share of a random input that is not zero.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of a random input.")
@click.option("--search", metavar="OUT/", type=click.Path(path_type=Path),
              help="Folder of eie experiment: its tables, and the Pareto front of error and size.")  # fmt: skip
@click.option("--table", "table_file", metavar="F.toml", type=click.Path(path_type=Path),
              help="Energies, as for eie report energy.")  # fmt: skip
@click.option("--clock", "mhz", metavar="MHZ", type=CLOCK, default=800.0,
              show_default=True, help="Clock that power and samples a second are said at.")  # fmt: skip
@array_options
@json_option
def page(
    source: Path, target: Path, given: Path | None, samples: int, counted: int, density: float, seed: int,
    search: Path | None, table_file: Path | None, mhz: float, preset: str, settings: tuple[str, ...],
    json_to: str | None,
) -> None:  # fmt: skip
    """Write one page about NET.eie, or about a run of eie train, which is compiled for --preset.

    The network as a graph; a table of layers; where cycles and energy went; the roofline of the array; weights and
    their centroids; accuracy along the chain; the Pareto front of a search; versions and commands. The page needs no
    network, follows light and dark, prints, and holds its figures as JSON: those of eie info, eie run --engine cycles,
    eie report energy and eie bench trained.
    """
    output = Output(json_to)
    check_writable(target, "--output")

    from compiler.files import write_file
    from eie.reporting import collect

    data = collect(
        output, source, given=given, samples=samples, counted=counted, density=density, seed=seed, search=search,
        table_file=table_file, mhz=mhz, preset=preset, settings=settings,
    )  # fmt: skip
    with output.patience("drawing"):
        from sim.pages.page import MOST_BYTES, render

        text = render(data).encode()
    write_file(target, text)
    _show(output, data, target, len(text))
    if len(text) > MOST_BYTES:
        output.note(f"eie: the page has {len(text):,} bytes, more than the {MOST_BYTES:,} that it should have")
    output.result(data)


def _show(output: Output, data: Mapping[str, Any], target: Path, size: int) -> None:
    network = data.get("network")
    if network:
        rows: Sequence[Sequence[Any]] = [
            (row["name"], row["on"], row["nonzeros"], row["cycles"],
             None if row["utilization"] is None else 100 * row["utilization"], row["energy_nj"])
            for row in network["layers"]
        ]  # fmt: skip
        total = network["total"]
        output.table(
            ("layer", "on", "nonzeros", "cycles", "utilization %", "nJ"),
            [*rows, ("all", "", total["nonzeros"], total["cycles"], 100 * total["utilization"], total["energy_nj"])],
            title=f"{data['name']}, for one sample",
        )
    output.text(f"page: {target}, {size:,} bytes")
