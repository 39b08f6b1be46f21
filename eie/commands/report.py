"""``eie report``: a page about a network or a run; or what it would take on a chip, as tables."""

from __future__ import annotations

import click

from eie.commands.report_area import area
from eie.commands.report_energy import energy
from eie.commands.report_page import page
from eie.options import example

__all__ = ["report"]


class Reports(click.Group):
    """The group; what is no name of a command is what the page is about."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As a group does, with `page` in front of a path."""
        if args and args[0] not in (*self.commands, *self.get_help_option_names(ctx)):
            args = ["page", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=Reports,
    subcommand_metavar="RUN/|NET.eie|COMMAND [ARGS]...",
    epilog=example(
        "eie report net.eie --input x.npy -o report.html",
        "eie report run/ -o report.html",
        "eie report energy net.eie --input x.npy --json energy.json",
        "eie report area --preset EIE_64 --liberty cells.lib",
    ),
    short_help="A page about a network or a run; energy; area of a PE.",
)
def report() -> None:
    """Write one page about a network or a run (`eie report page --help`), or report its energy or the area of a PE.

    Each figure has its source; each report takes --json.
    """


for command in (page, energy, area):
    report.add_command(command)
