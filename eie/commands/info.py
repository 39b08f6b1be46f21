"""``eie info``: what an image or a compressed file holds, how much room and time it takes, and whether it pays."""

from __future__ import annotations

from pathlib import Path

import click

from eie.options import example, json_option
from eie.output import Output
from eie.verbosity import Verbosity, verbosity


@click.command(epilog=example("eie info layer.eie", "eie info layer.eie --all", "eie info lenet.eiez"))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-a", "--all", "all_tables", is_flag=True, help="Every table, not only the layers and totals.")
@json_option
def info(file: Path, all_tables: bool, json_to: str | None) -> None:
    """Say what the image or compressed FILE holds.

    Layers, nonzeros, bytes, and cycles of one vector without zeros (the most there can be). With --all also number
    formats, padding, bits by part, memory map, proven bounds of the sums, and the weight density below which a layer
    gains over a dense one. Of an .eiez file: bits by part, per weight and per nonzero, and the ratio to float32.
    """
    output = Output(json_to)
    if _is_compressed(file):
        from eie.sizetable import show_sizes

        show_sizes(file, output)
        return

    from eie.infotext import show_all, show_short
    from eie.remembered import described

    facts = described(file)
    everything = all_tables or verbosity() is Verbosity.VERBOSE
    (show_all if everything else show_short)(output, file, facts)
    output.result({"file": str(file), **facts})


def _is_compressed(file: Path) -> bool:
    """By its first bytes, whatever its name is."""
    from compiler.coding.wire import MAGIC

    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC
