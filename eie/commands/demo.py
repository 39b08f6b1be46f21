"""``make sim``: the whole chain once, on real data, with a summary.

It ends with 0 only if every output of every layer equals the golden model bit for bit, and every time and counter
of every layer equals the cycle model.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from eie.failure import ReportingCommand
from eie.options import json_option
from eie.output import Output, check_writable_folder
from sim.demo import CLASSIFIERS, NETWORKS

__all__ = ["demo"]


@click.command(cls=ReportingCommand)
@click.option("--net", type=click.Choice(list(NETWORKS)), help="A whole network instead of LeNet-300-100.")
@click.option("--data", type=click.Choice(list(CLASSIFIERS)), help="What LeNet-300-100 reads.  [default: digits]")
@click.option("--pes", type=int, default=16, show_default=True, help="Processing elements, a power of two up to 256.")
@click.option(
    "--samples", type=click.IntRange(min=1), help="Held-out samples to run.  [default: 8 to 64, by the network]"
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True, help="Of all that is random.")
@click.option("--engine", type=click.Choice(["rtl", "amaranth"]), default="rtl", show_default=True)
@click.option("--waves", is_flag=True, help="Write a waveform of the first samples as well.")
@click.option("--mnist-dir", metavar="DIR", type=click.Path(path_type=Path), help="Folder that has the MNIST files.")
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), default=Path("build/sim"), show_default=True)
@json_option
@click.pass_context
def demo(
    ctx: click.Context,
    net: str | None,
    data: str | None,
    pes: int,
    samples: int | None,
    seed: int,
    engine: str,
    waves: bool,
    mnist_dir: Path | None,
    out: Path,
    json_to: str | None,
) -> None:
    """Train, compress, compile, simulate and compare a network: a classifier of handwritten digits, or NET."""
    from compiler.files import write_file
    from hw.params import Params

    if net and (data or mnist_dir):
        raise click.UsageError(f"--net {net} brings its own data; --data and --mnist-dir are for LeNet-300-100")
    name = net or data or "digits"
    folder = out / name
    check_writable_folder(folder, "--out")
    if waves and engine != "rtl":
        raise click.UsageError(f"--waves needs --engine rtl; {engine} writes no waveform")
    params = Params(pes=pes)

    from eie.summary import summary
    from sim.clock import Clock
    from sim.demo import demonstrate

    output = Output(json_to)
    report = demonstrate(name, params, samples, seed, engine, folder, Clock(output), waves, mnist_dir)
    write_file(folder / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    output.text(summary(report))
    output.result(report)
    ctx.exit(0 if report["equal"] and report["fixed_point"]["good"] else 1)


if __name__ == "__main__":
    demo(prog_name="python -m eie.commands.demo")
