"""The command line: which commands there are. Each is a file of `eie.commands`; failures are `eie.failure`'s."""

from __future__ import annotations

import click

from eie.commands.bench import bench
from eie.commands.compile import compile_command
from eie.commands.compress import compress
from eie.commands.compress_auto import compress_auto
from eie.commands.cost import cost
from eie.commands.decompress import decompress
from eie.commands.diff import diff
from eie.commands.doctor import doctor
from eie.commands.experiment import experiment
from eie.commands.export import export
from eie.commands.fpga import fpga
from eie.commands.fuzz import fuzz
from eie.commands.info import info
from eie.commands.init import init
from eie.commands.presets import presets
from eie.commands.report import report
from eie.commands.run import run
from eie.commands.search import search
from eie.commands.train import train
from eie.commands.verify import verify
from eie.commands.verilog import verilog
from eie.commands.watch import watch
from eie.failure import Reporting
from eie.options import example
from eie.verbosity import verbosity_options

__all__ = ["cli", "main"]


class Commands(Reporting, click.Group):
    """The group of all commands."""


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"eie {version('eie-kit')}")
    except PackageNotFoundError:
        click.echo("eie, from a folder that was not installed")
    ctx.exit()


@click.group(
    "eie",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=example(
        "eie compile layer.npz -o layer.eie --preset BALANCED_16 --calibrate x.npy",
        "eie run layer.eie --input x.npy --output y.npz --engine rtl",
    ),
)
@verbosity_options
@click.option(
    "-V", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
def cli() -> None:
    """Sparse inference in hardware: train, compile, simulate and verify networks for an array of PEs.

    Exit codes: 0 good, 1 a comparison failed, 2 bad usage or input, 3 a tool is missing.
    """


for command in (
    init,
    doctor,
    train,
    experiment,
    search,
    compress_auto,
    compile_command,
    compress,
    decompress,
    info,
    cost,
    run,
    diff,
    presets,
    export,
    verilog,
    fpga,
    verify,
    fuzz,
    bench,
    report,
    watch,
):
    cli.add_command(command)


def main() -> None:
    """Entry point of the ``eie`` script."""
    cli(prog_name="eie")


if __name__ == "__main__":
    main()
