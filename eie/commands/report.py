"""``eie report``: what a compiled network would take on a chip. The work of each subcommand is in `sim`."""

from __future__ import annotations

import click

from eie.commands.report_area import area
from eie.commands.report_energy import energy
from eie.options import example

__all__ = ["report"]


@click.group(
    epilog=example(
        "eie report energy net.eie --input x.npy --json energy.json",
        "eie report area --preset EIE_64 --liberty cells.lib",
    ),
    short_help="Reports: energy of a network, area of a PE.",
)
def report() -> None:
    """Reports on a network or an array, each with the sources of its figures; each takes --json."""


for command in (energy, area):
    report.add_command(command)
