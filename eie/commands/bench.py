"""``eie bench``: what the array and the kit achieve, measured. The work of each subcommand is in `sim.benchmarks`."""

from __future__ import annotations

import click

from eie.commands.bench_ablation import ablation
from eie.commands.bench_array import array
from eie.commands.bench_boards import bench_boards
from eie.commands.bench_compress import compress
from eie.commands.bench_eie import eie
from eie.commands.bench_networks import bench_networks
from eie.commands.bench_speed import speed
from eie.commands.bench_studies import studies
from eie.commands.bench_train import train
from eie.commands.bench_trained import bench_trained
from eie.options import example

__all__ = ["bench"]


@click.group(
    epilog=example("eie bench eie --json eie.json", "eie bench speed"),
    short_help="Benchmarks: efficiency of the array, speed of the kit, studies.",
)
def bench() -> None:
    """Benchmarks, each with what its figures are measured against."""


for command in (eie, ablation, speed, studies, compress, train, array, bench_networks, bench_trained, bench_boards):
    bench.add_command(command)
